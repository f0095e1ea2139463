"""Recorders for the streams of the current shards."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.audit.proof.checkpoints import Checkpoints
from services.audit.record.consumer import StreamRecorder
from services.audit.record.lag import Backlog
from services.audit.record.quota import QuotaMonitor
from services.audit.store.engine import Engine
from shared.bus.core import Bus
from shared.bus.topology import recorded
from shared.log.streams import enroll_stream


@dataclass
class Recording:
    """Keeps one recorder per stream, and gives the streams to all that go through them.

    `recorders` is changed in place: readiness holds the same list.
    """

    bus: Bus
    engine: Engine
    batch: int
    checkpoints: Checkpoints
    backlog: Backlog
    quota: QuotaMonitor
    recorders: list[StreamRecorder] = field(default_factory=list)

    async def reconcile(self, shards: Sequence[str]) -> None:
        """Start and stop recorders so that exactly these shards' streams are recorded."""
        streams = recorded(shards)
        for recorder in [r for r in self.recorders if r.stream not in streams]:
            self.recorders.remove(recorder)
            await recorder.stop()
        known = {recorder.stream for recorder in self.recorders}
        for stream in streams:
            if stream not in known:
                recorder = StreamRecorder(self.bus, self.engine, stream, self.batch)
                await recorder.start()
                self.recorders.append(recorder)
        self.checkpoints.streams = self.backlog.streams = streams
        self.quota.streams = [enroll_stream(shard) for shard in shards]

    async def stop(self) -> None:
        """Stop all recorders."""
        await asyncio.gather(*(recorder.stop() for recorder in self.recorders))
