"""What is refused, with which answer, and that the record or the counters tell of it."""

import base64
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from shared.log.reasons import FAIL_INFO, Reason
from shared.scep.certrep import CertRep, PkiStatus
from shared.scep.envelope import read_envelope
from shared.scep.errors import FailInfo
from tests.support import messages as m
from tests.support.requests import (
    Device,
    Endpoint,
    Request,
    answer,
    ask,
    certificate,
    counted,
    enroll,
    listed,
    logged,
    recipient_info,
    recorded,
    sealed,
    server_errors,
)
from tests.support.system import System

FAILURE_FLOOR = 0.05
UNKNOWN_OID = m.oid("1.3.6.1.4.1.99999.1")
Build = Callable[[Endpoint, Device], Request]


@pytest.fixture(scope="module")
def identity() -> m.Identity:
    """One key for many transactions."""
    return Device.new().identity


@pytest.fixture(scope="module")
def stranger() -> m.Identity:
    """Somebody else's key."""
    return Device.new("stranger").identity


@pytest.fixture
def device(identity: m.Identity) -> Device:
    return Device(identity)


@pytest.fixture(autouse=True)
def _nothing_breaks(system: System, demo: Endpoint) -> Iterator[None]:
    """Whatever a test sends: no 5xx, no traceback, no error in any log."""
    errors, failures = server_errors(demo.metrics_url), len(logged(system, "request_failed"))
    yield
    assert server_errors(demo.metrics_url) == errors
    assert len(logged(system, "request_failed")) == failures
    for log in (system.data / "logs").iterdir():
        assert "Traceback" not in log.read_text(), log.name


class Refusals:
    """How often the gateway has counted and logged a refusal so far."""

    def __init__(self, system: System, endpoint: Endpoint, reason: str) -> None:
        self.system, self.endpoint, self.reason = system, endpoint, reason
        self.before = self._now()

    def _now(self) -> tuple[float, int]:
        url, profile = self.endpoint.metrics_url, self.endpoint.url.rpartition("/")[2]
        labels = {"profile": profile, "reason": self.reason}
        lines = [
            line
            for line in logged(self.system, "refused")
            if (line["profile"], line["reason"]) == (profile, self.reason)
        ]
        return counted(url, "scepstream_refused_total", **labels), len(lines)

    def since(self) -> tuple[float, int]:
        """(counted, logged) since this was made."""
        count, lines = self._now()
        return count - self.before[0], lines - self.before[1]


def refusal(reply: CertRep) -> tuple[PkiStatus, FailInfo | None, bool]:
    """(status, failInfo, whether there is a text) of a reply without content."""
    assert reply.signed.content == b""
    return reply.status, reply.fail_info, bool(reply.fail_info_text)


# Before a transaction is known: 400


def _valid(demo: Endpoint, device: Device) -> bytes:
    return device.enrollment(demo).body


UNANSWERABLE: dict[str, Callable[[Endpoint, Device], bytes]] = {
    "garbage": lambda *_: secrets.token_bytes(2000),
    "text": lambda *_: b"<html>not a message</html>",
    "a lone tag": lambda *_: b"\x30",
    "an endless length": lambda *_: b"\x30\x84\xff\xff\xff\xff" + b"\0" * 100,
    "deep nesting": lambda *_: b"\x30\x80" * 5000,
    "base64 in a POST": lambda demo, device: base64.b64encode(_valid(demo, device)),
    "cut short": lambda demo, device: _valid(demo, device)[:-20],
    "cut in half": lambda demo, device: _valid(demo, device)[:900],
    "bytes after the end": lambda demo, device: _valid(demo, device) + b"more",
    "an envelope alone": lambda demo, device: sealed(demo, device.csr(demo.challenge)),
    "a CSR alone": lambda demo, device: device.csr(demo.challenge),
    "no transactionID": lambda demo, device: _without(demo, device, "transaction_id"),
    "no senderNonce": lambda demo, device: _without(demo, device, "nonce"),
    "no signer certificate": lambda demo, device: (
        device.request(sealed(demo, device.csr(demo.challenge)), certificates=[]).body
    ),
    "an empty transactionID": lambda demo, device: (
        Device(device.identity, b"").enrollment(demo, device.csr(demo.challenge)).body
    ),
    "a transactionID of 256 bytes": lambda demo, device: (
        Device(device.identity, b"T" * 256).enrollment(demo, device.csr(demo.challenge)).body
    ),
    "a senderNonce of 65 bytes": lambda demo, device: device.enrollment(demo, nonce=bytes(65)).body,
}


def _without(demo: Endpoint, device: Device, attribute: str) -> bytes:
    content = sealed(demo, device.csr(demo.challenge))
    attributes = [*m.scep_attributes(**{attribute: b""}), *m.cms_attributes(content)]
    return m.signed(content, device.identity, attributes)


@pytest.mark.parametrize("case", UNANSWERABLE)
def test_what_names_no_transaction_is_a_400_with_one_sentence(
    system: System, demo: Endpoint, device: Device, case: str
) -> None:
    refusals = Refusals(system, demo, Reason.BAD_MESSAGE)
    response = demo.post(UNANSWERABLE[case](demo, device))
    assert (response.status_code, response.text) == (400, "not a SCEP message\n")
    assert response.headers["content-type"] == "text/plain"
    assert refusals.since() == (1, 1)


def test_what_is_too_large_is_a_413_and_counted(system: System, demo: Endpoint) -> None:
    refusals = Refusals(system, demo, "too_large")
    response = demo.post(b"\x30" * (256 * 1024 + 1))
    assert (response.status_code, response.text) == (413, "message too large\n")
    assert refusals.since() == (1, 1)


def test_an_empty_message_is_a_400_and_counted(system: System, demo: Endpoint) -> None:
    refusals = Refusals(system, demo, "empty_message")
    assert demo.post(b"").status_code == 400
    assert refusals.since() == (1, 1)


# Once it is known: a signed FAILURE


def _swapped(demo: Endpoint, device: Device) -> Request:
    """Another envelope of the same length under a signature that is valid for the first."""
    csr = device.csr(demo.challenge)
    signed, other = sealed(demo, csr), sealed(demo, csr)
    assert signed != other
    assert len(signed) == len(other)
    request = device.request(signed)
    assert request.body.count(signed) == 1
    return Request(request.body.replace(signed, other), request.transaction, request.nonce)


def _tampered(demo: Endpoint, device: Device) -> Request:
    """The last byte of the message is the signature's."""
    request = device.enrollment(demo)
    changed = request.body[:-1] + bytes([request.body[-1] ^ 1])
    return Request(changed, request.transaction, request.nonce)


def _signed_by_another(demo: Endpoint, device: Device) -> Request:
    key = rsa.generate_private_key(65537, 2048)
    content = sealed(demo, device.csr(demo.challenge))
    return device.request(content, sign=m.rsa_sign(key))


UNSIGNED: dict[str, Build] = {
    "a tampered signature": _tampered,
    "a swapped envelope": _swapped,
    "another key's signature": _signed_by_another,
    "a messageDigest of something else": lambda demo, device: device.request(
        sealed(demo, device.csr(demo.challenge)), digested=b"something else"
    ),
    "a signature algorithm with another digest": lambda demo, device: device.request(
        sealed(demo, device.csr(demo.challenge)),
        signature_algorithm=m.tlv(m.SEQ, m.oid("1.2.840.113549.1.1.13"), m.NULL),
    ),
}


@pytest.mark.parametrize("case", UNSIGNED)
def test_a_signature_that_does_not_verify_is_a_bad_message_check(
    system: System, demo: Endpoint, device: Device, case: str
) -> None:
    refusals = Refusals(system, demo, Reason.BAD_MESSAGE)
    reply = ask(demo, UNSIGNED[case](demo, device))
    assert refusal(reply) == (PkiStatus.FAILURE, FailInfo.BAD_MESSAGE_CHECK, False)
    assert refusals.since() == (1, 1)


def _bad_padding(demo: Endpoint, device: Device) -> Request:
    """The right key, and a last block that is no padding."""
    plaintext = device.csr(demo.challenge)
    plaintext += bytes(-len(plaintext) % 16 + 16)
    encryptor = Cipher(algorithms.AES(m.CONTENT_KEY), modes.CBC(m.IV)).encryptor()
    return device.request(sealed(demo, b"", ciphertext=encryptor.update(plaintext)))


def _wrong_recipient(demo: Endpoint, device: Device) -> Request:
    """Encrypted to somebody else's key."""
    csr = device.csr(demo.challenge)
    return device.request(sealed(demo, csr, recipient=m.recipient(device.identity)))


def _undecryptable(demo: Endpoint, device: Device) -> Request:
    """A content key that RSA cannot have encrypted."""
    noise = b"\0" + secrets.token_bytes(255)
    info = recipient_info(demo, encrypted_key=noise)
    return device.request(sealed(demo, device.csr(demo.challenge), recipient=info))


def _key_of_another_size(demo: Endpoint, device: Device) -> Request:
    """Well padded, but an AES-128 key for AES-256."""
    info = recipient_info(demo, "aes128")
    return device.request(sealed(demo, device.csr(demo.challenge), recipient=info))


def _wrong_self_signature(demo: Endpoint, device: Device) -> Request:
    csr = device.csr(demo.challenge)
    return device.enrollment(demo, csr[:-1] + bytes([csr[-1] ^ 1]))


UNOPENED: dict[str, Build] = {
    "another recipient": _wrong_recipient,
    "an undecryptable key": _undecryptable,
    "a content key of another size": _key_of_another_size,
    "bad padding": _bad_padding,
    "rubbish for a CSR": lambda demo, device: device.enrollment(demo, b"rubbish" * 100),
    "an empty CSR": lambda demo, device: device.enrollment(demo, b""),
    "a CSR cut short": lambda demo, device: device.enrollment(
        demo, device.csr(demo.challenge)[:-9]
    ),
    "a CSR that does not verify": _wrong_self_signature,
    "a CSR signed with an unknown algorithm": lambda demo, device: device.enrollment(
        demo, device.csr(demo.challenge, algorithm=m.tlv(m.SEQ, UNKNOWN_OID, m.NULL))
    ),
}


@pytest.mark.parametrize("case", UNOPENED)
def test_what_does_not_open_is_a_bad_message_check_without_a_word(
    system: System, demo: Endpoint, device: Device, case: str
) -> None:
    refusals = Refusals(system, demo, Reason.BAD_MESSAGE)
    request = UNOPENED[case](demo, device)
    started = time.monotonic()
    reply = ask(demo, request)
    assert time.monotonic() - started >= FAILURE_FLOOR
    assert refusal(reply) == (PkiStatus.FAILURE, FailInfo.BAD_MESSAGE_CHECK, False)
    assert refusals.since() == (1, 1)


def test_no_two_failures_to_open_can_be_told_apart(demo: Endpoint, device: Device) -> None:
    """One oracle for none of them: same status, headers, length and attributes (RFC 3218)."""
    seen = set()
    for build in UNOPENED.values():
        request = build(demo, device)
        response = demo.post(request.body)
        reply = answer(demo, request, response)
        headers = {k: v for k, v in response.headers.items() if k != "date"}
        names = frozenset(reply.signed.attributes)
        seen.add((response.status_code, str(headers), len(response.content), names))
    assert len(seen) == 1


def test_the_log_tells_no_two_failures_to_open_apart(
    system: System, demo: Endpoint, device: Device
) -> None:
    ask(demo, _undecryptable(demo, device))
    one = logged(system, "refused")[-1]
    ask(demo, device.enrollment(demo, b"rubbish"))
    other = logged(system, "refused")[-1]
    assert one.pop("timestamp") < other.pop("timestamp")
    assert one == other


# Algorithms


def _unknown_cipher(endpoint: Endpoint, device: Device) -> Request:
    algorithm = m.tlv(m.SEQ, UNKNOWN_OID, m.tlv(4, m.IV))
    return device.request(sealed(endpoint, device.csr(endpoint.challenge), algorithm=algorithm))


def _unknown_digest(endpoint: Endpoint, device: Device) -> Request:
    algorithm = m.tlv(m.SEQ, UNKNOWN_OID, m.NULL)
    content = sealed(endpoint, device.csr(endpoint.challenge))
    return device.request(content, digest_algorithm=algorithm)


def _unknown_transport(endpoint: Endpoint, device: Device) -> Request:
    info = recipient_info(endpoint)
    info = info.replace(m.RSA, m.tlv(m.SEQ, m.oid("1.2.840.113549.1.1.99"), m.NULL))
    return device.request(sealed(endpoint, device.csr(endpoint.challenge), recipient=info))


def _unknown_signature(endpoint: Endpoint, device: Device) -> Request:
    algorithm = m.tlv(m.SEQ, UNKNOWN_OID)
    content = sealed(endpoint, device.csr(endpoint.challenge))
    return device.request(content, signature_algorithm=algorithm)


UNKNOWN: dict[str, Build] = {
    "an unknown cipher": _unknown_cipher,
    "an unknown digest": _unknown_digest,
    "an unknown key transport": _unknown_transport,
    "an unknown signature algorithm": _unknown_signature,
}
WEAK: dict[str, Build] = {
    "SHA-1": lambda endpoint, device: device.enrollment(endpoint, digest="sha1"),
    "DES": lambda endpoint, device: device.enrollment(endpoint, cipher="des"),
    "3DES": lambda endpoint, device: device.enrollment(endpoint, cipher="des3"),
    "SHA-1 and DES": lambda endpoint, device: device.enrollment(
        endpoint, cipher="des", digest="sha1"
    ),
}


@pytest.mark.parametrize("case", [*UNKNOWN, *WEAK])
def test_an_algorithm_beyond_the_profile_is_a_bad_alg_that_says_so(
    system: System, demo: Endpoint, device: Device, case: str
) -> None:
    refusals = Refusals(system, demo, Reason.BAD_ALGORITHM)
    reply = ask(demo, (UNKNOWN | WEAK)[case](demo, device))
    assert refusal(reply) == (PkiStatus.FAILURE, FailInfo.BAD_ALG, True)
    assert refusals.since() == (1, 1)


@pytest.mark.parametrize("case", UNKNOWN)
def test_an_unknown_algorithm_is_a_bad_alg_on_a_legacy_profile_too(
    legacy: Endpoint, device: Device, case: str
) -> None:
    reply = ask(legacy, UNKNOWN[case](legacy, device))
    assert refusal(reply) == (PkiStatus.FAILURE, FailInfo.BAD_ALG, True)


@pytest.mark.parametrize("case", WEAK)
def test_a_legacy_profile_takes_weak_algorithms_and_answers_with_them(
    legacy: Endpoint, device: Device, case: str
) -> None:
    reply = ask(legacy, WEAK[case](legacy, device))
    certificate(legacy, device, reply)
    assert reply.signed.digest is not None
    assert (reply.signed.digest.name == "sha1") == ("SHA-1" in case)
    assert read_envelope(reply.signed.content).cipher.legacy == ("DES" in case)


def test_a_refusal_answers_in_the_digest_of_the_request(demo: Endpoint, device: Device) -> None:
    for digest, answered in (("sha512", "sha512"), ("sha384", "sha384"), ("sha1", "sha256")):
        reply = ask(demo, device.enrollment(demo, device.csr(""), digest=digest))
        assert reply.status is PkiStatus.FAILURE
        assert reply.signed.digest is not None
        assert reply.signed.digest.name == answered


# Message types


@pytest.mark.parametrize("message_type", [b"18", b"99", b"3", b"0", b"nineteen", b""])
def test_other_message_types_are_a_bad_request(
    system: System, demo: Endpoint, device: Device, message_type: bytes
) -> None:
    refusals = Refusals(system, demo, Reason.UNSUPPORTED_MESSAGE)
    content = sealed(demo, device.csr(demo.challenge))
    reply = ask(demo, device.request(content, message_type))
    assert refusal(reply) == (PkiStatus.FAILURE, FailInfo.BAD_REQUEST, True)
    assert refusals.since() == (1, 1)


def test_a_message_without_a_type_is_a_bad_request(demo: Endpoint, device: Device) -> None:
    content = sealed(demo, device.csr(demo.challenge))
    nonce = secrets.token_bytes(16)
    head = m.scep_attributes(b"", m.tlv(m.PRINTABLE, device.transaction), m.tlv(4, nonce))
    body = m.signed(content, device.identity, [*head, *m.cms_attributes(content)])
    reply = ask(demo, Request(body, device.transaction, nonce))
    assert refusal(reply) == (PkiStatus.FAILURE, FailInfo.BAD_REQUEST, True)


def test_a_poll_for_no_transaction_is_a_bad_cert_id(
    system: System, demo: Endpoint, device: Device
) -> None:
    refusals = Refusals(system, demo, Reason.NO_SUCH_TRANSACTION)
    reply = ask(demo, device.poll(demo))
    assert refusal(reply) == (PkiStatus.FAILURE, FailInfo.BAD_CERT_ID, True)
    assert refusals.since() == (1, 1)


# What the validator refuses


JUDGED: dict[Reason, Callable[[Endpoint, Device], bytes]] = {
    Reason.CHALLENGE_WRONG: lambda demo, device: device.csr(demo.challenge + "x"),
    Reason.CHALLENGE_MISSING: lambda _, device: device.csr(""),
    Reason.SAN_NOT_ALLOWED: lambda demo, device: device.csr(
        demo.challenge, m.extension_request(m.san(m.tlv(0x88, m.oid("1.2.3.4")[2:])))
    ),
    Reason.SUBJECT_NOT_ALLOWED: lambda demo, device: device.csr(demo.challenge, subject=m.name()),
    Reason.USAGE_NOT_ALLOWED: lambda demo, device: device.csr(
        demo.challenge,
        m.extension_request(m.extension("2.5.29.37", m.tlv(m.SEQ, m.oid("1.3.6.1.5.5.7.3.3")))),
    ),
}


def rejected(system: System, endpoint: Endpoint, device: Device, csr: bytes, why: Reason) -> None:
    """The answer has the reason's failInfo, and the record the verdict with that reason."""
    reply = ask(endpoint, device.enrollment(endpoint, csr))
    assert refusal(reply) == (PkiStatus.FAILURE, FAIL_INFO[why], True)
    assert endpoint.challenge not in reply.fail_info_text
    line = recorded(system, device, "rejected")
    assert (line["profile"], line["result"], line["serial"]) == ("demo", why, "")
    assert listed(system, "--search", device.transaction.decode()) == [line]


@pytest.mark.parametrize("why", JUDGED)
def test_what_the_validator_refuses_is_a_failure_and_a_verdict_on_record(
    system: System, demo: Endpoint, device: Device, why: Reason
) -> None:
    rejected(system, demo, device, JUDGED[why](demo, device), why)


def test_a_weak_key_is_a_bad_alg_and_a_verdict_on_record(system: System, demo: Endpoint) -> None:
    weak = Device.new("weak", 1024)
    assert FAIL_INFO[Reason.KEY_NOT_ALLOWED] is FailInfo.BAD_ALG
    rejected(system, demo, weak, weak.csr(demo.challenge), Reason.KEY_NOT_ALLOWED)


def test_a_small_exponent_needs_a_legacy_profile(
    system: System, demo: Endpoint, legacy: Endpoint
) -> None:
    for endpoint in (demo, legacy):
        key = rsa.generate_private_key(3, 2048)
        weak = Device(m.identity("weak", secrets.randbits(64) | 1, key))
        if endpoint is demo:
            rejected(system, demo, weak, weak.csr(demo.challenge), Reason.KEY_NOT_ALLOWED)
        else:
            enroll(legacy, weak)


def test_the_challenge_of_another_profile_is_wrong(
    demo: Endpoint, legacy: Endpoint, device: Device
) -> None:
    reply = ask(demo, device.enrollment(demo, device.csr(legacy.challenge)))
    assert refusal(reply) == (PkiStatus.FAILURE, FailInfo.BAD_MESSAGE_CHECK, True)
    enroll(legacy, device)


def test_a_blank_challenge_is_missing(demo: Endpoint, device: Device) -> None:
    reply = ask(demo, device.enrollment(demo, device.csr("  ")))
    other = Device(device.identity)
    missing = ask(demo, other.enrollment(demo, other.csr("")))
    assert refusal(reply) == (PkiStatus.FAILURE, FailInfo.BAD_MESSAGE_CHECK, True)
    assert reply.fail_info_text == missing.fail_info_text


def test_what_the_gateway_refuses_never_comes_on_the_record(
    system: System, demo: Endpoint, device: Device, stranger: m.Identity
) -> None:
    """Nothing that a stranger sends without a challenge's format being right fills the log."""
    for build in (_tampered, _undecryptable, _unknown_cipher, _wrong_self_signature):
        ask(demo, build(demo, device))
    later = Device(stranger)
    enroll(demo, later)
    recorded(system, later, "issued")
    assert listed(system, "--search", device.transaction.decode()) == []


@pytest.mark.parametrize("transaction", [b"a", b"T" * 255, b"../../etc/passwd", b"demo.*.>"])
def test_any_transaction_id_is_echoed_and_never_a_subject(
    demo: Endpoint, identity: m.Identity, transaction: bytes
) -> None:
    device = Device(identity, transaction)
    csr = device.csr(demo.challenge, subject=m.DEVICE_NAME)
    certificate(demo, device, ask(demo, device.enrollment(demo, csr)))


@pytest.mark.parametrize(
    ("subject", "san", "said"),
    [
        (m.name((m.COMMON_NAME, m.UTF8, b"")), b"", "CN: the value is empty"),
        (m.name((m.COMMON_NAME, m.UTF8, b"a\xff")), b"", "CN: the UTF8String does not decode"),
        (m.tlv(m.SEQ, m.tlv(m.SET)), b"", "which is empty"),
        (m.DEVICE_NAME, m.tlv(0x82, b"a\0.example"), "dNSName"),
        (m.DEVICE_NAME, m.tlv(0x81, "jörg@example".encode()), "rfc822Name"),
        (m.DEVICE_NAME, m.tlv(0x86, b""), "uniformResourceIdentifier"),
        (m.DEVICE_NAME, m.tlv(0x87, bytes(3)), "iPAddress"),
        (m.DEVICE_NAME, m.tlv(0xA0), "otherName"),
    ],
)
def test_a_name_that_breaks_its_types_rule_is_a_bad_request_that_names_it(
    demo: Endpoint, device: Device, subject: bytes, san: bytes, said: str
) -> None:
    asked = [m.extension_request(m.san(san))] if san else []
    csr = device.csr(demo.challenge, *asked, subject=subject)
    reply = ask(demo, device.enrollment(demo, csr))

    assert reply.fail_info is FailInfo.BAD_REQUEST
    assert said in reply.fail_info_text
    assert "(RFC 5280 4." in reply.fail_info_text


# What is shortened, not refused


def test_a_profile_may_ask_for_more_than_its_issuer_signs(wide: System, device: Device) -> None:
    found = enroll(Endpoint.of(wide, "longest"), device)
    lasting = found.not_valid_after_utc - found.not_valid_before_utc

    assert timedelta(days=730) <= lasting <= timedelta(days=730, hours=1)


def test_a_device_may_ask_for_a_shorter_life(demo: Endpoint, device: Device) -> None:
    pair = "1.3.6.1.4.1.311.13.2.1"
    asked = [
        m.attribute(pair, m.tlv(m.SEQ, *(m.tlv(m.BMP, each.encode("utf-16-be")) for each in both)))
        for both in (("ValidityPeriod", "Days"), ("ValidityPeriodUnits", "3"))
    ]
    found = enroll(demo, device, csr=device.csr(demo.challenge, *asked))
    left = found.not_valid_after_utc - datetime.now(UTC)

    assert timedelta(days=2, hours=23) < left <= timedelta(days=3)
