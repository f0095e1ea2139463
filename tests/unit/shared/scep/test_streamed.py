"""Messages in BER as streaming writers emit them: read back, and by openssl."""

from pathlib import Path

import pytest

from shared.scep import cms, envelope, pkimessage, request, signed_data
from shared.scep.algorithms import (
    AES128,
    AES256_GCM,
    PKCS1V15,
    SHA256,
    AlgorithmPolicy,
    AnyCipher,
)
from shared.scep.asn1 import Der
from shared.scep.certificate import Certificate
from shared.scep.envelope import ContentEncryption
from shared.scep.password import Password
from shared.scep.pkimessage import MessageType
from shared.scep.request import RequestHead
from shared.scep.schemes import ECDSA_SIGNATURE
from shared.scep.signed_data import Signer
from shared.scep.streamed import streamed
from tests.support import messages
from tests.support.messages import CONTENT_KEY, IV, NONCE, Identity, enveloped, recipient
from tests.support.sealing import PASSWORD, SALT, authenticated, password_recipient
from tests.support.signing import ec_device
from tests.unit.shared.scep import oracles

SIZES = [0, 1, 999, 1000, 1001, 5000]
POLICY = AlgorithmPolicy()
UNDER_PASSWORD = Password(PASSWORD, SALT, IV, IV)
each_cipher = pytest.mark.parametrize("cipher", [AES128, AES256_GCM], ids=lambda c: c.name)


def how(cipher: AnyCipher) -> ContentEncryption:
    return ContentEncryption(cipher, PKCS1V15, CONTENT_KEY[: cipher.key_size], IV[: cipher.iv_size])


def written(
    by: Signer, to: Certificate | Password, cipher: AnyCipher, payload: bytes = b"payload"
) -> bytes:
    head = RequestHead("1", NONCE, SHA256)
    kind = MessageType.PKCS_REQ
    return request.write_request(kind, payload, head, to, how(cipher), by, ber=True)


@pytest.mark.parametrize("size", SIZES)
def test_signature_holds_over_streamed_content(device: Identity, size: int) -> None:
    content = bytes(range(256)) * 20
    der = messages.signed(content[:size], device)
    ber = streamed(der)
    assert ber[1] == 0x80
    assert oracles.openssl_verified(ber) == content[:size]
    found = cms.read_der_or_ber(ber, signed_data.read_signed_data)
    signed_data.verify(found)
    assert found == cms.read_der_or_ber(der, signed_data.read_signed_data)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seal", [enveloped, authenticated], ids=["CBC", "GCM"])
def test_streamed_envelope_is_the_same_envelope(ra: Identity, seal: object, size: int) -> None:
    assert callable(seal)
    der = seal(bytes(size), recipient(ra), password_recipient(CONTENT_KEY, iterations=2))
    ber = streamed(der)
    assert ber[1] == 0x80
    assert envelope.read_envelope(ber) == envelope.read_envelope(der)
    assert envelope.read_envelope(ber).decrypt(CONTENT_KEY) == bytes(size)


@each_cipher
def test_openssl_reads_the_streamed_request(
    device: Identity, ra: Identity, tmp_path: Path, cipher: AnyCipher
) -> None:
    message = written(device.signer, ra.certificate, cipher, bytes(3000))
    inner = oracles.openssl_verified(message)
    assert message[1] == inner[1] == 0x80
    assert oracles.openssl_decrypted(inner, ra, tmp_path) == bytes(3000)


@each_cipher
def test_request_of_an_ec_key_under_a_password_opens(cipher: AnyCipher) -> None:
    """RFC 8894 s3.1: neither side of it needs an RSA key."""
    by = ec_device()
    signer = Signer(by.key, by.certificate, ECDSA_SIGNATURE)
    message = pkimessage.read_message(written(signer, UNDER_PASSWORD, cipher))
    pkimessage.verify(message, POLICY)
    assert message.signer == by.certificate
    found = pkimessage.read_envelope(message, POLICY)
    opened = pkimessage.unwrap_with_password(found, ["other", PASSWORD])
    assert opened == (PASSWORD, CONTENT_KEY[: cipher.key_size])
    assert found.decrypt(opened[1]) == b"payload"


def test_openssl_reads_the_request_of_an_ec_key_under_a_password() -> None:
    by = ec_device()
    signer = Signer(by.key, by.certificate, ECDSA_SIGNATURE)
    inner = oracles.openssl_verified(written(signer, UNDER_PASSWORD, AES128))
    opened = oracles.openssl(
        *("cms", "-decrypt", "-binary", "-inform", "DER", "-pwri_password", PASSWORD),
        stdin=inner,
    )
    assert opened == b"payload"


def test_signed_bytes_are_not_touched(device: Identity) -> None:
    """Signed attributes and certificates stay as they are."""
    der = messages.signed(bytes(3000), device)
    attributes = cms.read_der_or_ber(der, signed_data.read_signed_data).signed_attrs
    ber = streamed(der)
    assert device.der in ber
    assert attributes in ber
    assert Der(attributes).element() in ber
