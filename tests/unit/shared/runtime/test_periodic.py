"""Work that is done again and again, whatever becomes of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import structlog

from shared.bus.core import BusUnavailableError
from shared.runtime.periodic import every
from tests.support.world import until

LONG = 3600.0


class Work:
    """Fails as often as it is told to, then goes well."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.times = list(errors), 0

    async def __call__(self) -> None:
        self.times += 1
        if self.errors:
            raise self.errors.pop(0)


@asynccontextmanager
async def running(
    seconds: float | Callable[[], float], work: Work, **options: Any
) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(every(seconds, work, name="sample", **options))
    yield task
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_it_is_done_again_after_each_pause() -> None:
    work = Work()
    async with running(0.0, work):
        await until(lambda: work.times >= 3)


async def test_an_outage_is_logged_as_one_and_a_bug_by_its_type_alone() -> None:
    work = Work(BusUnavailableError("nobody answers"), ValueError("a secret"))
    with structlog.testing.capture_logs() as lines:
        async with running(0.0, work):
            await until(lambda: work.times >= 3)

    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("sample_waiting", "info"),
        ("sample_failed", "error"),
    ]
    assert lines[0]["detail"] == "nobody answers"
    assert lines[1]["error"] == "ValueError"
    assert "a secret" not in str(lines)


async def test_after_a_failure_the_pause_is_that_of_a_retry() -> None:
    work = Work(ValueError(), BusUnavailableError())
    async with running(LONG, work, retry=0.0):
        await until(lambda: work.times == 3)


async def test_who_wakes_it_does_not_wait_and_one_call_is_one_time() -> None:
    work, wake = Work(), asyncio.Event()
    async with running(LONG, work, wake=wake):
        await until(lambda: work.times == 1)
        wake.set()
        await until(lambda: work.times == 2)
        assert not wake.is_set()


async def test_the_pause_may_depend_on_what_was_found() -> None:
    work = Work()
    async with running(lambda: 0.0 if work.times < 3 else LONG, work):
        await until(lambda: work.times == 3)


async def test_the_first_time_may_be_later() -> None:
    work = Work()
    async with running(LONG, work, delay=LONG):
        for _ in range(100):
            await asyncio.sleep(0)
        assert work.times == 0
