"""Devices with EC keys: they sign, and read the answer by their challenge (RFC 8894 s3.1)."""

import secrets
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from shared.log.reasons import FAIL_INFO, Reason
from shared.scep.certrep import CertRep, PkiStatus, read_certificates
from shared.scep.envelope import read_envelope
from shared.scep.errors import FailInfo
from shared.scep.pkimessage import unwrap_with_password
from tests.support import messages as m
from tests.support import sealing, signing
from tests.support.holders import GET_CERT, PKCS_REQ, RENEWAL_REQ
from tests.support.requests import (
    Device,
    Endpoint,
    Request,
    ask,
    certificate,
    enroll,
    listed,
    recorded,
    sealed,
)
from tests.support.system import System
from tests.support.tools import need

CURVES = {"P-256": "sha256", "P-384": "sha384"}


@dataclass(frozen=True)
class EcDevice:
    """An EC key under a certificate, self-signed at first, and its transaction."""

    identity: m.EcIdentity
    digest: str = "sha256"
    transaction: bytes = field(default_factory=lambda: secrets.token_hex(16).encode())

    @classmethod
    def new(cls, curve: str = "P-256") -> "EcDevice":
        key = ec.generate_private_key(signing.CURVES[curve]())
        identity = m.ec_identity("ec", secrets.randbits(64) | 1, key)
        return cls(identity, CURVES.get(curve, "sha512"))

    @property
    def name(self) -> str:
        """Its common name."""
        return f"ec-{self.transaction.decode()}"

    def _signing(self) -> dict[str, object]:
        return {"sign": signing.ecdsa_sign(self.identity.key, self.digest)}

    def csr(self, challenge: str, key: ec.EllipticCurvePrivateKey | None = None) -> bytes:
        key = key or self.identity.key
        password = [m.challenge(m.PRINTABLE, challenge.encode())] if challenge else []
        algorithm = m.tlv(m.SEQ, m.oid(signing.ECDSA_OIDS[self.digest]))
        name = m.name((m.COMMON_NAME, m.UTF8, b"ec-" + self.transaction))
        sign = signing.ecdsa_sign(key, self.digest)
        return m.csr(key, *password, subject=name, algorithm=algorithm, sign=sign)

    def request(self, content: bytes, message_type: bytes = PKCS_REQ) -> Request:
        device = Device(self.identity, self.transaction)  # type: ignore[arg-type]
        algorithm = m.tlv(m.SEQ, m.oid(signing.ECDSA_OIDS[self.digest]))
        return device.request(
            content,
            message_type,
            digest=self.digest,
            signature_algorithm=algorithm,
            **self._signing(),
        )

    def enrollment(self, endpoint: Endpoint, csr: bytes | None = None) -> Request:
        csr = self.csr(endpoint.challenge) if csr is None else csr
        return self.request(sealed(endpoint, csr))

    def opened(
        self, endpoint: Endpoint, reply: CertRep, password: str | None = None
    ) -> x509.Certificate:
        """The certificate of a SUCCESS that the challenge opens, and nothing else."""
        assert reply.status is PkiStatus.SUCCESS, (reply.fail_info, reply.fail_info_text)
        envelope = read_envelope(reply.signed.content)
        assert not envelope.recipients
        assert unwrap_with_password(envelope, ["another"]) is None
        found = unwrap_with_password(envelope, [password or endpoint.challenge])
        assert found is not None
        (der,) = read_certificates(envelope.decrypt(found[1]))
        made = x509.load_der_x509_certificate(der)
        made.verify_directly_issued_by(endpoint.ca)
        return made


@pytest.fixture(scope="module")
def anytime(wide: System) -> Endpoint:
    return Endpoint.of(wide, "anytime")


@pytest.fixture(scope="module")
def password(wide: System) -> Endpoint:
    """The profile that opens what is encrypted to its challenge."""
    return Endpoint.of(wide, "password")


@pytest.mark.parametrize("curve", CURVES)
def test_an_ec_device_enrolls_and_reads_the_answer_by_its_challenge(
    wide: System, anytime: Endpoint, curve: str
) -> None:
    device = EcDevice.new(curve)
    request = device.enrollment(anytime)
    made = device.opened(anytime, ask(anytime, request))
    assert made.public_key() == device.identity.key.public_key()
    usage = made.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.digital_signature, usage.key_encipherment) == (True, False)
    for gateway in (1, 2):
        endpoint = Endpoint.of(wide, "anytime", gateway)
        assert device.opened(endpoint, ask(endpoint, request)) == made


def test_openssl_opens_the_answer_with_the_challenge(anytime: Endpoint, tmp_path: Path) -> None:
    openssl = need("openssl", "openssl")
    device = EcDevice.new()
    reply = ask(anytime, device.enrollment(anytime))
    (tmp_path / "envelope.der").write_bytes(reply.signed.content)
    command = [openssl, "cms", "-decrypt", "-inform", "DER", "-in", "envelope.der", "-binary"]
    command += ["-pwri_password", anytime.challenge, "-out", "certificates.der"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (der,) = read_certificates((tmp_path / "certificates.der").read_bytes())
    assert x509.load_der_x509_certificate(der) == device.opened(anytime, reply)


def test_without_a_challenge_it_is_a_bad_alg_that_says_so_and_nothing_is_on_the_log(
    wide: System, anytime: Endpoint
) -> None:
    device = EcDevice.new()
    reply = ask(anytime, device.enrollment(anytime, device.csr("")))
    assert (reply.status, reply.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_ALG)
    assert "challenge" in reply.fail_info_text
    later = Device.new()
    enroll(anytime, later)
    recorded(wide, later, "issued")
    assert listed(wide, "--search", device.transaction.decode()) == []


def test_a_wrong_challenge_is_refused_as_for_any_device(wide: System, anytime: Endpoint) -> None:
    device = EcDevice.new()
    reply = ask(anytime, device.enrollment(anytime, device.csr("wrong")))
    assert reply.fail_info is FAIL_INFO[Reason.CHALLENGE_WRONG]
    line = recorded(wide, device, "rejected")  # type: ignore[arg-type]
    assert line["result"] == Reason.CHALLENGE_WRONG


def test_a_curve_that_the_profile_does_not_allow_is_a_bad_alg_on_record(
    wide: System, anytime: Endpoint
) -> None:
    device = EcDevice.new("P-521")
    reply = ask(anytime, device.enrollment(anytime))
    assert reply.fail_info is FailInfo.BAD_ALG
    line = recorded(wide, device, "rejected")  # type: ignore[arg-type]
    assert line["result"] == Reason.KEY_NOT_ALLOWED


def test_an_ec_device_cannot_poll_for_there_is_nothing_to_encrypt_to(anytime: Endpoint) -> None:
    device = EcDevice.new()
    ask(anytime, device.enrollment(anytime))
    payload = m.tlv(m.SEQ, anytime.ca.subject.public_bytes(), m.DEVICE_NAME)
    reply = ask(anytime, device.request(sealed(anytime, payload), b"20"))
    assert reply.fail_info is FailInfo.BAD_ALG


@pytest.mark.parametrize("message_type", [RENEWAL_REQ, PKCS_REQ])
def test_an_ec_certificate_is_renewed(anytime: Endpoint, message_type: bytes) -> None:
    """With its own key: the reply to another one's would be under a password not its own."""
    device = EcDevice.new()
    old = device.opened(anytime, ask(anytime, device.enrollment(anytime)))
    holder = EcDevice(m.EcIdentity(device.identity.key, old), "sha256", device.transaction)
    csr = holder.csr(anytime.challenge)
    reply = ask(anytime, holder.request(sealed(anytime, csr), message_type))
    assert holder.opened(anytime, reply).serial_number != old.serial_number

    other = holder.csr(anytime.challenge, ec.generate_private_key(ec.SECP256R1()))
    reply = ask(anytime, holder.request(sealed(anytime, other), message_type))
    assert reply.fail_info is FailInfo.BAD_ALG


@pytest.mark.parametrize("message_type", [RENEWAL_REQ, PKCS_REQ])
def test_a_new_ec_key_comes_by_a_request_to_the_challenge(
    password: Endpoint, message_type: bytes
) -> None:
    device = EcDevice.new()
    old = device.opened(password, ask(password, device.enrollment(password)))
    holder = EcDevice(m.EcIdentity(device.identity.key, old), "sha256", device.transaction)
    key = ec.generate_private_key(ec.SECP256R1())
    content = to_password(holder.csr(password.challenge, key), password.challenge)
    reply = ask(password, holder.request(content, message_type))
    assert holder.opened(password, reply).public_key() == key.public_key()


@pytest.mark.parametrize("digest", ["sha384", "sha512"])
def test_an_ec_device_signs_with_longer_digests_too(anytime: Endpoint, digest: str) -> None:
    device = EcDevice(EcDevice.new().identity, digest)
    device.opened(anytime, ask(anytime, device.enrollment(anytime)))


def test_a_tampered_ecdsa_signature_is_a_bad_message_check(anytime: Endpoint) -> None:
    device = EcDevice.new()
    request = device.enrollment(anytime)
    changed = request.body[:-1] + bytes([request.body[-1] ^ 1])
    reply = ask(anytime, Request(changed, request.transaction, request.nonce))
    assert reply.fail_info is FailInfo.BAD_MESSAGE_CHECK


# Requests that are encrypted to the challenge


def to_password(payload: bytes, challenge: str, **options: object) -> bytes:
    info = sealing.password_recipient(m.cipher_key("aes256"), challenge, **options)  # type: ignore[arg-type]
    return m.enveloped(payload, info)


@pytest.mark.parametrize("iterations", [1000, 10_000])
@pytest.mark.parametrize("prf", ["sha1", "sha256"])
def test_a_request_to_the_challenge_is_opened_where_the_profile_says_so(
    password: Endpoint, prf: str, iterations: int
) -> None:
    device = EcDevice.new()
    csr = device.csr(password.challenge)
    content = to_password(csr, password.challenge, prf=prf, iterations=iterations)
    device.opened(password, ask(password, device.request(content)))


def test_an_rsa_device_may_encrypt_to_the_challenge_and_reads_the_answer_with_its_key(
    password: Endpoint,
) -> None:
    device = Device.new()
    content = to_password(device.csr(password.challenge), password.challenge)
    certificate(password, device, ask(password, device.request(content)))


def test_with_the_challenge_an_ec_device_polls_and_asks(password: Endpoint) -> None:
    device = EcDevice.new()
    made = device.opened(password, ask(password, device.enrollment(password)))
    poll = m.tlv(m.SEQ, password.ca.subject.public_bytes(), m.DEVICE_NAME)
    get_cert = m.tlv(m.SEQ, password.ca.subject.public_bytes(), m.integer(made.serial_number))
    for payload, kind in ((poll, b"20"), (get_cert, GET_CERT)):
        content = to_password(payload, password.challenge)
        assert device.opened(password, ask(password, device.request(content, kind))) == made


def test_a_request_to_another_password_is_a_bad_message_check(password: Endpoint) -> None:
    device = Device.new()
    content = to_password(device.csr(password.challenge), "another")
    reply = ask(password, device.request(content))
    assert reply.fail_info is FailInfo.BAD_MESSAGE_CHECK
    assert reply.fail_info_text == ""


def test_a_request_to_the_challenge_is_not_opened_where_the_profile_does_not_say_so(
    anytime: Endpoint,
) -> None:
    device = Device.new()
    content = to_password(device.csr(anytime.challenge), anytime.challenge)
    reply = ask(anytime, device.request(content))
    assert reply.fail_info is FailInfo.BAD_MESSAGE_CHECK
