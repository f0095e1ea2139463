"""Streams that come and go while the record runs."""

from pathlib import Path

from services.audit.proof.checkpoints import Checkpoints
from services.audit.record.lag import Backlog
from services.audit.record.quota import QuotaMonitor
from services.audit.record.write import position
from services.audit.recording import Recording
from services.audit.store.engine import migrate, open_engine
from shared.bus.topology import recorded
from shared.log.envelope import Message
from tests.support.world import OPERATOR, Clock, append, memory_bus, until


async def test_a_shard_that_comes_is_recorded_and_told_to_all_who_go_through_streams(
    tmp_path: Path,
) -> None:
    clock, engine = Clock(), open_engine(f"sqlite:///{tmp_path / 'audit.db'}")
    migrate(engine)
    bus = memory_bus(clock, ("0", "1"))
    checkpoints = Checkpoints(bus, engine, OPERATOR, (), clock)
    quota, backlog = QuotaMonitor(bus, OPERATOR, (), clock), Backlog(bus, engine, (), clock)
    recording = Recording(bus, engine, 8, checkpoints, backlog, quota)
    await recording.reconcile(["0"])
    first = list(recording.recorders)
    await recording.reconcile(["0", "1"])
    await append(bus, "enroll.1.demo.t.c.0.request", Message(b"{}", {}))
    await until(lambda: position(engine, "ENROLL_1") == 1)

    assert recording.recorders[: len(first)] == first
    assert [r.stream for r in recording.recorders if r not in first] == ["ENROLL_1"]
    assert set(checkpoints.streams) == set(backlog.streams) == set(recorded(["0", "1"]))
    assert quota.streams == ["ENROLL_0", "ENROLL_1"]

    await recording.reconcile(["1"])
    assert "ENROLL_0" not in {recorder.stream for recorder in recording.recorders}
    await recording.stop()
    engine.dispose()
