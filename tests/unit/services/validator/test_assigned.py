"""Names and SIDs that a webhook's claims decide, through the whole validator."""

import json
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from services.validator.challenges.device_state import DeviceAnswer, DeviceQuestion, DeviceStateGate
from services.validator.challenges.webhook import Endpoint
from services.validator.facts import names_sha256
from services.validator.gates import RenewalPolicy
from shared.log.envelope import Stored, authenticate
from shared.log.events.enrollment import (
    EnrollmentApproved,
    EnrollmentHeld,
    EnrollmentRejected,
    HoldDecided,
)
from shared.log.reasons import Reason
from shared.log.stages import Stage
from shared.log.subjects import certificate_issued, key_issued
from shared.x509.certificate_names import CertificateNames
from shared.x509.csr import CertificationRequest, read_csr
from shared.x509.key_ids import spki_sha256
from shared.x509.name_constraints import name_constraints
from shared.x509.name_patterns import read_subject_pattern
from shared.x509.name_templates import read_san_template, read_subject_template
from shared.x509.names import name_text, read_general_names
from shared.x509.sid import SID, read_sid, write_sid
from tests.support import pki
from tests.support.accesses import accepting
from tests.support.enrollers import by_token, token
from tests.support.messages import (
    PRINTABLE,
    Identity,
    challenge,
    csr,
    device_csr,
    extension,
    extension_request,
    spki,
)
from tests.support.validators import World, validating
from tests.support.world import (
    ISSUER,
    ISSUING,
    NOW,
    OPERATOR,
    SERIAL,
    TRUSTED_VALIDATORS,
    append_signed,
    messages_of,
)
from tests.unit.services.validator.http_services import Service, http, serving
from tests.unit.services.validator.records import record
from tests.unit.services.validator.test_renewals import RENEWS, certified

ACCOUNT: Final = "S-1-5-21-1004336348-1177238915-682003330-1104"
OTHER: Final = "S-1-5-21-1004336348-1177238915-682003330-1105"
CLAIMS: Final = {"device_name": "laptop-7", "device_id": "7/8", "sid": ACCOUNT}
TEMPLATES: Final = {
    "subject_template": tuple(map(read_subject_template, ("CN={device_name}", "O=Corp"))),
    "san_templates": (read_san_template("uri:urn:device:{device_id}"),),
}
BUILT: Final = ("CN=laptop-7, O=Corp", ["uri:urn:device:7%2F8"])


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving(Service()) as found:
        answer(found, **CLAIMS)
        yield found


@pytest.fixture
async def world(
    device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey, service: Service
) -> AsyncIterator[World]:
    async with validating(device, ra, ec_key, **TEMPLATES) as found:
        found.accept(accepting(by_webhook=Endpoint(url=service.url, timeout=10.0)))
        yield found


def answer(service: Service, **claims: Any) -> None:
    service.say = http(200, json.dumps({"allow": True, "claims": claims}).encode())


async def judged(world: World, **options: Any) -> EnrollmentApproved | EnrollmentRejected:
    request = await world.request(**options)
    await world.consumer.handle(request)
    return world.verdict(request)


async def approved(world: World, **options: Any) -> EnrollmentApproved:
    verdict = await judged(world, **options)
    assert isinstance(verdict, EnrollmentApproved), verdict
    return verdict


async def refused(world: World, **options: Any) -> EnrollmentRejected:
    verdict = await judged(world, **options)
    assert isinstance(verdict, EnrollmentRejected), verdict
    return verdict


def named(verdict: EnrollmentApproved) -> tuple[str, list[str]]:
    values = [e.value for e in verdict.template.extensions if e.oid == "2.5.29.17"]
    sans = [f"{s.kind}:{s.value}" for value in values for s in read_general_names(value)]
    return name_text(verdict.template.subject), sans


def sids(verdict: EnrollmentApproved) -> list[str]:
    return [read_sid(e.value) for e in verdict.template.extensions if e.oid == SID]


def gate(verdict: EnrollmentApproved | EnrollmentHeld, name: str) -> str:
    (found,) = (each.detail for each in verdict.gates if each.gate == name)
    return found


async def test_names_come_from_the_claims_and_not_from_the_csr(world: World) -> None:
    verdict = await approved(world)

    assert named(verdict) == BUILT
    assert (verdict.facts.subject, list(verdict.facts.sans)) == BUILT
    assert gate(verdict, "subject") == "CN=laptop-7, O=Corp (requested: CN=device, O=Lab)"
    assert [g.gate for g in verdict.gates] == ["key", "compromise", "challenge", "subject", "sans"]


async def test_a_template_of_the_subject_alone_leaves_the_sans_to_the_csr(world: World) -> None:
    world.allow(san_templates=())

    assert named(await approved(world)) == ("CN=laptop-7, O=Corp", ["dns:device.example"])


@pytest.mark.parametrize(
    "claims",
    [
        {"device_id": "7"},
        {"device_id": "7", "device_name": ["laptop-7", "laptop-8"]},
        {"device_id": "7", "device_name": " "},
        {"device_id": "7", "device_name": "x" * 256},
        {"device_id": 7, "device_name": "laptop-7"},
    ],
)
async def test_a_claim_that_is_missing_or_unusable_refuses_with_its_name(
    world: World, service: Service, claims: dict[str, Any]
) -> None:
    answer(service, **claims)
    verdict = await refused(world)

    assert verdict.reason is Reason.CLAIM_MISSING
    assert verdict.detail.startswith("the verifier did not say this device's device_")
    assert (verdict.gates[-1].gate, verdict.gates[-1].passed) == ("claims", False)


@pytest.mark.parametrize(
    ("changes", "claims", "reason", "said"),
    [
        (
            {"subject_patterns": (read_subject_pattern("CN=phone-*"),)},
            {},
            "subject",
            "matches none",
        ),
        ({"sans": frozenset({"dns"})}, {}, "san", "of kind uri is not allowed"),
        ({}, {"device_name": "x" * 65}, "subject", "at most 64 characters"),
        ({}, {"device_name": "lap\u200btop"}, "subject", "hidden character"),
    ],
)
async def test_the_gates_of_names_run_on_what_was_built(
    world: World,
    service: Service,
    changes: dict[str, Any],
    claims: dict[str, str],
    reason: str,
    said: str,
) -> None:
    world.allow(**changes)
    answer(service, **{**CLAIMS, **claims})
    verdict = await refused(world)

    assert verdict.reason == f"{reason}_not_allowed"
    assert said in verdict.detail


async def test_name_constraints_of_the_ca_hold_for_built_names(
    world: World, monkeypatch: pytest.MonkeyPatch, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    monkeypatch.setattr(
        "services.validator.evaluate.name_constraints",
        lambda _: name_constraints((constrained(ec_key),)),
    )

    assert "excluded by the name constraints" in (await refused(world)).detail


def constrained(key: ec.EllipticCurvePrivateKey) -> bytes:
    name = x509.Name.from_rfc4514_string("O=Corp,CN=laptop-7")
    root = pki.make_root(key)
    builder = x509.CertificateBuilder(
        issuer_name=root.subject,
        subject_name=root.subject,
        public_key=key.public_key(),
        serial_number=7,
        not_valid_before=pki.START,
        not_valid_after=pki.END,
    ).add_extension(x509.NameConstraints(None, [x509.DirectoryName(name)]), critical=True)
    return pki.der(builder.sign(key, hashes.SHA256()))


# A key that already has a certificate


async def certify(world: World, named_as: CertificateNames, **changes: Any) -> None:
    key = spki_sha256(spki(world.device.key.public_key()))
    values = {"names_sha256": names_sha256(named_as), "spki_sha256": key} | changes
    for subject in (certificate_issued(ISSUER, SERIAL), key_issued(key, ISSUER, SERIAL)):
        await append_signed(world.bus, subject, record(**values), ISSUING)


def template_names(verdict: EnrollmentApproved) -> CertificateNames:
    san = next(e.value for e in verdict.template.extensions if e.oid == "2.5.29.17")
    return CertificateNames(verdict.template.subject, san)


@pytest.mark.parametrize("same", [True, False])
async def test_the_certificate_that_a_key_has_is_the_answer_for_the_same_built_names(
    world: World,
    device: Identity,
    ra: Identity,
    ec_key: ec.EllipticCurvePrivateKey,
    service: Service,
    same: bool,  # noqa: FBT001 - a case
) -> None:
    names = template_names(await approved(world))
    async with validating(device, ra, ec_key, **TEMPLATES) as other:
        other.accept(accepting(by_webhook=Endpoint(url=service.url, timeout=10.0)))
        other.clock.seconds = NOW - 1
        await certify(other, names)
        if not same:
            answer(service, **{**CLAIMS, "device_name": "laptop-8"})
        verdict = await approved(other)

    assert verdict.existing == (SERIAL if same else "")


@pytest.mark.parametrize("sid", [ACCOUNT, OTHER, ""])
async def test_a_certificate_for_another_account_is_not_the_answer(world: World, sid: str) -> None:
    world.allow(sid_extension=True, subject_template=(), san_templates=())
    world.clock.seconds = NOW - 1
    asked = CertificateNames.of_csr(read(device_csr(world.device)))
    await certify(world, asked, sid=sid)
    verdict = await approved(world)

    assert verdict.existing == (SERIAL if sid == ACCOUNT else "")
    assert sids(verdict) == [ACCOUNT]


def read(der: bytes) -> CertificationRequest:
    return read_csr(der)


async def test_a_token_that_was_used_makes_no_second_certificate_with_other_names(
    world: World, service: Service
) -> None:
    """A repetition gets the certificate that the key has, which here is not what it would get."""
    said = {"device_id": "7"}

    async def plugin(_: DeviceQuestion) -> DeviceAnswer:
        return DeviceAnswer(allow=True, claims=said)

    world.accept(by_token(device_state=DeviceStateGate(plugin, 5.0)))
    world.clock.seconds = NOW - 1
    key, used = world.device.key, challenge(PRINTABLE, token(now=NOW - 9).encode())
    first = await approved(world, csr=csr(key, used))
    assert named(first) == ("CN=device, O=Corp", ["uri:urn:device:7"])
    await certify(world, template_names(first))
    again = await world.request(csr=csr(key, used, used_elsewhere()))
    said["device_id"] = "8"
    await world.consumer.handle(again)
    stored = [each for each in world.verdicts() if each.sequence > again.sequence]
    verdict = authenticate(stored[0], TRUSTED_VALIDATORS, Stage.VERDICT, again.sha256())

    assert isinstance(verdict, EnrollmentRejected)
    assert verdict.reason is Reason.REPLAY
    assert service.posted == []


def used_elsewhere() -> bytes:
    """An attribute that makes another CSR for the same names."""
    return extension_request(extension("2.5.29.19", b"\x30\x00"))


# Renewal


async def test_a_renewal_keeps_the_names_of_its_certificate(world: World, service: Service) -> None:
    """Whatever its CSR asks for, and whatever the webhook says by now."""
    holder = certified(world.device, world.ca)
    names = CertificateNames.of_certificate(holder.certificate.der)
    await certify(world, names)
    answer(service, **{**CLAIMS, "device_name": "another"})
    world.allow(renewal=RenewalPolicy(window=0))
    asked = csr(world.device.key, challenge(PRINTABLE, b"x"), subject=b"\x30\x00")
    verdict = await approved(world, by=holder, csr=asked, renews=RENEWS)

    assert verdict.template.subject == names.subject
    assert named(verdict)[1] == [f"{s.kind}:{s.value}" for s in names.sans]
    assert service.posted == []


async def test_a_renewal_gets_the_sid_of_a_new_look_up_or_none_at_all(
    world: World, service: Service
) -> None:
    holder = certified(world.device, world.ca)
    await certify(world, CertificateNames.of_certificate(holder.certificate.der), sid=OTHER)
    world.allow(sid_extension=True, renewal=RenewalPolicy(window=0, challenge=True))
    asked = csr(world.device.key, challenge(PRINTABLE, b"x"))
    verdict = await approved(world, by=holder, csr=asked, renews=RENEWS)

    assert sids(verdict) == [ACCOUNT]
    assert len(service.posted) == 1


async def test_a_renewal_that_nobody_looked_up_gets_no_certificate_with_a_sid(
    world: World,
) -> None:
    holder = certified(world.device, world.ca)
    await certify(world, CertificateNames.of_certificate(holder.certificate.der), sid=OTHER)
    world.allow(sid_extension=True, renewal=RenewalPolicy(window=0))
    asked = csr(world.device.key)
    verdict = await refused(world, by=holder, csr=asked, renews=RENEWS)

    assert (verdict.reason, verdict.detail) == (
        Reason.CLAIM_MISSING,
        "the verifier did not say this device's sid",
    )


# SIDs


async def test_a_sid_comes_from_the_look_up_and_never_from_the_csr(world: World) -> None:
    smuggled = extension_request(extension(SID, write_sid(OTHER)))
    asked = csr(world.device.key, challenge(PRINTABLE, b"x"), smuggled)
    world.allow(sid_extension=True)
    verdict = await approved(world, csr=asked)

    assert sids(verdict) == [ACCOUNT]
    assert gate(verdict, "sid") == ACCOUNT
    assert SID in gate(verdict, "extensions")


async def test_without_sid_extension_nobody_gets_one(world: World) -> None:
    assert sids(await approved(world)) == []


@pytest.mark.parametrize(
    ("sid", "reason"),
    [
        (None, Reason.CLAIM_MISSING),
        ("S-1-5-18", Reason.SUBJECT_NOT_ALLOWED),
        ("S-1-5-21-1-2-3-4-5", Reason.SUBJECT_NOT_ALLOWED),
        (["S-1-5-21-1-2-3-4"] * 2, Reason.CLAIM_MISSING),
    ],
)
async def test_a_device_without_a_proper_sid_is_refused(
    world: World, service: Service, sid: object, reason: Reason
) -> None:
    world.allow(sid_extension=True)
    answer(service, **{**CLAIMS, "sid": sid})

    assert (await refused(world)).reason is reason


# Holds


async def decide(world: World, request: Stored) -> None:
    event = HoldDecided(request_sha256=request.sha256(), approved=True, operator="op")
    subject = world.enrollment.subject(Stage.DECISION)
    await world.consumer.handle(await append_signed(world.bus, subject, event, OPERATOR))


async def test_an_operator_approves_the_names_that_are_then_certified(
    world: World, service: Service
) -> None:
    world.allow(manual=True, sid_extension=True)
    request = await world.request()
    await world.consumer.handle(request)
    (stored,) = messages_of(world.bus, "ENROLL_0", ".hold")
    held = authenticate(stored, TRUSTED_VALIDATORS, Stage.HOLD, request.sha256())
    assert isinstance(held, EnrollmentHeld)
    assert (held.facts.subject, gate(held, "sid")) == (BUILT[0], ACCOUNT)
    answer(service, device_name="another", device_id="9", sid=OTHER)
    await decide(world, request)
    verdict = world.verdict(request)

    assert isinstance(verdict, EnrollmentApproved)
    assert (named(verdict), sids(verdict)) == (BUILT, [ACCOUNT])
    assert [g.gate for g in verdict.gates] == [
        "key", "compromise", "challenge", "subject", "sans", "sid",
    ]  # fmt: skip
    assert len(service.posted) == 1


async def test_held_names_are_checked_again_by_the_rules_of_the_decision(world: World) -> None:
    world.allow(manual=True)
    request = await world.request()
    await world.consumer.handle(request)
    world.allow(subject_patterns=(read_subject_pattern("CN=phone-*"),))
    await decide(world, request)
    verdict = world.verdict(request)

    assert isinstance(verdict, EnrollmentRejected)
    assert verdict.reason is Reason.SUBJECT_NOT_ALLOWED


async def test_what_was_held_before_the_profile_had_templates_is_refused(world: World) -> None:
    world.allow(manual=True, subject_template=(), san_templates=())
    request = await world.request()
    await world.consumer.handle(request)
    world.allow(**TEMPLATES)
    await decide(world, request)
    verdict = world.verdict(request)

    assert isinstance(verdict, EnrollmentRejected)
    assert verdict.reason is Reason.CLAIM_MISSING


async def test_a_request_held_before_the_profile_asked_for_a_sid_is_refused(world: World) -> None:
    world.allow(manual=True)
    request = await world.request()
    await world.consumer.handle(request)
    world.allow(sid_extension=True)
    await decide(world, request)
    verdict = world.verdict(request)

    assert isinstance(verdict, EnrollmentRejected)
    assert verdict.reason is Reason.CLAIM_MISSING


# What must not get past the look-up


async def test_on_a_renewal_the_webhook_is_told_the_names_that_are_kept(
    world: World, service: Service
) -> None:
    """It may look the account up by them; the CSR may name anybody."""
    holder = certified(world.device, world.ca)
    names = CertificateNames.of_certificate(holder.certificate.der)
    await certify(world, names)
    world.allow(sid_extension=True, renewal=RenewalPolicy(window=0, challenge=True))
    asked = csr(world.device.key, challenge(PRINTABLE, b"x"), subject=b"\x30\x00")
    await approved(world, by=holder, csr=asked, renews=RENEWS)

    (posted,) = service.posted
    told = json.loads(posted.body)["csr"]
    assert told["subject"] == name_text(names.subject)
    assert told["sans"] == [f"{s.kind}:{s.value}" for s in names.sans]


@pytest.mark.parametrize(
    ("sid", "expected"),
    [(ACCOUNT, None), (OTHER, Reason.SAN_NOT_ALLOWED), ("", Reason.SAN_NOT_ALLOWED)],
)
async def test_a_uri_names_no_other_account_than_the_one_looked_up(
    world: World, sid: str, expected: Reason | None
) -> None:
    world.allow(sid_extension=True, san_templates=())
    uri = f"tag:microsoft.com,2022-09-14:sid:{sid}".encode()
    asked = csr(world.device.key, challenge(PRINTABLE, b"x"), extension_request(san_of(uri)))
    verdict = await judged(world, csr=asked)

    assert (verdict.reason if isinstance(verdict, EnrollmentRejected) else None) is expected


def san_of(uri: bytes) -> bytes:
    name = bytes((0x86, len(uri))) + uri
    return extension("2.5.29.17", bytes((0x30, len(name))) + name)


async def test_a_certificate_with_a_sid_is_no_answer_once_the_profile_wants_none(
    world: World,
) -> None:
    world.allow(subject_template=(), san_templates=())
    world.clock.seconds = NOW - 1
    await certify(world, CertificateNames.of_csr(read(device_csr(world.device))), sid=OTHER)
    verdict = await approved(world)

    assert (verdict.existing, sids(verdict)) == ("", [])


async def test_names_that_no_template_builds_are_refused_before_the_verifier_is_asked(
    world: World, service: Service
) -> None:
    world.allow(san_templates=(), sans=frozenset())
    verdict = await refused(world)

    assert verdict.reason is Reason.SAN_NOT_ALLOWED
    assert service.posted == []
