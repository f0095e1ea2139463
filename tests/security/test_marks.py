"""Marks that nobody has signed: against certificates, keys, challenges, and in others' places."""

import hashlib

import pytest

from shared.log.events.base import EventPayload
from shared.log.events.certificates import (
    CertificateRecorded,
    CertificateStatusChanged,
    KeyCompromised,
)
from shared.log.events.commands import ChallengeCancelled
from shared.log.events.enrollment import (
    EnrollmentHeld,
    EnrollmentRejected,
    HoldDecided,
    IssuanceFailed,
)
from shared.log.events.state import ChallengeClaimed
from shared.log.one_time import ONE_TIME, one_time_digest
from shared.log.roles import Role
from shared.log.stages import Stage
from shared.log.subjects import (
    EnrollmentId,
    certificate_status,
    csr_token,
    key_compromised,
    key_issued,
    one_time_cancelled,
    replay_record,
    serial_token,
    transaction_token,
)
from shared.scep.certrep import PkiStatus
from shared.x509.csr import read_csr
from tests.security.honest import make_challenges
from tests.security.rights import SHARD
from tests.security.siege import Siege
from tests.support import golden
from tests.support import messages as m
from tests.support.holders import enrolled, renewal, revoke
from tests.support.requests import Device, Endpoint, ask, certificate, ended

NUMBERS: tuple[int | str, ...] = (0, 1, 2, 3, 9, 999_999_999, "01", "x", "-1")


@pytest.fixture
def anytime(siege: Siege) -> Endpoint:
    return siege.endpoint("anytime")


def test_unsigned_marks_against_a_certificate_and_its_key_bar_no_renewal(
    siege: Siege, anytime: Endpoint
) -> None:
    """Whatever number they have: they neither stand for a mark nor hide a true one."""
    holder = enrolled(anytime)
    serial = serial_token(_contents(holder.identity.x509.serial_number))
    _mark(siege, holder, serial)
    record = key_issued(_spki_sha256(holder), "local", "00")
    spki = _spki_sha256(holder)
    forged = golden.event(CertificateRecorded, spki_sha256=spki, serial="00", key_uses=9)
    siege.plant(Role.ISSUER, record, forged)

    reply = ask(anytime, renewal(anytime, holder, Device.new().identity.key))
    assert reply.status is PkiStatus.SUCCESS, (reply.fail_info, reply.fail_info_text)
    done = revoke(siege.system, holder.identity.x509.serial_number, "--reason", "keyCompromise")
    assert done.returncode == 0, done.stdout
    _mark(siege, holder, serial)
    for again in (renewal(anytime, holder, Device.new().identity.key), holder.enrollment(anytime)):
        assert ask(anytime, again).status is PkiStatus.FAILURE


def _mark(siege: Siege, holder: Device, serial: str) -> None:
    """Plant marks of every kind that an issuer may write, at the numbers to come."""
    for number in NUMBERS:
        mark = certificate_status("local", serial, number)
        siege.plant(Role.ISSUER, mark, golden.event(CertificateStatusChanged, serial=serial))
        mark = key_compromised(_spki_sha256(holder), number)
        siege.plant(Role.ISSUER, mark, golden.event(KeyCompromised, serial=serial))


def _contents(serial: int) -> bytes:
    return serial.to_bytes(serial.bit_length() // 8 + 1, "big")


def _spki_sha256(device: Device) -> str:
    return hashlib.sha256(_spki(device)).hexdigest()


def _spki(device: Device) -> bytes:
    return m.spki(device.identity.key.public_key())


def test_unsigned_marks_against_a_challenge_bar_no_device(siege: Siege) -> None:
    """Taken back by nobody who may, claimed by nobody who did."""
    corp = siege.endpoint("corp")
    for challenge in make_challenges(siege.system, 2):
        digest = one_time_digest("corp", challenge)
        for number in NUMBERS:
            mark = one_time_cancelled("corp", digest, number)
            siege.plant(Role.AUDIT, mark, golden.event(ChallengeCancelled, profile="corp"))
            mark = replay_record(ONE_TIME, digest, number)
            siege.plant(Role.VALIDATOR, mark, golden.event(ChallengeClaimed, kind=ONE_TIME))
        device = Device.new()
        request = device.enrollment(corp, device.csr(challenge))
        certificate(corp, device, ended(corp, request))
        other = Device.new()
        again = ask(corp, other.enrollment(corp, other.csr(challenge)))
        assert again.status is PkiStatus.FAILURE


@pytest.mark.parametrize(
    ("role", "stage", "kind"),
    [
        (Role.VALIDATOR, Stage.VERDICT, EnrollmentRejected),
        (Role.VALIDATOR, Stage.HOLD, EnrollmentHeld),
        (Role.ISSUER, Stage.OUTCOME, IssuanceFailed),
        (Role.AUDIT, Stage.DECISION, HoldDecided),
    ],
)
def test_an_unsigned_event_in_the_place_of_a_true_one_ends_no_enrollment(
    siege: Siege, role: Role, stage: Stage, kind: type[EventPayload]
) -> None:
    """It was there first; the device asks again, and has its certificate."""
    demo, device = siege.endpoint(), Device.new()
    csr = device.csr(demo.challenge)
    request = device.enrollment(demo, csr)
    transaction = transaction_token("demo", request.transaction, _spki(device))
    enrollment = EnrollmentId(SHARD, "demo", transaction, csr_token(read_csr(csr).info), 0)
    siege.plant(role, enrollment.subject(stage), golden.event(kind))

    certificate(demo, device, ended(demo, request))
