"""Waits for children that start, for as long as it takes, and says what is waited for."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import httpx

from cli.up.children import Child, Notice, say
from cli.up.layout import UpError

_LOOK_SECONDS: Final = 0.05
_SAY_SECONDS: Final = 10.0


@dataclass
class Patience:
    """Says every ten seconds that something is still waited for, and why.

    `limit` is how many seconds it waits in all: None for ever, where there is nothing else to do.
    """

    notice: Notice = say
    seconds: float = _SAY_SECONDS
    limit: float | None = None

    async def until(self, child: Child, missing: Callable[[], Awaitable[str]]) -> None:
        """Return when nothing is missing; `UpError` when the child cannot be started at all.

        `UpError` as well when `limit` is over.
        """
        reason, next_word = "it does not answer", time.monotonic() + self.seconds
        try:
            async with asyncio.timeout(self.limit) as bound:
                while reason := await missing():
                    if bound.expired():  # what was awaited has swallowed the cancellation
                        raise UpError(f"{child.name}: {reason}")
                    if child.refused:
                        raise UpError(f"{child.name} would not start: {child.refused}")
                    if time.monotonic() >= next_word:
                        self.notice(f"waiting for {child.name}: {reason}")
                        next_word = time.monotonic() + self.seconds
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            raise UpError(f"{child.name}: {reason}") from None


async def missing_of(client: httpx.AsyncClient, url: str) -> str:
    """What a service says that it lacks, "" when it is ready."""
    try:
        answer = await client.get(url, timeout=2)
    except httpx.HTTPError:
        return "no answer yet"
    return "" if answer.is_success else answer.text.strip()
