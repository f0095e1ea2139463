"""A local clock that is wrong is told of and decides nothing: the log's own time does."""

import pytest

from shared.bus.core import BusUnavailableError
from shared.log.envelope import Message
from shared.log.streams import REPLICAS
from shared.log.subjects import replica_subject
from shared.runtime.log_clock import LogClock
from tests.fakes.memory_bus import MemoryBus, MemoryStream
from tests.support.world import NOW

HOUR = 3600.0
BEAT = Message(b"{}", {})


class Clock:
    """Seconds that a test lets pass, for the log, the machine and the process."""

    def __init__(self, skew: float) -> None:
        self.passed, self.skew = 0.0, skew

    def log(self) -> int:
        return int((NOW + self.passed) * 1e9)

    def local(self) -> float:
        return NOW + self.passed + self.skew

    def monotonic(self) -> float:
        return 77.0 + self.passed


def clock_of(time: Clock) -> LogClock:
    bus = MemoryBus(time.log, {REPLICAS: MemoryStream(("$KV.REPLICAS.>",))})
    return LogClock(bus, replica_subject("issuer", "issuer-0"), time.local, time.monotonic)


async def test_before_the_first_measurement_there_is_no_time() -> None:
    clock = clock_of(Clock(0))
    assert clock.problems() == ["log time not measured yet"]
    with pytest.raises(BusUnavailableError):
        clock()


@pytest.mark.parametrize("skew", [25 * HOUR, -25 * HOUR, 61, 0.0])
async def test_the_time_is_the_logs_whatever_the_local_clock_says(skew: float) -> None:
    time = Clock(skew)
    clock = clock_of(time)
    await clock.beat(BEAT)
    time.passed = 100

    assert clock() == pytest.approx(NOW + 100)
    told = [f"the local clock is {skew:+.0f} s off the log's"] if skew else []
    assert clock.problems() == told


async def test_a_local_clock_that_is_set_between_two_measurements_changes_nothing() -> None:
    time = Clock(0)
    clock = clock_of(time)
    await clock.beat(BEAT)
    time.skew = 25 * HOUR
    assert clock() == pytest.approx(NOW)

    await clock.beat(BEAT)
    assert clock.problems() == ["the local clock is +90000 s off the log's"]
    time.skew = 0
    await clock.beat(BEAT)
    assert clock.problems() == []


async def test_what_a_lagging_replica_of_the_log_answers_is_no_measurement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = clock_of(Clock(0))

    async def nothing(*_: object) -> None:
        return None

    monkeypatch.setattr(clock.bus, "get_last", nothing)
    await clock.beat(BEAT)
    assert clock.problems() == ["log time not measured yet"]
