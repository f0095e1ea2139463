"""Compliance of devices, and the SIDs of accounts, as the fake Graph knows them."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from services.validator.challenges import allowed
from services.validator.compliance import STATES
from shared.scep.certrep import CertRep, PkiStatus
from shared.scep.errors import FailInfo
from shared.x509.sid import SID, write_sid
from tests.integration.intune_devices import (
    Intune,
    Managed,
    at_once,
    in_state,
    managed,
    quick_device,
    refusal,
)
from tests.support import messages as m
from tests.support.requests import ask
from tests.support.requests import certificate as read_certificate
from tests.support.system import wait_until

ALLOWED, REFUSED = PkiStatus.SUCCESS, FailInfo.BAD_REQUEST
Result = PkiStatus | FailInfo | None
SID_OF_USER, SID_OF_DEVICE = "S-1-5-21-1-2-3-1104", "S-1-5-21-1-2-3-1105"
URI = "tag:microsoft.com,2022-09-14:sid:"
UNHEARD_OF = "quarantined"


def result(reply: CertRep) -> Result:
    return reply.status if reply.status is PkiStatus.SUCCESS else refusal(reply)


def ago(**ago: float) -> str:
    return (datetime.now(UTC) - timedelta(**ago)).strftime("%Y-%m-%dT%H:%M:%SZ")


def asked_graph(intune: Intune) -> int:
    return len(intune.fake.journal("managed-device", "managed-devices", "device"))


@pytest.fixture(scope="module", autouse=True)
def deferred(intune_system: Intune) -> tuple[Managed, CertRep]:
    """A device that waits for another state, which it has now: it is looked up each 30 s."""
    intune_system.fake.clear_faults()
    one = in_state(intune_system, compliance_state="error")
    reply = one.enroll(intune_system, "custom")
    intune_system.fake.set_device("contoso", one.id, compliance_state="noncompliant")
    return one, reply


# Compliance


def test_each_state_of_a_device_is_judged_by_the_profiles_table(intune: Intune) -> None:
    yes = {"compliant", "inGracePeriod"}
    states = [*STATES, UNHEARD_OF]
    table: dict[tuple[str, str], Result] = {
        ("plain", state): ALLOWED if state in yes else REFUSED for state in states
    }
    table |= {
        ("custom", state): result for (profile, state), result in table.items()
        if profile == "plain" and state != "error"  # which waits
    }  # fmt: skip
    table |= {("custom", "compliant"): REFUSED, ("custom", "noncompliant"): ALLOWED}

    def found(case: tuple[str, str]) -> Result:
        profile, state = case
        return result(in_state(intune, compliance_state=state).enroll(intune, profile))

    assert dict(zip(table, at_once(found, table), strict=True)) == table


def test_a_new_device_is_allowed_in_any_state_for_the_grace_alone(intune: Intune) -> None:
    new = {"compliance_state": "noncompliant", "enrolled": ago(minutes=5)}
    old = {"compliance_state": "noncompliant", "enrolled": ago(minutes=65)}

    assert result(in_state(intune, **new).enroll(intune, "strict")) is ALLOWED
    assert result(in_state(intune, **old).enroll(intune, "strict")) is REFUSED
    assert result(in_state(intune, **new).enroll(intune, "plain")) is REFUSED


def test_a_device_that_intune_does_not_know_is_judged_as_configured(intune: Intune) -> None:
    def unknown() -> Managed:
        return in_state(intune, managed=False)

    assert result(unknown().enroll(intune, "plain")) is REFUSED
    assert result(unknown().enroll(intune, "custom")) is ALLOWED
    stolen = f"IntuneDeviceId://{in_state(intune, 'fabrikam').id}"  # of another tenant
    assert result(managed(intune, uris=[stolen]).enroll(intune, "plain")) is REFUSED


def test_a_device_is_found_by_a_cn_that_is_its_intune_id_or_its_entra_id(intune: Intune) -> None:
    known = intune.fake.set_device("contoso", compliance_state="compliant")

    for name in (known.id, known.entra_id, known.id.upper()):
        device = quick_device()
        subject = m.name((m.COMMON_NAME, m.UTF8, name.encode()))
        challenge = intune.fake.mint("contoso", subject=f"CN={name}", device_id=known.id)
        endpoint = intune.endpoint("plain", challenge)
        csr = device.csr(challenge, subject=subject)
        assert ask(endpoint, device.enrollment(endpoint, csr)).status is ALLOWED


def test_a_request_that_names_no_device_is_judged_like_an_outage(intune: Intune) -> None:
    before = asked_graph(intune)

    assert result(managed(intune).enroll(intune, "plain")) is REFUSED
    assert result(managed(intune).enroll(intune, "lenient")) is ALLOWED
    assert asked_graph(intune) == before


@pytest.mark.parametrize(("profile", "expected"), [("refusing", REFUSED), ("lenient", ALLOWED)])
def test_an_outage_of_graph_is_judged_as_configured(
    intune: Intune, profile: str, expected: Result
) -> None:
    assert result(managed(intune).enroll(intune, profile)) is not None  # its token and service
    intune.fake.fault("managed-device", "status", -1, status=500)
    one = in_state(intune)

    assert result(one.enroll(intune, profile)) is expected
    if expected is REFUSED:
        intune.failure_notified(one.device)
    else:
        assert intune.notifications(one.device, "failure") == []


def test_entra_decides_by_account_and_compliance(intune: Intune) -> None:
    table: dict[tuple[tuple[str, object], ...], Result] = {
        (("is_compliant", True),): ALLOWED,
        (("is_compliant", False),): REFUSED,
        (("is_compliant", None),): REFUSED,
        (("account_enabled", False),): REFUSED,
        (("account_enabled", None),): REFUSED,
        (("registered", False),): REFUSED,
        (("managed", False),): REFUSED,
    }

    def found(state: tuple[tuple[str, object], ...]) -> Result:
        return result(in_state(intune, **dict(state)).enroll(intune, "entra"))

    assert dict(zip(table, at_once(found, table), strict=True)) == table


def test_only_a_yes_of_graph_is_remembered_and_for_a_minute_at_most(intune: Intune) -> None:
    known = intune.fake.set_device("contoso", compliance_state="noncompliant")
    uris = [f"IntuneDeviceId://{known.id}"]

    def enrolls() -> Result:
        return result(managed(intune, uris=uris, device_id=known.id).enroll(intune, "plain"))

    before = asked_graph(intune)
    assert [enrolls(), enrolls()] == [REFUSED, REFUSED]
    intune.fake.set_device("contoso", known.id, compliance_state="compliant")
    assert asked_graph(intune) == before + 2
    begun = time.monotonic()
    assert [enrolls() for _ in range(3)] == [ALLOWED] * 3
    assert time.monotonic() - begun < allowed.SECONDS
    validators = len(intune.system.run["pids"]["validator"])
    assert before + 2 < asked_graph(intune) <= before + 2 + validators


# SIDs


def sid_of(found: x509.Certificate) -> bytes | None:
    wanted = x509.ObjectIdentifier(SID)
    values = [e.value for e in found.extensions if e.oid == wanted]
    return values[0].public_bytes() if values else None


def uris_of(found: x509.Certificate) -> list[str]:
    sans = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return sans.get_values_for_type(x509.UniformResourceIdentifier)


def test_a_sid_uri_is_kept_verbatim_and_a_requested_extension_is_not_copied(
    intune: Intune,
) -> None:
    uri = f"{URI}{SID_OF_USER}"
    asked = (m.extension(SID, write_sid(SID_OF_USER)),)
    found = managed(intune, uris=[uri], extensions=asked).certificate(intune)
    without = managed(intune, extensions=asked).certificate(intune)

    assert uris_of(found) == [uri]
    assert [sid_of(found), sid_of(without)] == [None, None]


def test_a_csr_that_names_two_accounts_is_refused_without_asking_intune(intune: Intune) -> None:
    asked = (m.extension(SID, write_sid(SID_OF_DEVICE)),)
    one = managed(intune, uris=[f"{URI}{SID_OF_USER}"], extensions=asked)

    assert refusal(one.enroll(intune)) is FailInfo.BAD_REQUEST
    assert intune.asked(one.device) == 0


def test_the_sid_of_the_user_that_the_upn_names_is_certified(intune: Intune) -> None:
    upn = f"user-{time.monotonic_ns()}@contoso.example"
    intune.fake.set_user("contoso", upn, sid=SID_OF_USER)
    forged = (m.extension(SID, write_sid(SID_OF_DEVICE)),)

    found = managed(intune, upn=upn, extensions=forged).certificate(intune, "user")
    assert sid_of(found) == write_sid(SID_OF_USER)
    kept = managed(intune, upn=upn, uris=[f"{URI}{SID_OF_USER}"]).certificate(intune, "user")
    assert uris_of(kept) == [f"{URI}{SID_OF_USER}"]


def test_without_a_sid_of_the_account_there_is_no_certificate(intune: Intune) -> None:
    upn = f"cloud-{time.monotonic_ns()}@contoso.example"
    intune.fake.set_user("contoso", upn)
    other = f"{URI}{SID_OF_DEVICE}"
    synced = f"user-{time.monotonic_ns()}@contoso.example"
    intune.fake.set_user("contoso", synced, sid=SID_OF_USER)
    ones = [
        managed(intune, upn=upn),
        managed(intune),
        managed(intune, upn="nobody@contoso.example"),
        managed(intune, upn=synced, uris=[other]),
    ]

    assert [result(one.enroll(intune, "user")) for one in ones] == [REFUSED] * 4
    for one in ones:
        intune.failure_notified(one.device)


def test_the_sid_of_the_device_is_certified(intune: Intune) -> None:
    assert sid_of(in_state(intune, sid=SID_OF_DEVICE).certificate(intune, "computer")) == (
        write_sid(SID_OF_DEVICE)
    )
    assert result(in_state(intune).enroll(intune, "computer")) is REFUSED


# A deferred device, at last


def test_a_deferred_device_gets_its_certificate_once_its_state_has_changed(
    intune: Intune, deferred: tuple[Managed, CertRep]
) -> None:
    one, reply = deferred
    assert reply.status is PkiStatus.PENDING

    endpoint, poll = intune.endpoint("custom"), one.device.poll(intune.endpoint("custom"))
    found = wait_until(lambda: unless_pending(ask(endpoint, poll)), 45, "the certificate")
    got = read_certificate(endpoint, one.device, found)
    assert intune.fake.discrepancies("contoso", got) == []
    assert intune.asked(one.device, "validate") == 1


def unless_pending(reply: CertRep) -> CertRep | None:
    return None if reply.status is PkiStatus.PENDING else reply
