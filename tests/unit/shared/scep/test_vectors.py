"""Requests that real clients sent, read to the last field."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from shared.scep import algorithms, pkimessage
from shared.scep.algorithms import AlgorithmPolicy
from shared.scep.errors import FailInfo, ScepError
from shared.scep.pkimessage import MessageType, PkiMessage
from shared.x509.csr import CertificationRequest, read_csr, verify_self_signature
from shared.x509.names import GeneralName, name_text
from tests.support.messages import NULL, PRINTABLE, SEQ, Identity, oid, tlv
from tests.unit.shared.scep.oracles import openssl_decrypted, openssl_verified
from tests.unit.shared.scep.vectors import message_bytes, recorded, recorded_ra

SHA1_RSA, SHA256_RSA, SHA512_RSA = (
    tlv(SEQ, oid(f"1.2.840.113549.1.1.{last}"), NULL) for last in (5, 11, 13)
)
LEGACY: Final = AlgorithmPolicy(legacy=True)
STRONGSWAN_ID: Final = b"418DD0D7D1F0F106C7994B5FA9880FE6053DDAC0"
CERTMONGER_ID: Final = (
    b"18621054454589895805271318387904660304735395456658212990418417096717882074736"
)


@dataclass(frozen=True)
class Expected:
    """What a recorded request says; CSR signatures of strongSwan use the message's digest."""

    transaction_id: bytes
    digest: str
    cipher: str
    subject: str
    sans: tuple[str, ...]
    csr_signature: bytes = SHA256_RSA
    message_type: MessageType = MessageType.PKCS_REQ


def scepclient(message_type: MessageType) -> Expected:
    return Expected(
        b"lqYgRtWfKXHEH1/q14z8Nk3vBRE=",
        "sha1",
        "des",
        "C=US, O=scep-client, OU=MDM, CN=gdev",
        (),
        message_type=message_type,
    )


def strongswan(digest: str, cipher: str, csr_signature: bytes = SHA256_RSA) -> Expected:
    return Expected(
        STRONGSWAN_ID,
        digest,
        cipher,
        "C=NL, O=Lab, CN=pki-dev1",
        ("pki-dev1.example",),
        csr_signature,
    )


def certmonger(transaction_id: bytes) -> Expected:
    return Expected(transaction_id, "sha256", "aes256", "CN=cm-dev1, O=Lab", ("cm-dev1.example",))


EXPECTED: Final = {
    "scepclient/0002-PKIOperation.der": scepclient(MessageType.PKCS_REQ),
    "scepclient/0005-PKIOperation.der": scepclient(MessageType.RENEWAL_REQ),
    "strongswan-pki/0001-PKIOperation.der": strongswan("sha1", "aes128", SHA1_RSA),
    "strongswan-pki/0003-PKIOperation.der": strongswan("sha256", "aes128"),
    "strongswan-pki/0005-PKIOperation.der": strongswan("sha512", "aes128", SHA512_RSA),
    "strongswan-pki/0007-PKIOperation.der": strongswan("sha1", "des3", SHA1_RSA),
    "strongswan-pki/0009-PKIOperation.der": strongswan("sha256", "des3"),
    "strongswan-pki/0011-PKIOperation.der": strongswan("sha512", "des3", SHA512_RSA),
    "strongswan-pki/0013-PKIOperation.der": Expected(
        b"84242744DD2CAABFA39A10E9599CEE6EBAB18668",
        "sha256",
        "aes128",
        "C=NL, O=Lab, CN=pki-dev1",
        ("pki-dev1.example",),
        message_type=MessageType.RENEWAL_REQ,
    ),
    "certmonger/0004-PKIOperation.http": certmonger(CERTMONGER_ID),
    "certmonger/0006-PKIOperation.http": certmonger(CERTMONGER_ID),
    "certmonger/0008-PKIOperation.http": certmonger(
        b"95547154166560958380940899209329329855163978817030071417357861887832433578557"
    ),
}
RENEWED_BY_CERTIFICATE: Final = (
    "scepclient/0005-PKIOperation.der",
    "strongswan-pki/0013-PKIOperation.der",
)
each_vector = pytest.mark.parametrize("vector", EXPECTED)


@pytest.fixture(scope="module")
def lab_ra() -> Identity:
    return recorded_ra()


def opened(vector: str, ra: Identity) -> tuple[PkiMessage, bytes]:
    message = pkimessage.read_message(message_bytes(vector))
    pkimessage.verify(message, LEGACY)
    envelope = pkimessage.read_envelope(message, LEGACY)
    key = pkimessage.unwrap_content_key(envelope, [ra.decryption], bytes(32))
    return message, envelope.decrypt(key)


def request_in(vector: str, ra: Identity) -> CertificationRequest:
    return read_csr(opened(vector, ra)[1])


def test_every_recorded_request_is_expected() -> None:
    assert set(recorded()) == set(EXPECTED)


@each_vector
def test_message_says_what_the_client_meant(vector: str, lab_ra: Identity) -> None:
    expected = EXPECTED[vector]
    message, _ = opened(vector, lab_ra)
    assert message.message_type == expected.message_type
    assert message.transaction_id.tag == PRINTABLE
    assert message.transaction_id.value == expected.transaction_id
    assert len(message.sender_nonce) == 16
    assert message.digest.name == expected.digest
    envelope = pkimessage.read_envelope(message, LEGACY)
    assert envelope.cipher.name == expected.cipher
    (recipient,) = envelope.recipients
    assert recipient.transport is algorithms.PKCS1V15
    assert recipient.serial == lab_ra.certificate.serial


@each_vector
def test_csr_says_what_the_client_meant(vector: str, lab_ra: Identity) -> None:
    expected = EXPECTED[vector]
    request = request_in(vector, lab_ra)
    verify_self_signature(request)
    assert request.challenge == "sekret"
    assert name_text(request.subject) == expected.subject
    assert request.sans == tuple(GeneralName("dns", san) for san in expected.sans)
    assert request.signature_algorithm == expected.csr_signature
    assert isinstance(request.public_key, rsa.RSAPublicKey)
    assert request.public_key.key_size == 2048


@each_vector
def test_signer_is_the_requested_key_or_the_certificate_to_renew(
    vector: str, lab_ra: Identity
) -> None:
    message, plaintext = opened(vector, lab_ra)
    issued_by_the_lab = message.signer.issuer == lab_ra.certificate.subject
    assert issued_by_the_lab is (vector in RENEWED_BY_CERTIFICATE)
    if not issued_by_the_lab:
        assert message.signer.spki == read_csr(plaintext).spki


@each_vector
def test_openssl_opens_it_to_the_same_bytes(vector: str, lab_ra: Identity, tmp_path: Path) -> None:
    message, plaintext = opened(vector, lab_ra)
    content = openssl_verified(message_bytes(vector))
    assert message.signed.content == content
    assert openssl_decrypted(content, lab_ra, tmp_path) == plaintext


@each_vector
def test_profile_without_legacy_refuses_old_algorithms(vector: str) -> None:
    expected = EXPECTED[vector]
    message = pkimessage.read_message(message_bytes(vector))
    refused = []
    for step in (pkimessage.verify, pkimessage.read_envelope):
        try:
            step(message, AlgorithmPolicy())
        except ScepError as error:
            refused.append(error.fail_info)
    old = [expected.digest == "sha1", expected.cipher in ("des", "des3")]
    assert refused == [FailInfo.BAD_ALG] * sum(old)


@each_vector
def test_changed_byte_of_the_envelope_is_refused(vector: str) -> None:
    data = bytearray(message_bytes(vector))
    message = pkimessage.read_message(bytes(data))
    data[data.index(message.signed.content) + len(message.signed.content) // 2] ^= 1
    with pytest.raises(ScepError) as caught:
        pkimessage.verify(pkimessage.read_message(bytes(data)), LEGACY)
    assert caught.value.fail_info is FailInfo.BAD_MESSAGE_CHECK


def test_vector_cut_anywhere_is_refused() -> None:
    data = message_bytes("strongswan-pki/0003-PKIOperation.der")
    for end in range(len(data)):
        with pytest.raises(ScepError):
            pkimessage.read_message(data[:end])
