"""Certificates by serial, CRLs, and what revoking one does to it and to its key."""

import hashlib
import time
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shared.log.reasons import FAIL_INFO, Reason
from shared.scep.certrep import PkiStatus
from shared.scep.errors import FailInfo
from tests.support import messages as m
from tests.support.holders import (
    GET_CERT,
    GET_CRL,
    enrolled,
    get_crl,
    holding,
    next_second,
    query,
    renewal,
    renewed,
    revoke,
)
from tests.support.prepared import command
from tests.support.requests import (
    Device,
    Endpoint,
    ask,
    enroll,
    issued,
    listed,
    recorded,
    sealed,
    send,
)
from tests.support.system import System

CONSTANTS = (b"SSCEP transactionId", b"1")
FAILURE_FLOOR = 0.05
NOTHING = (PkiStatus.FAILURE, FailInfo.BAD_CERT_ID)


@pytest.fixture(scope="module")
def identity() -> m.Identity:
    """One key for what is not marked as compromised."""
    return Device.new().identity


@pytest.fixture
def device(identity: m.Identity) -> Device:
    return Device(identity)


@pytest.fixture(scope="module")
def anytime(wide: System) -> Endpoint:
    return Endpoint.of(wide, "anytime")


def crl_url(system: System, rest: str = "local.crl", gateway: int = 0) -> str:
    return f"{system.run['urls'][gateway].removesuffix('/scep')}/crl/{rest}"


def fetched(
    system: System, rest: str = "local.crl", gateway: int = 0
) -> x509.CertificateRevocationList:
    response = send("GET", crl_url(system, rest, gateway))
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/pkix-crl"
    return x509.load_der_x509_crl(response.content)


def number(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def pin(ca: x509.Certificate) -> str:
    info = ca.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(info).hexdigest()


def by_get_cert(
    endpoint: Endpoint, asking: Device, serial: int, issuer: bytes | None = None
) -> x509.Certificate:
    return issued(asking, ask(endpoint, query(endpoint, asking, GET_CERT, serial, issuer)))


def reason_of(system: System, serial: int) -> x509.ReasonFlags:
    """What the CRL says of a revoked certificate."""
    entry = fetched(system).get_revoked_certificate_by_serial_number(serial)
    assert entry is not None
    return entry.extensions.get_extension_for_class(x509.CRLReason).value.reason


# GetCert


@pytest.mark.parametrize("transaction", CONSTANTS)
def test_a_certificate_is_fetched_by_its_serial_in_a_constant_transaction_from_every_gateway(
    wide: System, anytime: Endpoint, device: Device, transaction: bytes
) -> None:
    certificate = enroll(anytime, device)
    for gateway in range(3):
        endpoint = Endpoint.of(wide, "anytime", gateway)
        for identity in (device.identity, Device.new("other").identity):
            asking = Device(identity, transaction)
            assert by_get_cert(endpoint, asking, certificate.serial_number) == certificate


def test_a_device_asks_with_its_certificate_too(anytime: Endpoint, device: Device) -> None:
    holder = holding(device, enroll(anytime, device))
    mine = holder.identity.x509
    assert by_get_cert(anytime, holder, mine.serial_number) == mine


def test_the_ca_s_own_certificate_is_fetched_by_its_serial(
    anytime: Endpoint, device: Device
) -> None:
    assert by_get_cert(anytime, device, anytime.ca.serial_number) == anytime.ca


def test_a_revoked_certificate_is_still_fetched(
    wide: System, anytime: Endpoint, device: Device
) -> None:
    certificate = enroll(anytime, device)
    assert revoke(wide, certificate.serial_number).returncode == 0
    assert by_get_cert(anytime, device, certificate.serial_number) == certificate


@pytest.mark.parametrize("serial", [1, 0, 2**159 - 1])
def test_an_unknown_serial_is_a_bad_cert_id(anytime: Endpoint, device: Device, serial: int) -> None:
    reply = ask(anytime, query(anytime, device, GET_CERT, serial))
    assert (reply.status, reply.fail_info) == NOTHING
    assert reply.fail_info_text


def test_a_certificate_of_another_profile_is_a_bad_cert_id(
    wide: System, anytime: Endpoint, device: Device
) -> None:
    serial = enroll(Endpoint.of(wide, "reusing"), device).serial_number
    reply = ask(anytime, query(anytime, device, GET_CERT, serial))
    assert (reply.status, reply.fail_info) == NOTHING


@pytest.mark.parametrize("message_type", [GET_CERT, GET_CRL])
def test_a_certificate_of_an_unknown_issuer_is_a_bad_cert_id(
    anytime: Endpoint, device: Device, message_type: bytes
) -> None:
    serial = enroll(anytime, device).serial_number
    reply = ask(anytime, query(anytime, device, message_type, serial, m.DEVICE_NAME))
    assert (reply.status, reply.fail_info) == NOTHING


PAYLOADS = (b"", b"rubbish", m.tlv(m.SEQ), m.DEVICE_NAME)


@pytest.mark.parametrize("message_type", [GET_CERT, GET_CRL])
def test_a_question_that_is_none_is_answered_like_one_for_what_is_unknown(
    anytime: Endpoint, device: Device, message_type: bytes
) -> None:
    """Nothing ties an envelope to its signer: anyone may send an altered one, and measure."""
    requests = [device.request(sealed(anytime, p), message_type) for p in PAYLOADS]
    requests.append(query(anytime, device, message_type, 1, m.DEVICE_NAME))
    seen = set()
    for request in requests:
        started = time.monotonic()
        reply = ask(anytime, request)
        assert time.monotonic() - started >= FAILURE_FLOOR
        assert (reply.status, reply.fail_info) == NOTHING
        seen.add((reply.fail_info_text, frozenset(reply.signed.attributes)))
    assert len(seen) == 1


def test_questions_are_not_on_record(wide: System, anytime: Endpoint, device: Device) -> None:
    ask(anytime, query(anytime, device, GET_CERT, 1))
    get_crl(anytime, device)
    later = Device(device.identity)
    enroll(anytime, later)
    recorded(wide, later, "issued")
    assert listed(wide, "--search", device.transaction.decode()) == []


# CRLs


def test_the_crl_is_the_ca_s_and_is_valid_now(wide: System, anytime: Endpoint) -> None:
    crl, now = fetched(wide), datetime.now(UTC)
    assert crl.is_signature_valid(anytime.ca.public_key())  # type: ignore[arg-type]
    assert crl.issuer == anytime.ca.subject
    assert crl.next_update_utc is not None
    assert crl.last_update_utc <= now < crl.next_update_utc
    key_id = crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    own = anytime.ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert key_id.key_identifier == own.digest


@pytest.mark.parametrize("transaction", CONSTANTS)
def test_the_crl_is_had_by_message_and_by_url_from_every_gateway(
    wide: System, device: Device, transaction: bytes
) -> None:
    crls = []
    for gateway in range(3):
        endpoint = Endpoint.of(wide, "anytime", gateway)
        askers = (device.identity, Device.new("other").identity)
        crls += [get_crl(endpoint, Device(identity, transaction)) for identity in askers]
        crls.append(fetched(wide, gateway=gateway))
        crls.append(fetched(wide, f"local/{pin(endpoint.ca)}.crl", gateway))
    assert len({crl.public_bytes(Encoding.DER) for crl in crls}) == 1


def test_a_head_of_the_crl_has_its_length_and_no_body(wide: System) -> None:
    head, whole = (send(method, crl_url(wide)) for method in ("HEAD", "GET"))
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]
    assert head.headers["content-length"] == str(len(whole.content))


@pytest.mark.parametrize(
    "rest",
    ["nobody.crl", "local", "local.crl/x", f"local/{'0' * 64}.crl", ".crl"],
)
def test_an_unknown_crl_is_a_404(wide: System, rest: str) -> None:
    response = send("GET", crl_url(wide, rest))
    assert response.status_code == 404
    assert response.headers["content-type"] == "text/plain"


# Revocation


def test_a_revoked_certificate_is_on_the_crl_when_the_command_ends(
    wide: System, anytime: Endpoint, device: Device
) -> None:
    before, serial = number(fetched(wide)), enroll(anytime, device).serial_number
    done = revoke(wide, serial, "--reason", "superseded")
    assert done.returncode == 0, done.stdout
    for gateway in range(3):
        for crl in (
            fetched(wide, gateway=gateway),
            get_crl(Endpoint.of(wide, "anytime", gateway), device),
        ):
            entry = crl.get_revoked_certificate_by_serial_number(serial)
            assert entry is not None
            reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
            assert reason is x509.ReasonFlags.superseded
            assert number(crl) > before


def test_a_crl_holds_what_earlier_ones_did(wide: System, anytime: Endpoint, device: Device) -> None:
    serials = [enroll(anytime, Device(device.identity)).serial_number for _ in range(3)]
    for serial in serials:
        assert revoke(wide, serial).returncode == 0
    crl = fetched(wide)
    for serial in serials:
        entry = crl.get_revoked_certificate_by_serial_number(serial)
        assert entry is not None
        assert len(entry.extensions) == 0  # unspecified is said by its absence


@pytest.mark.parametrize("form", ["{:x}", "{:X}", "0x{:x}", "00{:x}", "colons"])
def test_a_serial_is_known_as_other_programs_write_it(
    wide: System, anytime: Endpoint, device: Device, form: str
) -> None:
    serial = enroll(anytime, device).serial_number
    digits = f"{serial:x}"
    padded = digits.zfill(len(digits) + len(digits) % 2)
    colons = ":".join(padded[i : i + 2] for i in range(0, len(padded), 2))
    wanted = colons if form == "colons" else form.format(serial)
    done = command("ca", "revoke", wanted, "--config", str(wide.config))
    assert done.returncode == 0, done.stdout
    assert fetched(wide).get_revoked_certificate_by_serial_number(serial) is not None


def test_a_certificate_is_revoked_once_and_the_second_time_that_is_said(
    wide: System, anytime: Endpoint, device: Device
) -> None:
    serial = enroll(anytime, device).serial_number
    assert revoke(wide, serial).returncode == 0
    before = number(fetched(wide))
    again = revoke(wide, serial)
    assert (again.returncode, len(again.stdout.splitlines())) == (0, 1)
    assert "already" in again.stdout
    assert number(fetched(wide)) == before


@pytest.mark.parametrize(
    ("serial", "options"),
    [("1234", ()), ("no-number", ()), ("", ()), ("-5", ()), ("1234", ("--issuer", "nobody"))],
)
def test_what_cannot_be_revoked_is_said_in_one_sentence_with_status_1(
    wide: System, serial: str, options: tuple[str, ...]
) -> None:
    done = command("ca", "revoke", *options, "--config", str(wide.config), "--", serial)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)


def test_a_compromised_key_is_refused_for_ever_whoever_asks_for_it(
    wide: System, anytime: Endpoint
) -> None:
    device = Device.new("stolen")
    serial = enroll(anytime, device).serial_number
    assert revoke(wide, serial, "--reason", "keyCompromise").returncode == 0
    for profile in ("anytime", "demo"):
        endpoint, later = Endpoint.of(wide, profile), Device(device.identity)
        reply = ask(endpoint, later.enrollment(endpoint))
        assert reply.fail_info is FAIL_INFO[Reason.KEY_COMPROMISED]
        assert recorded(wide, later, "rejected")["result"] == Reason.KEY_COMPROMISED
    assert reason_of(wide, serial) is x509.ReasonFlags.key_compromise


def test_a_certificate_on_hold_is_not_renewed_until_it_is_released(
    wide: System, anytime: Endpoint
) -> None:
    device = Device.new("on hold")
    holder = holding(device, enroll(anytime, device))
    serial = holder.identity.x509.serial_number
    assert revoke(wide, serial, "--reason", "certificateHold").returncode == 0
    assert reason_of(wide, serial) is x509.ReasonFlags.certificate_hold
    key = Device.new().identity.key
    refused = ask(anytime, renewal(anytime, holder, key))
    assert refused.fail_info is FAIL_INFO[Reason.NOT_RENEWABLE]
    released = revoke(wide, serial, "--reason", "removeFromCRL")
    assert (released.returncode, released.stdout.partition(";")[0]) == (0, "released")
    assert fetched(wide).get_revoked_certificate_by_serial_number(serial) is None
    assert revoke(wide, serial, "--reason", "removeFromCRL").returncode == 0  # it is so already
    later_key = Device.new().identity.key  # the refusal of the first CSR stands for a while
    renewed(anytime, holder, later_key, ask(anytime, renewal(anytime, holder, later_key)))


def test_what_was_revoked_for_good_is_not_released(
    wide: System, anytime: Endpoint, device: Device
) -> None:
    serial = enroll(anytime, device).serial_number
    assert revoke(wide, serial, "--reason", "superseded").returncode == 0
    refused = revoke(wide, serial, "--reason", "removeFromCRL")
    assert (refused.returncode, "permanently revoked" in refused.stderr) == (1, True)
    assert reason_of(wide, serial) is x509.ReasonFlags.superseded


def test_a_key_found_compromised_after_its_certificate_was_revoked_is_refused_too(
    wide: System, anytime: Endpoint
) -> None:
    device = Device.new("lost, then found stolen")
    serial = enroll(anytime, device).serial_number
    assert revoke(wide, serial, "--reason", "superseded").returncode == 0
    assert reason_of(wide, serial) is x509.ReasonFlags.superseded
    assert revoke(wide, serial, "--reason", "keyCompromise").returncode == 0
    assert reason_of(wide, serial) is x509.ReasonFlags.key_compromise
    later = Device(device.identity)
    reply = ask(anytime, later.enrollment(anytime))
    assert reply.fail_info is FAIL_INFO[Reason.KEY_COMPROMISED]


def test_a_key_whose_certificate_was_revoked_for_another_reason_enrolls_again(
    wide: System, anytime: Endpoint
) -> None:
    device = Device.new("returned")
    first = enroll(anytime, device)
    done = revoke(wide, first.serial_number, "--reason", "cessationOfOperation")
    assert done.returncode == 0
    name = m.name((m.COMMON_NAME, m.UTF8, device.name.encode()))
    later = Device(device.identity)
    next_second()
    csr = later.csr(anytime.challenge, subject=name)
    assert enroll(anytime, later, csr=csr).serial_number != first.serial_number


def test_revocations_are_kept_through_a_kill_of_the_issuer(wide: System, anytime: Endpoint) -> None:
    holder = enrolled(anytime, Device.new())
    serial = holder.identity.x509.serial_number
    assert revoke(wide, serial).returncode == 0
    before = fetched(wide)
    wide.kill("issuer")
    other = enroll(anytime, Device.new()).serial_number
    assert revoke(wide, other).returncode == 0
    crl = fetched(wide)
    assert number(crl) > number(before)
    for each in (serial, other):
        assert crl.get_revoked_certificate_by_serial_number(each) is not None
