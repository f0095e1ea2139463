"""Middleware that reads a form completely before the application's deadline starts.

A request on the admin port that misses its deadline counts as unanswered by the database. A form
that arrives slowly is not the database's fault: its time is limited by the connection
(shared.runtime.connections). The API does not need this: it reads bodies after authentication.
"""

from typing import Final

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.limits import ADMIN_BODY_BYTES

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_CLOSE: Final = {"connection": "close"}


class WholeForms:
    """ASGI middleware that passes on complete forms and refuses large ones with a 413."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the whole form, then pass the request on."""
        is_form = scope["type"] == "http" and scope["method"] not in _SAFE
        if not is_form or scope["path"].startswith("/api/"):
            await self._app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return  # the client is gone
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > ADMIN_BODY_BYTES:
                await PlainTextResponse("the form is too large\n", 413, _CLOSE)(
                    scope, receive, send
                )
                return
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        await self._app(scope, replay, send)
