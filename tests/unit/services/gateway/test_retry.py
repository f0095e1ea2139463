"""A gateway obeys an operator's order to try anew: once, and nobody else's."""

import asyncio

import msgspec.structs
import pytest

from services.gateway.retry import Retrier
from shared.log.envelope import EventSigner, Message, UnreadableEventError, decode, encode, sign
from shared.log.events.commands import RetryOrdered
from shared.log.events.enrollment import EnrollmentRequested
from shared.log.stages import Stage
from shared.log.streams import OPS
from shared.log.subjects import EnrollmentId, retry_command
from shared.runtime.live import Live
from tests.fakes.memory_bus import MemoryBus, MemoryStream
from tests.support import golden
from tests.support.world import OPERATOR, VALIDATOR
from tests.unit.services.gateway.gateways import settings

STREAM = "ENROLL_0"
FIRST = EnrollmentId("0", "corp", "tx", "csr", 0)


@pytest.fixture
def bus() -> MemoryBus:
    """A log with a request of FIRST."""
    made = MemoryBus()
    made.streams[STREAM] = MemoryStream(("enroll.0.>",))
    made.streams[OPS] = MemoryStream(("ops.>",))
    return made


def request(**changes: object) -> EnrollmentRequested:
    _, event = golden.EVENTS["EnrollmentRequested", 1]
    assert isinstance(event, EnrollmentRequested)
    return msgspec.structs.replace(event, **changes)


async def ordered(
    bus: MemoryBus, enrollment: EnrollmentId = FIRST, signer: EventSigner = OPERATOR
) -> str:
    """An order to make the next attempt of an enrollment; its subject."""
    attempt = enrollment.attempt + 1
    subject = retry_command(enrollment.at(attempt))
    order = RetryOrdered(
        stream=STREAM, sequence=7, enrollment=enrollment.prefix(), attempt=attempt, operator="op"
    )
    await bus.append(subject, sign(order, subject, signer))
    return subject


async def attempt(bus: MemoryBus, number: int) -> EnrollmentRequested | None:
    stored = await bus.get_last(STREAM, FIRST.at(number).subject(Stage.REQUEST))
    event = decode(stored.payload, stored.headers) if stored is not None else None
    assert event is None or isinstance(event, EnrollmentRequested)
    return event


async def test_the_next_attempt_is_the_request_with_its_key_as_it_was_sealed(
    bus: MemoryBus,
) -> None:
    await bus.append(FIRST.subject(Stage.REQUEST), encode(request()))
    await Retrier(bus, Live(settings({})), "gateway-9").carry_out(await ordered(bus))

    assert await attempt(bus, 1) == request(gateway="gateway-9", sealed_attempt=0)


async def test_the_next_attempt_is_in_the_trace_of_the_one_before(bus: MemoryBus) -> None:
    message, place = encode(request()), {"traceparent": "00-ab-cd-01"}
    await bus.append(
        FIRST.subject(Stage.REQUEST), Message(message.payload, message.headers | place)
    )
    await Retrier(bus, Live(settings({})), "gateway-9").carry_out(await ordered(bus))
    stored = await bus.get_last(STREAM, FIRST.at(1).subject(Stage.REQUEST))

    assert stored is not None
    assert place.items() <= stored.headers.items()


async def test_of_several_gateways_one_is_first(bus: MemoryBus) -> None:
    await bus.append(FIRST.subject(Stage.REQUEST), encode(request()))
    order = await ordered(bus)
    names = ("gateway-0", "gateway-1", "gateway-2")
    await asyncio.gather(
        *(Retrier(bus, Live(settings({})), name).carry_out(order) for name in names)
    )

    made = await attempt(bus, 1)
    assert made is not None
    assert made.gateway in names
    assert len(bus.streams[STREAM].messages) == 2


async def test_what_was_driven_again_before_is_sealed_as_the_first_was(bus: MemoryBus) -> None:
    second = FIRST.at(3)
    await bus.append(second.subject(Stage.REQUEST), encode(request(sealed_attempt=1)))
    await Retrier(bus, Live(settings({})), "gateway-0").carry_out(await ordered(bus, second))

    made = await attempt(bus, 4)
    assert made is not None
    assert made.sealed_attempt == 1


async def test_an_order_that_no_operator_signed_is_not_obeyed(bus: MemoryBus) -> None:
    await bus.append(FIRST.subject(Stage.REQUEST), encode(request()))
    order = await ordered(bus, signer=VALIDATOR)

    with pytest.raises(UnreadableEventError):
        await Retrier(bus, Live(settings({})), "gateway-0").carry_out(order)
    assert await attempt(bus, 1) is None


async def test_an_order_about_nothing_makes_nothing(bus: MemoryBus) -> None:
    retrier = Retrier(bus, Live(settings({})), "gateway-0")
    with pytest.raises(ValueError, match="retry command not found"):
        await retrier.carry_out("ops.retry.ENROLL_0.7.1.ordered")
    with pytest.raises(ValueError, match="request not found"):
        await retrier.carry_out(await ordered(bus))
    assert bus.streams[STREAM].messages == {}


@pytest.mark.parametrize(
    ("subject", "payload"),
    [
        ("command.retry", b"\xff"),
        ("command.retry", b"ops.reload.a.b.all.ordered"),
        ("command.x", b""),
    ],
)
async def test_other_hints_are_not_looked_at(bus: MemoryBus, subject: str, payload: bytes) -> None:
    retrier = Retrier(bus, Live(settings({})), "gateway-0")
    retrier.on_hint(subject, payload, {})

    assert retrier._tasks == set()


async def test_a_hint_about_a_forged_order_is_survived(bus: MemoryBus) -> None:
    await bus.append(FIRST.subject(Stage.REQUEST), encode(request()))
    retrier = Retrier(bus, Live(settings({})), "gateway-0")
    forged = await ordered(bus, signer=VALIDATOR)
    for order in (forged, "ops.retry.ENROLL_0.8.1.ordered"):
        retrier.on_hint("command.retry", order.encode(), Message(b"", {}).headers)
        await asyncio.gather(*retrier._tasks)

    assert await attempt(bus, 1) is None
