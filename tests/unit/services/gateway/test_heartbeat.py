"""A gateway says that it is there, and follows orders to read its RA certificates anew."""

import asyncio
from collections.abc import Callable

import pytest

from services.gateway.heartbeat import GatewayHeartbeats
from services.gateway.settings import Settings
from shared.config.load import SettingsError
from shared.log.envelope import EventSigner, decode, sign
from shared.log.events.commands import ReloadOrdered
from shared.log.events.state import GatewayHeartbeat
from shared.log.roles import Role
from shared.log.streams import OPS, REPLICAS
from shared.log.subjects import ra_reload_command, replica_subject
from shared.runtime.live import Live
from shared.runtime.log_clock import LogClock
from shared.runtime.reload import Reloader, Source
from tests.fakes.memory_bus import MemoryBus, MemoryStream
from tests.support.world import NANOSECONDS, NOW, OPERATOR, VALIDATOR, until
from tests.unit.services.gateway.gateways import settings

PLACE = replica_subject(Role.GATEWAY, "gateway-0")


class Files:
    """What a gateway reads: good, or wrong in a way that a test says."""

    def __init__(self) -> None:
        self.wrong: Exception | None = None
        self.read = 0

    def __call__(self) -> Settings:
        self.read += 1
        if self.wrong is not None:
            raise self.wrong
        return settings({})


async def applied(_: Settings) -> None:
    """Nothing has to be swapped here."""


@pytest.fixture
def bus() -> MemoryBus:
    made = MemoryBus(clock=lambda: (NOW + 1000) * NANOSECONDS)
    made.streams[OPS] = MemoryStream(("ops.>",))
    made.streams[REPLICAS] = MemoryStream(("$KV.REPLICAS.>",))
    return made


@pytest.fixture
def files() -> Files:
    return Files()


@pytest.fixture
def heartbeats(bus: MemoryBus, files: Files) -> GatewayHeartbeats:
    reloader = Reloader(Source(settings({}), files), applied)
    return GatewayHeartbeats(
        bus=bus,
        live=Live(settings({})),
        name="gateway-0",
        since=NOW + 1000,
        reloader=reloader,
        log_clock=LogClock(bus, PLACE),
    )


async def order(bus: MemoryBus, name: str, signer: EventSigner = OPERATOR) -> int:
    event, subject = ReloadOrdered(profile="corp", operator="op"), ra_reload_command("corp", name)
    return await bus.append(subject, sign(event, subject, signer))


async def seen(bus: MemoryBus) -> GatewayHeartbeat:
    stored = await bus.get_last(REPLICAS, PLACE)
    assert stored is not None
    event = decode(stored.payload, stored.headers)
    assert isinstance(event, GatewayHeartbeat)
    return event


async def test_it_says_that_it_is_there(
    bus: MemoryBus, heartbeats: GatewayHeartbeats, files: Files
) -> None:
    await heartbeats.beat()
    found = await seen(bus)

    assert (found.name, found.since, found.command, found.error) == ("gateway-0", NOW + 1000, 0, "")
    assert files.read == 0


async def test_an_order_is_followed_once(
    bus: MemoryBus, heartbeats: GatewayHeartbeats, files: Files
) -> None:
    sequence = await order(bus, "o1")
    await heartbeats.beat()
    await heartbeats.beat()

    assert (await seen(bus)).command == sequence
    assert files.read == 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (SettingsError("profile corp: ra.pem: missing"), "profile corp: ra.pem: missing"),
        (RuntimeError("a secret"), "cannot be read: RuntimeError"),
    ],
)
async def test_what_is_wrong_is_told_until_an_order_finds_it_right(
    bus: MemoryBus, heartbeats: GatewayHeartbeats, files: Files, wrong: Exception, said: str
) -> None:
    files.wrong = wrong
    await order(bus, "o1")
    await heartbeats.beat()
    assert (await seen(bus)).error == said
    files.wrong = None
    last = await order(bus, "o2")
    await heartbeats.beat()

    found = await seen(bus)
    assert (found.command, found.error) == (last, "")


async def test_an_order_that_no_operator_signed_is_not_followed(
    bus: MemoryBus, heartbeats: GatewayHeartbeats, files: Files
) -> None:
    """And it does not look as if it had been: whoever ordered waits for this very word."""
    sequence = await order(bus, "o1", VALIDATOR)
    await heartbeats.beat()

    found = await seen(bus)
    assert (found.command, files.read) == (sequence, 0)
    assert "not signed by a trusted operator" in found.error


async def test_an_order_from_before_the_start_has_nothing_left_to_do(
    bus: MemoryBus, heartbeats: GatewayHeartbeats, files: Files
) -> None:
    bus.clock = lambda: NOW * NANOSECONDS
    sequence = await order(bus, "o1")
    await heartbeats.beat()

    assert (await seen(bus)).command == sequence
    assert files.read == 0


async def test_an_order_that_comes_later_is_followed_whatever_the_clock_says(
    bus: MemoryBus, heartbeats: GatewayHeartbeats, files: Files
) -> None:
    await heartbeats.beat()
    bus.clock = lambda: NOW * NANOSECONDS
    await order(bus, "o1")
    await heartbeats.beat()

    assert files.read == 1


@pytest.mark.parametrize(("subject", "heard"), [("command.ra", True), ("command.retry", False)])
def test_only_its_own_hint_makes_it_look(
    heartbeats: GatewayHeartbeats, subject: str, *, heard: bool
) -> None:
    notice: Callable[[str, bytes, dict[str, str]], None] = heartbeats.on_hint
    notice(subject, b"", {})

    assert heartbeats._hinted.is_set() is heard


async def test_a_gateway_looks_often_until_the_time_of_the_log_is_known(
    heartbeats: GatewayHeartbeats, bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a cluster the first heartbeat may be read back of a replica that lags behind."""
    pauses: list[float] = []
    pause = LogClock.pause

    def quickly(clock: LogClock) -> float:
        pauses.append(pause(clock))
        return 0

    monkeypatch.setattr(LogClock, "pause", quickly)
    bus.lag = {REPLICAS: 1}
    running = asyncio.create_task(heartbeats.run())
    await until(lambda: len(pauses) == 2)
    bus.lag = {}
    await until(lambda: pauses[-1] > 1)
    running.cancel()

    assert heartbeats.log_clock() >= NOW + 1000
    assert set(pauses[:2]) == {0.5}
