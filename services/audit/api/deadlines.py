"""Deadlines for requests on the admin port: without an answer in time, a request gets a 503.

A query runs in a thread, which cannot be stopped while the database host is silent, so its request
is abandoned. The number of abandoned requests is bounded, and while the database is known to be
unavailable, requests are refused before they reach it.

Each kind of request has its own slots and a time limit longer than what it waits for: an issuer's
answer to a command takes longer than a query. Anyone can try to sign in or cause requests to the
identity provider. Every request of these kinds takes a slot while it runs, so that there are few
of them and they never use the slots of another kind.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.audit.api.problems import problem
from shared.limits import (
    ADMIN_COMMAND_SECONDS,
    ADMIN_PROVIDER_SECONDS,
    ADMIN_SECONDS,
    ADMIN_SIGNING_IN,
    ADMIN_UNANSWERED,
)

_UNBOUNDED: Final = ("/healthz", "/readyz", "/metrics")
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_DATABASE: Final = "the database is not responding"
_BUSY: Final = "too many sign-ins in progress; try again"
_RETRY: Final = {"retry-after": "5"}


@dataclass(frozen=True, slots=True)
class Kind:
    """Requests that wait for the same thing: a time limit, slots, and the texts of a 503.

    `late` is the text for a request that was started, `full` for one that was not. `is_anonymous`
    marks requests from clients that are not signed in: each takes a slot while it runs, others only
    once they are abandoned.
    """

    seconds: float
    places: int
    late: str = _DATABASE
    full: str = _DATABASE
    is_anonymous: bool = False


QUERY: Final = Kind(ADMIN_SECONDS, ADMIN_UNANSWERED)
COMMAND: Final = Kind(
    ADMIN_COMMAND_SECONDS,
    ADMIN_UNANSWERED,
    "no answer in time; check under Commands whether it was carried out",
    "too many unanswered commands; this one was not started",
)
SIGN_IN: Final = Kind(ADMIN_SECONDS, ADMIN_SIGNING_IN, full=_BUSY, is_anonymous=True)
PROVIDER: Final = Kind(
    ADMIN_PROVIDER_SECONDS,
    ADMIN_SIGNING_IN,
    "no answer in time; try again",
    _BUSY,
    is_anonymous=True,
)


def kind_of(method: str, path: str) -> Kind:
    """Return the kind of a request."""
    if path.startswith("/login/"):
        return PROVIDER
    if path == "/login":
        return SIGN_IN
    return COMMAND if path.startswith("/api/") and method not in _SAFE else QUERY


@dataclass
class Bounded:
    """ASGI middleware that enforces the limits; `away` says if the database is known to be down."""

    app: ASGIApp
    away: Callable[[], bool]
    kinds: Callable[[str, str], Kind] = kind_of
    _taken: defaultdict[Kind, set[asyncio.Task[None]]] = field(
        default_factory=lambda: defaultdict(set)
    )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 503."""
        if scope["type"] != "http" or scope["path"] in _UNBOUNDED:
            await self.app(scope, receive, send)
            return
        kind = self.kinds(scope["method"], scope["path"])
        if self.away():
            await _refuse(_DATABASE, scope, receive, send)
        elif len(self._taken[kind]) >= kind.places:
            await _refuse(kind.full, scope, receive, send)
        else:
            await self._answer(kind, scope, receive, send)

    async def _answer(self, kind: Kind, scope: Scope, receive: Receive, send: Send) -> None:
        begun = abandoned = False

        async def guarded(message: Message) -> None:
            nonlocal begun
            if not abandoned:
                begun = True
                await send(message)

        task = asyncio.ensure_future(self._run(scope, receive, guarded))
        if kind.is_anonymous:
            self._take(kind, task)
        await asyncio.wait((task,), timeout=kind.seconds)
        if task.done() or begun:
            return await task
        abandoned = True
        self._take(kind, task)
        return await _refuse(kind.late, scope, receive, send)

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)

    def _take(self, kind: Kind, task: asyncio.Task[None]) -> None:
        if task not in self._taken[kind]:
            self._taken[kind].add(task)
            task.add_done_callback(lambda done: self._give_back(kind, done))

    def _give_back(self, kind: Kind, task: asyncio.Task[None]) -> None:
        self._taken[kind].discard(task)
        if not task.cancelled():
            task.exception()  # retrieve it: nobody awaits an abandoned task


async def _refuse(sentence: str, scope: Scope, receive: Receive, send: Send) -> None:
    api = scope["path"].startswith("/api/")
    answer = problem(503, sentence, _RETRY) if api else PlainTextResponse(
        f"{sentence}\n", 503, _RETRY
    )  # fmt: skip
    await answer(scope, receive, send)
