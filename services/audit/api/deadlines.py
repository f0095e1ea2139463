"""An end to every request on the admin port: what does not answer is a 503, no wait.

A query runs in a thread, which cannot be ended while the database's machine is silent: its request
is left behind. How many may be left behind is bounded, and while the database is known to be away
nothing is asked of it.

Requests are of kinds, each with places of its own and a limit that is longer than what it waits
for: an issuer's answer to an order takes longer than a query. Anyone can sign in, or have the
identity provider asked: of these kinds every request under way takes a place, so that they stay
few, and none of another kind.
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
    ADMIN_ORDER_SECONDS,
    ADMIN_PROVIDER_SECONDS,
    ADMIN_SECONDS,
    ADMIN_SIGNING_IN,
    ADMIN_UNANSWERED,
)

_UNBOUNDED: Final = ("/healthz", "/readyz", "/metrics")
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_DATABASE: Final = "the database does not answer now"
_BUSY: Final = "too many are signing in at once: try again"
_RETRY: Final = {"retry-after": "5"}


@dataclass(frozen=True, slots=True)
class Kind:
    """Requests that wait for the same: how long, how many, and what a 503 says.

    `late` is said of one that was begun, `full` of one that was not. `is_anyones` says whether they
    come from who is not signed in.
    """

    seconds: float
    places: int
    late: str = _DATABASE
    full: str = _DATABASE
    is_anyones: bool = False


QUERY: Final = Kind(ADMIN_SECONDS, ADMIN_UNANSWERED)
ORDER: Final = Kind(
    ADMIN_ORDER_SECONDS,
    ADMIN_UNANSWERED,
    "no answer in time: see whether the order was carried out",
    "too many commands are unanswered: this one was not begun",
)
SIGN_IN: Final = Kind(ADMIN_SECONDS, ADMIN_SIGNING_IN, full=_BUSY, is_anyones=True)
PROVIDER: Final = Kind(
    ADMIN_PROVIDER_SECONDS, ADMIN_SIGNING_IN, "no answer in time: try again", _BUSY, is_anyones=True
)


def kind_of(method: str, path: str) -> Kind:
    """Return what a request waits for."""
    if path.startswith("/login/"):
        return PROVIDER
    if path == "/login":
        return SIGN_IN
    return ORDER if path.startswith("/api/") and method not in _SAFE else QUERY


@dataclass
class Bounded:
    """The application within limits; `away` says that the database is known not to answer."""

    app: ASGIApp
    away: Callable[[], bool]
    kinds: Callable[[str, str], Kind] = kind_of
    _taken: defaultdict[Kind, set[asyncio.Task[None]]] = field(
        default_factory=lambda: defaultdict(set)
    )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
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
        if kind.is_anyones:
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
            task.exception()  # where it was left behind nobody waits for it any more


async def _refuse(sentence: str, scope: Scope, receive: Receive, send: Send) -> None:
    api = scope["path"].startswith("/api/")
    answer = problem(503, sentence, _RETRY) if api else PlainTextResponse(
        f"{sentence}\n", 503, _RETRY
    )  # fmt: skip
    await answer(scope, receive, send)
