from pathlib import Path

import pytest

from shared.scep import pkimessage, request
from shared.scep.algorithms import (
    AES128,
    AES256,
    DES3,
    DIGESTS,
    PKCS1V15,
    SHA1,
    SHA256,
    AlgorithmPolicy,
    ContentCipher,
    Digest,
    KeyTransport,
)
from shared.scep.asn1 import PRINTABLE_STRING
from shared.scep.envelope import ContentEncryption
from shared.scep.pkimessage import MessageType, TransactionId
from shared.scep.request import RequestHead
from shared.x509.csr import read_csr
from tests.support.messages import (
    CONTENT_KEY,
    DEVICE_NAME,
    IV,
    NONCE,
    PRINTABLE,
    RSA,
    SCEP,
    SEQ,
    Identity,
    device_csr,
    tlv,
)
from tests.unit.shared.scep import oracles

REQUESTS = [kind for kind in MessageType if kind is not MessageType.CERT_REP]
TRANSPORTS = [PKCS1V15, KeyTransport("oaep"), KeyTransport("oaep", SHA256, SHA256)]


def written(
    device: Identity,
    ra: Identity,
    *,
    message_type: MessageType = MessageType.PKCS_REQ,
    payload: bytes = b"payload",
    digest: Digest = SHA256,
    cipher: ContentCipher = AES256,
    transport: KeyTransport = PKCS1V15,
) -> bytes:
    return request.write_request(
        message_type,
        payload,
        RequestHead("4711=", NONCE, digest),
        ra.certificate,
        ContentEncryption(
            cipher, transport, CONTENT_KEY[: cipher.key_size], IV[: cipher.block_size]
        ),
        device.signer,
    )


@pytest.mark.parametrize("message_type", REQUESTS)
@pytest.mark.parametrize("digest", DIGESTS.values(), ids=lambda d: d.name)
def test_request_fields_are_those_of_rfc_8894(
    device: Identity, ra: Identity, message_type: MessageType, digest: Digest
) -> None:
    data = oracles.signed_data(written(device, ra, message_type=message_type, digest=digest))
    (info,) = data["signer_infos"]
    attributes = oracles.attributes(info)
    assert attributes[SCEP + "2"] == (PRINTABLE, str(message_type.value).encode())
    assert attributes[SCEP + "7"] == (PRINTABLE, b"4711=")
    assert attributes[SCEP + "5"] == (0x04, NONCE)
    content = data["encap_content_info"]["content"].native
    assert attributes["1.2.840.113549.1.9.4"] == (0x04, digest.of(content))
    assert set(attributes) == {
        "1.2.840.113549.1.9.3",
        "1.2.840.113549.1.9.4",
        *(SCEP + last for last in ("2", "5", "7")),
    }
    assert info["signature_algorithm"].dump() == RSA
    assert info["digest_algorithm"]["algorithm"].native == digest.name
    assert oracles.certificates(data) == [device.der]
    (recipient,) = oracles.enveloped_data(content)["recipient_infos"]
    assert recipient.chosen["rid"].chosen.dump() == ra.issuer_and_serial


@pytest.mark.parametrize("transport", TRANSPORTS, ids=["pkcs1v15", "oaep", "oaep-sha256"])
@pytest.mark.parametrize("cipher", [AES128, AES256, DES3], ids=lambda c: c.name)
def test_openssl_verifies_and_decrypts_the_request(
    device: Identity,
    ra: Identity,
    tmp_path: Path,
    cipher: ContentCipher,
    transport: KeyTransport,
) -> None:
    payload = device_csr(device)
    message = written(device, ra, payload=payload, cipher=cipher, transport=transport)
    inner = oracles.openssl_verified(message)
    assert oracles.openssl_decrypted(inner, ra, tmp_path) == payload


def test_request_opens_with_the_codec(device: Identity, ra: Identity) -> None:
    payload = device_csr(device)
    policy = AlgorithmPolicy(legacy=True)
    message = pkimessage.read_message(
        written(device, ra, payload=payload, digest=SHA1, cipher=DES3)
    )
    pkimessage.verify(message, policy)
    assert message.message_type == MessageType.PKCS_REQ
    assert message.transaction_id == TransactionId(PRINTABLE_STRING, b"4711=")
    assert message.sender_nonce == NONCE
    assert (message.digest, message.signer) == (SHA1, device.certificate)
    envelope = pkimessage.read_envelope(message, policy)
    key = pkimessage.unwrap_content_key(envelope, [ra.decryption], bytes(32))
    assert read_csr(envelope.decrypt(key)).subject == DEVICE_NAME


def test_poll_names_issuer_and_subject() -> None:
    issuer = tlv(SEQ, b"\x31\x00")
    payload = request.issuer_and_subject(issuer, DEVICE_NAME)
    assert payload == tlv(SEQ, issuer, DEVICE_NAME)
