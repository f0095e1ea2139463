"""The messages of events of which the database keeps only a digest, read from the log."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Final

from services.audit.record.digest import event_digest, own_headers
from services.audit.record.log_reader import read_some
from shared.bus.core import Bus, BusError

_SECONDS: Final = 3.0
_MOST: Final = 32  # ours have eight at most; of messages that somebody planted, each may be large


async def with_payloads(bus: Bus, events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of `events` with the payloads that the database lacks.

    A payload stays None if the log does not answer or has another event at that sequence, and for
    all but the first 32 that are lacking.
    """
    lacking: dict[str, list[int]] = {}
    for event in [each for each in events if each["payload"] is None][:_MOST]:
        lacking.setdefault(event["stream"], []).append(event["sequence"])
    found: dict[tuple[str, int], tuple[bytes, bytes]] = {}
    with contextlib.suppress(BusError, TimeoutError):
        async with asyncio.timeout(_SECONDS):
            for stream, sequences in lacking.items():
                for sequence, stored in (await read_some(bus, stream, sequences)).items():
                    digest = event_digest(stored, own_headers(stored))
                    found[stream, sequence] = digest, stored.payload
    return [_completed(event, found) for event in events]


def _completed(
    event: dict[str, Any], found: dict[tuple[str, int], tuple[bytes, bytes]]
) -> dict[str, Any]:
    digest, payload = found.get((event["stream"], event["sequence"]), (b"", b""))
    return event | {"payload": payload} if digest == event["digest"] else event
