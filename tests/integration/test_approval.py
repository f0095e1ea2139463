"""Manual approval: held at once, answered alike everywhere, decided once by an operator."""

import secrets
import subprocess
import time

import pytest

from shared.log.reasons import FAIL_INFO, Reason
from shared.scep.certrep import CertRep, PkiStatus
from shared.scep.errors import FailInfo
from tests.support import messages as m
from tests.support.holders import enrolled, renewal, renewed, revoke
from tests.support.prepared import command
from tests.support.requests import (
    Device,
    Endpoint,
    Request,
    ask,
    certificate,
    der,
    listed,
    recorded,
    shown,
)
from tests.support.system import System, wait_until

AT_ONCE = 3.0  # seconds; the reply budget is 10


@pytest.fixture(scope="module")
def identity() -> m.Identity:
    """One key for many transactions."""
    return Device.new().identity


@pytest.fixture
def device(identity: m.Identity) -> Device:
    return Device(identity)


@pytest.fixture(scope="module")
def gateways(wide: System) -> tuple[Endpoint, ...]:
    """The profile with an operator, at every gateway."""
    return tuple(Endpoint.of(wide, "manual", gateway) for gateway in range(3))


@pytest.fixture(scope="module")
def manual(gateways: tuple[Endpoint, ...]) -> Endpoint:
    return gateways[0]


def decide(
    system: System, word: str, wanted: str, *options: str
) -> subprocess.CompletedProcess[str]:
    """`scepstream approve` or `deny`."""
    done = command(word, wanted, *options, "--config", str(system.config))
    assert "Traceback" not in done.stderr
    return done


def decided(system: System, word: str, device: Device, *options: str) -> None:
    """The same, and it counts."""
    done = decide(system, word, device.transaction.decode(), *options)
    assert done.returncode == 0, done.stdout + done.stderr
    said = {"approve": "approved", "deny": "denied"}[word]
    assert done.stdout == f"{said}: CN={device.name}\n"


def hold(system: System, endpoint: Endpoint, device: Device) -> Request:
    """An enrollment that waits for an operator, once the record knows of it."""
    request = device.enrollment(endpoint)
    assert ask(endpoint, request).status is PkiStatus.PENDING
    recorded(system, device, "held")
    return request


def settled(endpoint: Endpoint, device: Device) -> CertRep:
    """The end, polled for."""

    def end() -> CertRep | None:
        reply = ask(endpoint, device.poll(endpoint))
        return None if reply.status is PkiStatus.PENDING else reply

    return wait_until(end, 30, "the decision's effect")


# Held


def test_a_held_enrollment_is_pending_at_once_and_every_time_from_every_gateway(
    wide: System, gateways: tuple[Endpoint, ...], device: Device
) -> None:
    request = device.enrollment(gateways[0])
    asked = [(g, r) for g in (*gateways, gateways[0]) for r in (request, device.poll(g))]
    for endpoint, message in asked:
        started = time.monotonic()
        reply = ask(endpoint, message)
        assert time.monotonic() - started < AT_ONCE
        assert (reply.status, reply.fail_info, reply.fail_info_text, reply.signed.content) == (
            PkiStatus.PENDING,
            None,
            "",
            b"",
        )
    recorded(wide, device, "held")
    kinds = [e["type"] for e in shown(wide, device.transaction.decode())]
    assert kinds == ["EnrollmentRequested", "EnrollmentHeld"]


def test_what_the_gates_refuse_is_refused_without_an_operator(
    wide: System, manual: Endpoint, device: Device
) -> None:
    reply = ask(manual, device.enrollment(manual, device.csr("wrong")))
    assert reply.fail_info is FAIL_INFO[Reason.CHALLENGE_WRONG]
    recorded(wide, device, "rejected")


def test_the_list_of_what_is_held_holds_it_until_it_is_decided(
    wide: System, manual: Endpoint, device: Device
) -> None:
    def waiting() -> set[str]:
        return {line["transaction_id"] for line in listed(wide, "--state", "held")}

    transaction = device.transaction.decode()
    hold(wide, manual, device)
    assert transaction in waiting()
    decided(wide, "deny", device)
    recorded(wide, device, "rejected")
    assert transaction not in waiting()
    assert {line["state"] for line in listed(wide, "--state", "held")} <= {"held"}


# Decided


def test_an_approved_enrollment_is_a_certificate_for_polls_and_repeats_everywhere(
    wide: System, gateways: tuple[Endpoint, ...], device: Device
) -> None:
    request = hold(wide, gateways[0], device)
    decided(wide, "approve", device, "--note", "called the owner")
    found = {der(certificate(gateways[0], device, settled(gateways[0], device)))}
    for endpoint in gateways:
        for message in (request, device.poll(endpoint)):
            found.add(der(certificate(endpoint, device, ask(endpoint, message))))
    assert len(found) == 1
    line = recorded(wide, device, "issued")
    events = {e["type"]: e for e in shown(wide, line["enrollment"])}
    assert events["HoldDecided"]["approved"] is True
    assert events["HoldDecided"]["note"] == "called the owner"
    assert events["HoldDecided"]["operator"]


def test_a_certificate_begins_when_it_was_approved(
    wide: System, manual: Endpoint, device: Device
) -> None:
    hold(wide, manual, device)
    later = int(time.time()) + 2
    wait_until(lambda: time.time() > later, 10, "some seconds")
    decided(wide, "approve", device)
    found = certificate(manual, device, settled(manual, device))
    assert found.not_valid_before_utc.timestamp() + 600 >= later


def test_a_denied_enrollment_is_a_failure_with_the_note_for_all_that_ask(
    wide: System, gateways: tuple[Endpoint, ...], device: Device
) -> None:
    request = hold(wide, gateways[0], device)
    decided(wide, "deny", device, "--note", "not one of ours")
    replies = [settled(gateways[0], device)]
    replies += [ask(g, message) for g in gateways for message in (request, device.poll(g))]
    for reply in replies:
        assert (reply.status, reply.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_REQUEST)
        assert reply.fail_info_text == "not one of ours"
    assert recorded(wide, device, "rejected")["result"] == Reason.DENIED


def test_a_denial_without_a_note_says_so_itself(
    wide: System, manual: Endpoint, device: Device
) -> None:
    hold(wide, manual, device)
    decided(wide, "deny", device)
    assert settled(manual, device).fail_info_text == "denied by an operator"


@pytest.mark.parametrize("by", ["device", "enrollment"])
def test_what_is_held_can_be_named_in_other_ways(
    wide: System, manual: Endpoint, device: Device, by: str
) -> None:
    hold(wide, manual, device)
    wanted = recorded(wide, device, "held")[by]
    assert decide(wide, "approve", wanted).returncode == 0
    certificate(manual, device, settled(manual, device))


def test_a_renewal_is_held_too(wide: System, manual: Endpoint, device: Device) -> None:
    hold(wide, manual, device)
    decided(wide, "approve", device)
    first = certificate(manual, device, settled(manual, device))
    recorded(wide, device, "issued")
    holder = Device(m.Identity(device.identity.key, first), device.transaction)
    key = Device.new("next").identity.key
    request = renewal(manual, holder, key)
    assert ask(manual, request).status is PkiStatus.PENDING

    def held() -> list[dict[str, object]]:
        return listed(wide, "--state", "held", "--search", device.transaction.decode())

    (line,) = wait_until(held, 30, "the renewal on record")
    assert decide(wide, "approve", line["enrollment"]).returncode == 0
    reply = settled(manual, holder)
    assert renewed(manual, holder, key, reply) != first


def test_a_key_that_has_a_certificate_gets_it_again_without_an_operator(
    wide: System, manual: Endpoint, device: Device
) -> None:
    hold(wide, manual, device)
    decided(wide, "approve", device)
    first = certificate(manual, device, settled(manual, device))
    name = m.name((m.COMMON_NAME, m.UTF8, device.name.encode()))
    later = Device(device.identity)
    reply = ask(manual, later.enrollment(manual, later.csr(manual.challenge, subject=name)))
    assert certificate(manual, later, reply) == first


def test_what_was_revoked_as_compromised_meanwhile_is_refused_in_spite_of_the_approval(
    wide: System, manual: Endpoint
) -> None:
    device = Device.new("stolen")
    holder = enrolled(Endpoint.of(wide, "anytime"), device)
    held = Device(device.identity)
    hold(wide, manual, held)
    serial = holder.identity.x509.serial_number
    assert revoke(wide, serial, "--reason", "keyCompromise").returncode == 0
    decided(wide, "approve", held)
    reply = settled(manual, held)
    assert reply.fail_info is FAIL_INFO[Reason.KEY_COMPROMISED]
    assert recorded(wide, held, "rejected")["result"] == Reason.KEY_COMPROMISED


# What cannot be decided


@pytest.mark.parametrize("word", ["approve", "deny"])
def test_nothing_is_decided_twice(
    wide: System, manual: Endpoint, device: Device, word: str
) -> None:
    hold(wide, manual, device)
    decided(wide, "approve", device)
    found = certificate(manual, device, settled(manual, device))
    recorded(wide, device, "issued")
    again = decide(wide, word, device.transaction.decode())
    assert again.returncode == 1
    assert len(again.stderr.splitlines()) == 1
    assert certificate(manual, device, ask(manual, device.poll(manual))) == found


@pytest.mark.parametrize("wanted", ["nobody", "%", "", " ", "enroll.0.manual.a.b.0"])
def test_what_is_not_held_is_said_so(wide: System, wanted: str) -> None:
    done = decide(wide, "approve", wanted)
    assert done.returncode == 1
    assert "no held enrollment found" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_empty_name_decides_nothing_though_something_is_held(
    wide: System, manual: Endpoint, device: Device
) -> None:
    """As a shell hands it over whose variable is not set."""
    hold(wide, manual, device)
    assert decide(wide, "deny", "").returncode == 1
    assert ask(manual, device.poll(manual)).status is PkiStatus.PENDING
    decided(wide, "deny", device)


def test_what_is_held_is_found_behind_any_number_of_newer_enrollments_of_that_name(
    wide: System, manual: Endpoint, device: Device
) -> None:
    hold(wide, manual, device)
    csr = device.csr("wrong")
    for _ in range(51):
        newer = Device(device.identity)
        ask(manual, newer.enrollment(manual, csr))
    recorded(wide, newer, "rejected")
    done = decide(wide, "approve", device.name)
    assert done.returncode == 0, done.stdout
    certificate(manual, device, settled(manual, device))


def test_what_was_issued_without_an_operator_cannot_be_denied(wide: System) -> None:
    anytime = Endpoint.of(wide, "anytime")
    device = Device.new()
    enrolled(anytime, device)
    recorded(wide, device, "issued")
    assert decide(wide, "deny", device.transaction.decode()).returncode == 1


def test_a_name_that_fits_several_decides_none_and_names_them(
    wide: System, manual: Endpoint, identity: m.Identity
) -> None:
    csrs = Device(identity, b"twin")
    twins = [Device(identity), Device(identity)]
    for twin in twins:
        csr = csrs.csr(manual.challenge, m.extension_request(m.san(m.tlv(0x82, twin.transaction))))
        assert ask(manual, twin.enrollment(manual, csr)).status is PkiStatus.PENDING
        recorded(wide, twin, "held")
    done = decide(wide, "approve", csrs.name)
    assert done.returncode == 1
    for twin in twins:
        assert twin.transaction.decode() in done.stderr
        assert ask(manual, twin.poll(manual)).status is PkiStatus.PENDING
        done_for_one = decide(wide, "deny", twin.transaction.decode())
        assert done_for_one.returncode == 0


def test_a_name_that_only_begins_so_or_poses_as_it_is_not_decided(
    wide: System, manual: Endpoint, identity: m.Identity
) -> None:
    wanted = f"laptop-{secrets.token_hex(4)}"
    longer, posing = Device(identity), Device(identity)
    subjects = {
        longer: m.name((m.COMMON_NAME, m.UTF8, f"{wanted}0".encode())),
        posing: m.name(
            (m.COMMON_NAME, m.UTF8, b"evil"), ("2.5.4.11", m.UTF8, f"x, CN={wanted}".encode())
        ),
    }
    for device, subject in subjects.items():
        csr = device.csr(manual.challenge, subject=subject)
        assert ask(manual, device.enrollment(manual, csr)).status is PkiStatus.PENDING
        recorded(wide, device, "held")

    done = decide(wide, "approve", wanted)
    assert done.returncode == 1
    assert longer.transaction.decode() in done.stderr
    assert posing.transaction.decode() not in done.stderr
    for device in subjects:
        assert ask(manual, device.poll(manual)).status is PkiStatus.PENDING
    assert decide(wide, "approve", f"{wanted}0").stdout == f"approved: CN={wanted}0\n"
    assert decide(wide, "deny", "evil").stdout == f"denied: CN=evil, OU=x\\, CN={wanted}\n"


def test_a_note_in_any_script_reaches_the_device(
    wide: System, manual: Endpoint, device: Device
) -> None:
    hold(wide, manual, device)
    decided(wide, "deny", device, "--note", "keine Zulassung für Gäste ☎")
    assert settled(manual, device).fail_info_text == "keine Zulassung für Gäste ☎"
