import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from shared.config.load import SettingsError
from shared.runtime.reload import Reloader, Source
from tests.support.world import turn, until


@dataclass
class Service:
    """A service that reads numbers for settings; an error among them is raised instead."""

    found: list[int | Exception]
    refuse: list[int] = field(default_factory=list)
    reads: int = 0
    applied: list[int] = field(default_factory=list)
    hangup: asyncio.Event = field(default_factory=asyncio.Event)
    running: asyncio.Task[None] | None = None

    def read(self) -> int:
        self.reads += 1
        found = self.found.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def apply(self, settings: int) -> None:
        if settings in self.refuse:
            raise SettingsError("does not fit")
        self.applied.append(settings)

    def start(self) -> None:
        source = Source(0, self.read)
        self.running = asyncio.create_task(Reloader(source, self.apply).on(self.hangup))


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    found = Service([1, 2, 3])
    found.start()
    yield found
    assert found.running is not None
    found.running.cancel()
    await asyncio.gather(found.running, return_exceptions=True)


async def test_nothing_is_read_before_a_hangup(service: Service) -> None:
    await turn()

    assert (service.reads, service.applied) == (0, [])


async def test_each_hangup_reads_once_and_swaps_in_what_was_read(service: Service) -> None:
    service.hangup.set()
    await until(lambda: service.applied)
    service.hangup.set()
    await until(lambda: len(service.applied) == 2)
    await turn()

    assert (service.applied, service.reads) == ([1, 2], 2)
    assert not service.hangup.is_set()


async def test_settings_that_cannot_be_read_change_nothing_and_the_next_may(
    service: Service,
) -> None:
    service.found = [SettingsError("a file is gone"), 2]
    service.hangup.set()
    await until(lambda: service.reads == 1)
    await until(lambda: not service.hangup.is_set())
    service.hangup.set()
    await until(lambda: service.applied)

    assert service.applied == [2]


async def test_settings_that_cannot_be_swapped_in_are_refused_and_the_next_may(
    service: Service,
) -> None:
    service.refuse = [1]
    service.hangup.set()
    await until(lambda: service.reads == 1)
    service.hangup.set()
    await until(lambda: service.applied)

    assert service.applied == [2]


async def test_a_bug_in_reading_does_not_end_reloading(service: Service) -> None:
    """A service that no longer hears SIGHUP would run on with keys that were withdrawn."""
    service.found = [ValueError("a bug"), 2]
    service.hangup.set()
    await until(lambda: service.reads == 1)
    await turn(200)
    service.hangup.set()
    await until(lambda: service.applied, 2)

    assert service.applied == [2]
