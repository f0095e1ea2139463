"""One replica of a service: what all four services start with, run and stop in the same way."""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

from shared.bus.jetstream import JetStreamBus
from shared.bus.selftest import assert_least_privilege
from shared.bus.servers import Servers
from shared.log.roles import Role
from shared.log.shards import Epoch, all_shards
from shared.log.subjects import replica_subject
from shared.runtime.live import Live
from shared.runtime.log_clock import LogClock, heartbeat
from shared.runtime.moving import Mover
from shared.runtime.process import background, now
from shared.runtime.reload import Reloader, Source
from shared.runtime.shard_watch import Reconcile, ShardWatch, reconcile_nothing


class ServiceSettings(Protocol):
    """What every service's settings have."""

    @property
    def servers(self) -> Servers:
        """The nodes of the bus."""

    @property
    def nkey_seed(self) -> str:
        """The role's NKey seed."""

    @property
    def epochs(self) -> tuple[Epoch, ...]:
        """The shard maps and the times from which they hold."""


S = TypeVar("S", bound=ServiceSettings)


@dataclass(frozen=True)
class Replica(Generic[S]):
    """A connected process of a service. `since` (Unix seconds) is when it began to connect."""

    role: Role
    name: str
    since: int
    source: Source[S]
    live: Live[S]
    bus: JetStreamBus
    clock: LogClock
    mover: Mover

    @classmethod
    async def connect(cls, role: Role, source: Source[S], name: str) -> Self:
        """Connect to the bus; raise `PrivilegeError` if it grants more than the role needs."""
        settings, since = source.first, int(now())
        bus = await JetStreamBus.connect(settings.servers, settings.nkey_seed, name)
        await assert_least_privilege(bus, role, all_shards(settings.epochs)[0])
        clock = LogClock(bus, replica_subject(role, name))
        mover = Mover(bus, settings.servers, settings.nkey_seed, role, name)
        return cls(role, name, since, source, Live(settings), bus, clock, mover)

    def watch(self, reconcile: Reconcile = reconcile_nothing) -> ShardWatch:
        """Return a watch over the shards; `reconcile` starts and stops what works on them."""
        return ShardWatch(self.bus, self.live.current.epochs, self.clock, reconcile)

    def reloader(self, apply: Callable[[S], Awaitable[None]]) -> Reloader[S]:
        """Return what reloads the settings; `apply` puts those that were read into effect."""
        return Reloader(self.source, apply)

    async def beat(self) -> None:
        """Send heartbeats, for services that report nothing but that they run."""
        await self.clock.run(lambda: heartbeat(self.role, self.name, self.since))

    @asynccontextmanager
    async def running(
        self, shards: ShardWatch, *work: Coroutine[Any, Any, None]
    ) -> AsyncIterator[AsyncExitStack]:
        """Run `work` in the background of a block, beside what every service runs.

        What the block pushes on the stack ends first.
        """
        async with AsyncExitStack() as stack:
            for each in (self.mover.run(), shards.run(), *work):
                await stack.enter_async_context(background(each))
            yield stack

    def problems(self, shards: ShardWatch) -> list[str]:
        """Return what /readyz reports for every service; [] if nothing is wrong."""
        return [*self.bus.problems(), *self.clock.problems(), *shards.problems()]
