"""Calls that need a bearer token: for Graph, and for the services that Graph names."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from services.validator.microsoft.channel import Channel, Reply, Request
from services.validator.microsoft.retrying import Move, Step
from services.validator.microsoft.tokens import TokenProvider

Build = Callable[[str], Awaitable[Request]]
_DENIED = (401, 403)
_SERVER_ERROR = 500


def _never() -> None:
    return


@dataclass
class Call:
    """One call with a token of a scope; `build` makes the request of each attempt from it.

    `suspect` is called if the service may have moved; only such a service is `relocatable`.
    """

    channel: Channel
    tokens: TokenProvider
    service: str
    scope: str
    build: Build
    relocatable: bool = False
    suspect: Callable[[], None] = _never
    _token: str = field(default="", init=False, repr=False)

    async def make(self, deadline: float) -> Reply:
        """Make the call; a token that was not accepted is dropped, and replaced once."""
        reply = await self.channel.exchange(
            self.service,
            self._prepare,
            deadline,
            relocatable=self.relocatable,
            again=self._again,
        )
        if reply.status in _DENIED:
            self.tokens.drop(self.scope, self._token)
        return reply

    async def _prepare(self) -> Request:
        self._token = await self.tokens.token(self.scope)
        return await self.build(self._token)

    def _again(self, move: Move, reply: Reply) -> None:
        if move.step is Step.REFRESH:
            self.tokens.drop(self.scope, self._token)
        if move.step is Step.RELOCATE or reply.status >= _SERVER_ERROR:
            self.suspect()
