"""Reports how full the enrollment streams are, to gateways and operators."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from shared.bus.core import Bus, BusUnavailableError
from shared.bus.topology import quota_hints
from shared.log.envelope import EventSigner, sign
from shared.log.events.state import StreamMeasured
from shared.observe.logs import log_failure
from shared.observe.metrics import STREAM_BYTES, STREAM_FILL
from shared.runtime.periodic import every

_log = structlog.get_logger()
_SECONDS: Final = 5.0


@dataclass
class QuotaMonitor:
    """Measures the streams every few seconds; `clock` returns Unix seconds."""

    bus: Bus
    signer: EventSigner
    streams: Sequence[str]
    clock: Callable[[], float]

    async def run(self) -> None:
        """Measure every few seconds, forever."""
        await every(_SECONDS, self._look_at_all, name="quota")

    async def _look_at_all(self) -> None:
        for stream in self.streams:
            try:
                await self.look(stream)
            except BusUnavailableError as error:
                for gauge in (STREAM_BYTES, STREAM_FILL):
                    gauge.labels(stream).set(math.nan)
                _log.info("capacity_unknown", stream=stream, detail=str(error)[:100])
            except Exception as error:  # noqa: BLE001 - the other streams are measured all the same
                log_failure("capacity_check_failed", error)

    async def look(self, stream: str) -> None:
        """Measure one stream, set its gauges, and send the result to the gateways."""
        size = await self.bus.size(stream)
        STREAM_BYTES.labels(stream).set(size.used)
        STREAM_FILL.labels(stream).set(size.used / size.most if size.most else 0)
        event = StreamMeasured(stream=stream, used=size.used, most=size.most, at=int(self.clock()))
        subject = quota_hints(stream)
        message = sign(event, subject, self.signer)
        await self.bus.hint(subject, message)
