"""An end to every request on the admin port: a database that does not answer is a 503, no wait.

A query runs in a thread, which cannot be ended while the database's machine is silent: it is left
behind. What may be left behind is bounded, and while the database is known to be away nothing
is asked of it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.audit.admin.problems import problem
from shared.limits import ADMIN_SECONDS, ADMIN_UNANSWERED

_UNBOUNDED: Final = ("/healthz", "/readyz", "/metrics")
_SENTENCE: Final = "the database does not answer now"
_RETRY: Final = {"retry-after": "5"}


@dataclass
class Bounded:
    """The application within `seconds`; `away` says that the database is known not to answer."""

    app: ASGIApp
    away: Callable[[], bool]
    seconds: float = ADMIN_SECONDS
    _left: set[asyncio.Task[None]] = field(default_factory=set)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http" or scope["path"] in _UNBOUNDED:
            await self.app(scope, receive, send)
        elif self.away() or len(self._left) >= ADMIN_UNANSWERED:
            await _refuse(scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = abandoned = False

        async def guarded(message: Message) -> None:
            nonlocal begun
            if not abandoned:
                begun = True
                await send(message)

        task = asyncio.ensure_future(self._run(scope, receive, guarded))
        await asyncio.wait((task,), timeout=self.seconds)
        if task.done() or begun:
            return await task
        abandoned = True
        self._left.add(task)
        task.add_done_callback(self._forget)
        return await _refuse(scope, receive, send)

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._left.discard(task)
        if not task.cancelled():
            task.exception()  # nobody waits for it any more


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    api = scope["path"].startswith("/api/")
    answer = problem(503, _SENTENCE, _RETRY) if api else PlainTextResponse(
        f"{_SENTENCE}\n", 503, _RETRY
    )  # fmt: skip
    await answer(scope, receive, send)
