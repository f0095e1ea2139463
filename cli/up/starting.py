"""Wait for children to become ready, and report what they wait for."""

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
    """Waits for a child, and reports every `seconds` what is still missing.

    `limit` is the longest wait in seconds; None: without end, if there is nothing else to do.
    """

    notice: Notice = say
    seconds: float = _SAY_SECONDS
    limit: float | None = None

    async def until(self, child: Child, missing: Callable[[], Awaitable[str]]) -> None:
        """Return once `missing` returns "".

        `UpError` if the child refuses to start, or after `limit` seconds.
        """
        reason, next_word = "it does not answer", time.monotonic() + self.seconds
        try:
            async with asyncio.timeout(self.limit) as bound:
                while reason := await missing():
                    if bound.expired():  # `missing` has swallowed the cancellation
                        raise UpError(f"{child.name}: {reason}")
                    if child.refused:
                        raise UpError(f"{child.name} refused to start: {child.refused}")
                    if time.monotonic() >= next_word:
                        self.notice(f"waiting for {child.name}: {reason}")
                        next_word = time.monotonic() + self.seconds
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            raise UpError(f"{child.name}: {reason}") from None


async def missing_of(client: httpx.AsyncClient, url: str) -> str:
    """Return what a service's /readyz says is missing, "" if it is ready."""
    try:
        answer = await client.get(url, timeout=2)
    except httpx.HTTPError:
        return "no answer yet"
    return "" if answer.is_success else answer.text.strip()
