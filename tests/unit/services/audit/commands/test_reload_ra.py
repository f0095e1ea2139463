"""Gateways told to read RA certificates anew: who is believed, and what is written down of them."""

import asyncio
from typing import Any

import pytest

from services.audit.commands import reload_ra as ra
from services.audit.commands.context import CommandError, OperatorContext
from shared.bus.core import BusUnavailableError
from shared.log.envelope import Message, authenticate_as, encode
from shared.log.events.commands import CommandAnswered, ReloadOrdered
from shared.log.events.state import GatewayHeartbeat
from shared.log.roles import Role
from shared.log.streams import OPS
from shared.log.subjects import replica_subject
from tests.fakes.memory_bus import MemoryBus
from tests.support.operator_api import settings
from tests.support.world import memory_bus, messages_of, until

ORDER = "0123456789abcdef"


class Configured:
    """As much of a configuration as an order to gateways looks at."""

    profiles = {"corp": None}  # noqa: RUF012 - a test's


@pytest.fixture
def bus() -> MemoryBus:
    return memory_bus()


@pytest.fixture
def context(bus: MemoryBus, monkeypatch: pytest.MonkeyPatch) -> OperatorContext:
    monkeypatch.setattr(ra, "_ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(ra, "_POLL_SECONDS", 0.001)
    configured: Any = Configured()
    return OperatorContext(bus, settings(), configured, {}, {}, "ann")


async def seen(bus: MemoryBus, name: str, place: str | None = None, **told: Any) -> None:
    """A gateway says that it is there."""
    event = GatewayHeartbeat(name=name, since=1, ra={"corp": "ff"}, **told)
    await bus.put(replica_subject(Role.GATEWAY, place or name), encode(event))


def answers(context: OperatorContext, bus: MemoryBus) -> dict[str, tuple[bool, str]]:
    """What the log says of each gateway, by the auditor's own word."""
    return {
        stored.subject.split(".")[4]: (event.done, event.detail)
        for stored in messages_of(bus, OPS, ".answered")
        for event in [authenticate_as(CommandAnswered, stored, context.operators)]
    }


async def obeyed(bus: MemoryBus, name: str, error: str = "") -> None:
    """The gateway follows the order once it is there."""
    (order,) = await until(lambda: messages_of(bus, OPS, ".ordered"))
    await seen(bus, name, command=order.sequence, error=error)


async def test_results_are_told_and_written_down(context: OperatorContext, bus: MemoryBus) -> None:
    for name in ("one", "two", "silent"):
        await seen(bus, name)
    read, *_ = await asyncio.gather(
        ra.reload_ra(context, "corp", ORDER), obeyed(bus, "one"), obeyed(bus, "two", "no PEM")
    )

    silent = "did not answer in time"
    assert {r.name: r.error for r in read} == {"one": "", "silent": silent, "two": "no PEM"}
    assert answers(context, bus) == {
        "one": (True, "reloaded"),
        "silent": (False, silent),
        "two": (False, "no PEM"),
    }
    (order,) = messages_of(bus, OPS, ".ordered")
    event = authenticate_as(ReloadOrdered, order, context.operators)
    assert event.replicas == ("one", "silent", "two")


async def test_what_nobody_signed_has_its_bounds(context: OperatorContext, bus: MemoryBus) -> None:
    """As a gateway that was taken over may write."""
    await seen(bus, "good")
    await seen(bus, "an impostor", "other")
    await seen(bus, "x" * 65)
    await seen(bus, "späte")
    await asyncio.gather(
        ra.reload_ra(context, "corp", ORDER), obeyed(bus, "good", "long " * 10_000)
    )

    ((name, (done, detail)),) = answers(context, bus).items()
    assert (name, done, len(detail)) == ("good", False, 500)


async def test_no_more_gateways_than_one_can_think_of_are_asked(
    context: OperatorContext, bus: MemoryBus
) -> None:
    for i in range(300):
        await seen(bus, f"gateway-{i}")
    read = await ra.reload_ra(context, "corp", ORDER)

    assert len(read) == len(answers(context, bus)) == 256


async def test_planted_names_do_not_push_a_running_gateway_off(
    context: OperatorContext, bus: MemoryBus
) -> None:
    """Whoever holds a gateway's key can plant names; who runs says again that it is there."""
    await seen(bus, "zebra")
    for i in range(256):
        await seen(bus, f"fake-{i}")
    await seen(bus, "zebra")

    found = [each.name for each in await ra.gateways(context)]
    assert (len(found), "zebra" in found) == (256, True)


async def test_a_result_that_the_log_does_not_take_is_told_all_the_same(
    context: OperatorContext, bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    await seen(bus, "one")
    append = bus.append

    async def away(subject: str, message: Message, ttl: int = 0) -> int:
        if subject.endswith(".answered"):
            raise BusUnavailableError("away")
        return await append(subject, message, ttl)

    monkeypatch.setattr(bus, "append", away)
    read, _ = await asyncio.gather(ra.reload_ra(context, "corp", ORDER), obeyed(bus, "one"))

    assert [(r.name, r.error) for r in read] == [("one", "")]
    assert answers(context, bus) == {}


async def test_where_no_gateway_runs_nothing_is_ordered(
    context: OperatorContext, bus: MemoryBus
) -> None:
    with pytest.raises(CommandError, match="no gateway is running"):
        await ra.reload_ra(context, "corp", ORDER)

    assert messages_of(bus, OPS) == []
