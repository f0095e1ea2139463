"""Storage quota: refuses new requests while the log is nearly full.

The audit service announces how full each stream is. A gateway has no permission to ask: that
permission would also let it list the stream's subjects.
See docs/decisions/0032-gateways-are-told-how-full-the-log-is.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog

from services.gateway.refusals import LOG_FULL, RefusedError
from services.gateway.settings import Settings
from shared.bus.core import Bus
from shared.bus.log import read_authentic
from shared.bus.topology import quota_hints
from shared.log.envelope import Stored
from shared.log.events.state import StreamMeasured
from shared.log.stages import Stage
from shared.log.streams import enroll_stream
from shared.log.subjects import EnrollmentId
from shared.runtime.live import Live

_log = structlog.get_logger()
# The later stages of enrollments in progress must always fit.
_FULL: Final = 0.8
_GOOD_FOR_SECONDS: Final = 60.0


@dataclass
class Quota:
    """The newest measurement of each shard's stream; stale or unsigned ones do not count."""

    bus: Bus
    live: Live[Settings]
    clock: Callable[[], float]
    _heard: dict[str, StreamMeasured] = field(default_factory=dict)

    def on_hint(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Store a measurement that the audit service signed for this stream, if it is newer."""
        hint = Stored(subject, payload, headers, 0, 0)
        measured = read_authentic(StreamMeasured, hint, self.live.current.operators, "quota")
        if measured is None:
            return
        newest = self._heard.get(measured.stream)
        if subject == quota_hints(measured.stream) and (newest is None or measured.at >= newest.at):
            self._heard[measured.stream] = measured

    async def check(self, enrollment: EnrollmentId) -> None:
        """Raise `RefusedError` for a new request if the log has no room for it.

        A request that is already on the log continues: the reserve has room for its later stages.
        """
        if not self.is_full(enrollment.shard):
            return
        stream, subject = enroll_stream(enrollment.shard), enrollment.subject(Stage.REQUEST)
        if await self.bus.get_last_or_leader(stream, subject) is None:
            raise RefusedError(LOG_FULL)

    def is_full(self, shard: str) -> bool:
        """Return whether a shard's stream is too full for new requests."""
        heard = self._heard.get(enroll_stream(shard))
        if heard is None or not heard.most:
            return False
        return abs(self.clock() - heard.at) < _GOOD_FOR_SECONDS and heard.used >= heard.most * _FULL
