"""What a worker gave up on is retried, and the device gets its certificate."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from shared.bus.core import NobodyListensError
from shared.bus.jetstream import JetStreamBus
from shared.config.keys import read_event_signer, read_nkey
from shared.config.load import load
from shared.log.envelope import decode, encode, sign
from shared.log.events.enrollment import EnrollmentRejected
from shared.log.events.state import DeadLetter
from shared.log.reasons import FAIL_INFO, Reason
from shared.log.roles import Role
from shared.log.stages import Stage
from shared.log.streams import enroll_stream
from shared.log.subjects import parse_prefix
from shared.scep.certrep import PkiStatus
from tests.integration.test_api import Api
from tests.support.prepared import add_profiles, command, prepared
from tests.support.requests import (
    Device,
    Endpoint,
    Request,
    ask,
    certificate,
    ended,
    recorded,
)
from tests.support.system import System, running, wait_until


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    layout = prepared(tmp_path_factory.mktemp("retry") / "data")
    add_profiles(layout, {"quick": {"reply_budget": "1s"}})
    with running(layout.root) as found:
        yield found


@pytest.fixture
def api(system: System) -> Api:
    return Api(system.run["admin_url"], system.run["admin_token"])


@contextmanager
def standing(system: System) -> Iterator[None]:
    """No validator works for the length of a block."""
    pids = system.run["pids"]["validator"]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


async def give_up(system: System, enrollment: str) -> int:
    """What a validator writes that was handed a request too often; the request's sequence."""
    keys, found = system.data / "keys", parse_prefix(enrollment)
    servers, stream = load(system.config).servers(), enroll_stream(found.shard)
    signer = read_event_signer(keys / "validator-signing.key")
    bus = await JetStreamBus.connect(servers, read_nkey(keys / "validator.nkey"), "validator-x")
    try:
        request = await bus.get_last(stream, found.subject(Stage.REQUEST))
        assert request is not None
        rejected = EnrollmentRejected(
            request_sha256=request.sha256(),
            reason=Reason.POISON,
            fail_info=FAIL_INFO[Reason.POISON],
            detail="handled too often",
            facts=None,
            gates=(),
        )
        place = found.subject(Stage.VERDICT)
        await bus.append(place, sign(rejected, place, signer))
        letter = DeadLetter(
            subject=request.subject, stream=stream, sequence=request.sequence, deliveries=13,
            role=Role.VALIDATOR,
        )  # fmt: skip
        await bus.append(f"dead.validator.{stream}.{request.sequence}", encode(letter))
    finally:
        await bus.close()
    return request.sequence


def poisoned(system: System, device: Device) -> tuple[Endpoint, Request, str]:
    """A device whose request was given up on: its place in the API."""
    quick = Endpoint.of(system, "quick")
    with standing(system):
        request = device.enrollment(quick)
        assert ask(quick, request).status is PkiStatus.PENDING
        line = recorded(system, device, "requested")
        sequence = asyncio.run(give_up(system, line["enrollment"]))
    recorded(system, device, "rejected")
    stream = enroll_stream(parse_prefix(line["enrollment"]).shard)
    return quick, request, f"/api/v1/dead-letters/{stream}/{sequence}"


def test_a_dead_letter_that_is_driven_again_ends_in_a_certificate(system: System, api: Api) -> None:
    device = Device.new()
    quick, request, place = poisoned(system, device)
    refused = ask(quick, request)
    done = api.post(f"{place}/retry")

    assert refused.status is PkiStatus.FAILURE
    assert (done.status_code, done.json()["detail"]) == (200, "retried as attempt 2")
    certificate(quick, device, ended(quick, device.poll(quick)))
    certificate(quick, device, ask(quick, request))
    told = wait_until(lambda: driven(api, place), 20, "the order in the read model")
    assert (told["retried"], told["open"]) == (1, False)
    again = api.post(f"{place}/retry")
    assert again.status_code == 409
    assert "issued for attempt 2" in again.json()["detail"]
    held = command("audit", "verify", "--config", str(system.config))
    assert held.returncode == 0, held.stdout


def driven(api: Api, place: str) -> dict[str, object] | None:
    """The letter as it is listed, once it was retried."""
    for letter in api.get("/api/v1/dead-letters")["dead_letters"]:
        if place.endswith(f"/{letter['stream']}/{letter['sequence']}"):
            return letter if letter["retried"] is not None else None
    return None


def test_what_is_being_worked_on_is_not_driven_again(system: System, api: Api) -> None:
    device = Device.new()
    quick, request, place = poisoned(system, device)
    with standing(system):
        assert api.post(f"{place}/retry").status_code == 200
        found = api.post(f"{place}/retry")
    assert found.status_code == 409
    assert "attempt 2 is in progress" in found.json()["detail"]
    certificate(quick, device, ended(quick, request))


def test_what_was_refused_for_a_reason_stays_refused(system: System, api: Api) -> None:
    """The attempt after the poisoned one was judged: a click does not ask again."""
    device = Device.new()
    quick = Endpoint.of(system, "quick")
    with standing(system):
        request = device.enrollment(quick, csr=device.csr("wrong"))
        assert ask(quick, request).status is PkiStatus.PENDING
        line = recorded(system, device, "requested")
        sequence = asyncio.run(give_up(system, line["enrollment"]))
    place = f"/api/v1/dead-letters/{enroll_stream('0')}/{sequence}"
    assert api.post(f"{place}/retry").status_code == 200
    wait_until(lambda: ended(quick, device.poll(quick)).status is PkiStatus.FAILURE, 20, "the end")
    again = api.post(f"{place}/retry")

    assert again.status_code == 409
    assert "attempt 2 was refused (challenge_wrong)" in again.json()["detail"]


def test_a_gateway_cannot_have_a_request_judged_again_by_itself(system: System, api: Api) -> None:
    device = Device.new()
    quick, request, _ = poisoned(system, device)
    line = recorded(system, device, "rejected")
    asyncio.run(planted(system, line["enrollment"]))
    told = wait_until(lambda: rejected_attempt(api, device), 20, "the verdict on it")

    assert told["detail"] == "retried without an operator's command"
    assert ask(quick, request).status is PkiStatus.FAILURE


async def planted(system: System, enrollment: str) -> None:
    """The next attempt, as a gateway that was taken over would append it."""
    found = parse_prefix(enrollment)
    servers, stream = load(system.config).servers(), enroll_stream(found.shard)
    seed = read_nkey(system.data / "keys" / "gateway.nkey")
    bus = await JetStreamBus.connect(servers, seed, "gateway-x")
    try:
        stored = await bus.get_last(stream, found.subject(Stage.REQUEST))
        assert stored is not None
        event = decode(stored.payload, stored.headers)
        again = encode(replace(event, sealed_attempt=0))  # type: ignore[type-var]
        await bus.append(found.at(1).subject(Stage.REQUEST), again)
    finally:
        await bus.close()


def rejected_attempt(api: Api, device: Device) -> dict[str, Any] | None:
    """Attempt 1 of the device, once it was judged."""
    rows = api.get("/api/v1/enrollments", search=device.transaction.decode())["enrollments"]
    return next((r for r in rows if r["enrollment"].endswith(".1") and r["detail"]), None)


@pytest.mark.parametrize("place", ["ENROLL_0/999999", "OPS/1", "NOTHING/1"])
def test_what_is_no_dead_letter_is_not_driven(api: Api, place: str) -> None:
    assert api.post(f"/api/v1/dead-letters/{place}/retry").status_code == 404


def test_a_gateway_may_not_order_it(system: System) -> None:
    """Nor may anybody but the audit service: the account has no such subject."""

    async def order() -> None:
        seed = read_nkey(system.data / "keys" / "gateway.nkey")
        bus = await JetStreamBus.connect(load(system.config).servers(), seed, "gateway-x")
        try:
            await bus.append("ops.retry.ENROLL_0.1.1.ordered", encode(LETTER))
        finally:
            await bus.close()

    with pytest.raises(NobodyListensError):
        asyncio.run(order())


LETTER = DeadLetter(subject="x", stream="ENROLL_0", sequence=1, deliveries=1, role="gateway")
