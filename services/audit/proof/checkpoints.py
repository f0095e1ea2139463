"""Signed checkpoints of the streams, once a day and on demand."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from services.audit.record.agreement import ReplacedLogError, compare
from services.audit.record.write import signed_place
from services.audit.store.engine import DatabaseError, Engine
from shared.bus.core import Bus, BusUnavailableError
from shared.bus.log import Log
from shared.log.envelope import NANOSECONDS, EventSigner
from shared.log.events.state import CheckpointSigned
from shared.log.streams import OPS
from shared.log.subjects import checkpoint
from shared.observe.logs import log_failure
from shared.runtime.periodic import every

_log = structlog.get_logger()
_LOOK_SECONDS = 600.0
# A checkpoint after a day reads all events since the last one: not while the service starts.
_FIRST_SECONDS = 60.0
_DAY = 86400


@dataclass
class Checkpoints:
    """Signs checkpoints of every stream; replicas that sign the same one store it once."""

    bus: Bus
    engine: Engine
    signer: EventSigner
    streams: Sequence[str]
    clock: Callable[[], float]

    async def run(self) -> None:
        """Check from time to time which streams are due for a checkpoint, and sign those."""
        await every(_LOOK_SECONDS, self._look, name="checkpoint", delay=_FIRST_SECONDS)

    async def _look(self) -> None:
        for stream in self.streams:
            try:
                if await self._is_due(stream):
                    await self.sign(stream)
            except (BusUnavailableError, DatabaseError, ReplacedLogError) as error:
                log_failure("checkpoint_waiting", error, stream=stream)
            except Exception as error:  # noqa: BLE001 - the other streams are signed all the same
                log_failure("checkpoint_failed", error, stream=stream)

    async def sign(self, stream: str) -> tuple[int, str]:
        """Append a checkpoint of what the database has of a stream; return (sequence, digest).

        Raises `ReplacedLogError` if the log lacks what the checkpoint would attest.
        """
        standing = await compare(self.bus, self.engine, stream)
        if standing.problem:
            raise ReplacedLogError(f"{stream}: {standing.problem}")
        sequence, digest = await asyncio.to_thread(signed_place, self.engine, stream)
        if sequence:
            event = CheckpointSigned(stream=stream, sequence=sequence, digest=digest)
            # Another replica may have stored it already.
            await Log(self.bus, self.signer).append(checkpoint(stream, sequence), event)
            _log.info("checkpoint_signed", stream=stream, sequence=sequence, digest=digest)
        return sequence, digest

    async def _is_due(self, stream: str) -> bool:
        last = await self.bus.get_last(OPS, checkpoint(stream, "*"))
        return last is None or self.clock() - last.time / NANOSECONDS >= _DAY
