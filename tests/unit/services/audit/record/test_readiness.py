"""Whether the audit service is ready follows the bus and the database."""

import shutil
from pathlib import Path

from services.audit.record.consumer import StreamRecorder
from services.audit.record.readiness import Readiness
from services.audit.store.engine import migrate, open_engine
from tests.fakes.memory_bus import MemoryBus


async def test_what_is_away_is_named_and_what_comes_back_is_not(tmp_path: Path) -> None:
    kept, away = tmp_path / "kept", tmp_path / "away"
    kept.mkdir()
    engine, bus = open_engine(f"sqlite:///{kept / 'audit.db'}"), MemoryBus()
    migrate(engine)
    recorder = StreamRecorder(bus, engine, "ENROLL_0", 1)
    assert Readiness(bus, engine, [recorder]).missing() == "recorder of ENROLL_0: not started"
    recorder.problem = ""
    readiness = Readiness(bus, engine, [recorder])
    await readiness.look()
    assert readiness.missing() == ""

    engine.dispose()
    shutil.move(kept, away)
    await readiness.look()
    assert readiness.missing() == "database"
    bus.connected = False
    assert readiness.missing() == "bus, database"

    recorder.problem = "recorded 812 of 1034 events"
    assert readiness.missing() == "bus, database, recorder of ENROLL_0: recorded 812 of 1034 events"

    shutil.move(away, kept)
    recorder.problem = ""
    bus.connected = True
    await readiness.look()
    assert readiness.missing() == ""
    engine.dispose()
