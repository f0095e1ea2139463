"""Signs what the streams held, once a day and on demand."""

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
_DAY = 86400


@dataclass
class Checkpoints:
    """The auditor's word on every stream; several auditors say the same, once."""

    bus: Bus
    engine: Engine
    signer: EventSigner
    streams: Sequence[str]
    clock: Callable[[], float]

    async def run(self) -> None:
        """Look now and then whether a day has gone by."""
        await every(_LOOK_SECONDS, self._look, name="checkpoint")

    async def _look(self) -> None:
        for stream in self.streams:
            try:
                if await self._is_due(stream):
                    await self.sign(stream)
            except (BusUnavailableError, DatabaseError, ReplacedLogError) as error:
                log_failure("checkpoint_waiting", error, stream=stream)
            except Exception as error:  # noqa: BLE001 - the other streams come all the same
                log_failure("checkpoint_failed", error, stream=stream)

    async def sign(self, stream: str) -> tuple[int, str]:
        """Append a checkpoint of what the database has of a stream: (sequence, digest).

        `ReplacedLogError` where the log lacks what the checkpoint would vouch for.
        """
        standing = await compare(self.bus, self.engine, stream)
        if standing.problem:
            raise ReplacedLogError(f"{stream}: {standing.problem}")
        sequence, digest = await asyncio.to_thread(signed_place, self.engine, stream)
        if sequence:
            event = CheckpointSigned(stream=stream, sequence=sequence, digest=digest)
            # Another auditor may have said it.
            await Log(self.bus, self.signer).append(checkpoint(stream, sequence), event)
            _log.info("checkpoint_signed", stream=stream, sequence=sequence, digest=digest)
        return sequence, digest

    async def _is_due(self, stream: str) -> bool:
        last = await self.bus.get_last(OPS, checkpoint(stream, "*"))
        return last is None or self.clock() - last.time / NANOSECONDS >= _DAY
