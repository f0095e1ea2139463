from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from shared.scep import algorithms, envelope
from shared.scep.algorithms import CIPHERS, PKCS1V15, SHA1, SHA256, ContentCipher, KeyTransport
from shared.scep.certificate import read_certificate
from shared.scep.envelope import ContentEncryption
from shared.scep.errors import FailInfo, ScepError
from tests.support import messages
from tests.support.messages import (
    CONTENT_KEY,
    DATA,
    ENVELOPED,
    IV,
    NULL,
    SEQ,
    SET,
    TRANSPORTS,
    Identity,
    certificate,
    cipher_key,
    enveloped,
    integer,
    oid,
    recipient,
    tlv,
)
from tests.unit.shared.scep import oracles

CONTENT = bytes(range(256)) * 9
FORMS = ["primitive", "constructed", "ber"]
OPENSSL_CIPHERS = {"aes128": "-aes128", "aes192": "-aes192", "aes256": "-aes256"}
OPENSSL_CIPHERS |= {"des3": "-des3", "des": "-des"}
OAEP_SHA256 = ("-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256")
OPENSSL_TRANSPORTS = {
    "pkcs1v15": ((), PKCS1V15),
    "oaep": (("-keyopt", "rsa_padding_mode:oaep"), KeyTransport("oaep")),
    "oaep-sha256": (OAEP_SHA256, KeyTransport("oaep", SHA256, SHA256)),
}


def sealing(cipher: ContentCipher, transport: KeyTransport = PKCS1V15) -> ContentEncryption:
    return ContentEncryption(
        cipher, transport, CONTENT_KEY[: cipher.key_size], IV[: cipher.block_size]
    )


def raw_recipient(ra: Identity) -> bytes:
    """A recipient whose key need not be decrypted."""
    return recipient(ra, encrypted_key=bytes(256))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cipher", messages.CIPHERS)
def test_every_cipher_in_every_form_is_read(ra: Identity, cipher: str, form: str) -> None:
    """Primitive, constructed with a definite length (Go), BER in segments (BouncyCastle)."""
    message = enveloped(CONTENT, raw_recipient(ra), cipher=cipher, form=form)
    found = envelope.read_envelope(message)
    assert found.cipher.name == cipher
    assert found.decrypt(cipher_key(cipher)) == CONTENT


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_recipient_is_read(ra: Identity, transport: str) -> None:
    info = recipient(ra, transport=transport, encrypted_key=b"wrapped")
    (found,) = envelope.read_envelope(enveloped(CONTENT, info)).recipients
    assert tlv(SEQ, found.issuer or b"", tlv(2, found.serial or b"")) == ra.issuer_and_serial
    assert found.key_id is None
    assert found.encrypted_key == b"wrapped"
    assert found.transport.scheme == transport[: len(found.transport.scheme)]


def test_recipient_by_key_id_is_read(ra: Identity) -> None:
    info = recipient(ra, sid=tlv(0x80, ra.key_id), encrypted_key=b"wrapped")
    (found,) = envelope.read_envelope(enveloped(CONTENT, info)).recipients
    assert (found.issuer, found.serial, found.key_id) == (None, None, ra.key_id)


def test_recipients_keep_their_order_and_other_kinds_are_passed_over(
    ra: Identity, old_ra: Identity
) -> None:
    """KeyAgree, KEK and Other infos carry context tags."""
    others = [tlv(tag, integer(3)) for tag in (0xA1, 0xA2, 0xA4)]
    infos = [others[0], raw_recipient(old_ra), others[1], raw_recipient(ra), others[2]]
    found = envelope.read_envelope(enveloped(CONTENT, *infos)).recipients
    serials = [each.serial for each in found]
    assert serials == [old_ra.certificate.serial, ra.certificate.serial]


def test_envelope_without_recipients_is_read(ra: Identity) -> None:
    assert envelope.read_envelope(enveloped(CONTENT)).recipients == ()
    assert len(envelope.read_envelope(enveloped(CONTENT, raw_recipient(ra))).recipients) == 1


def test_hundreds_of_recipients_are_refused(ra: Identity) -> None:
    with pytest.raises(ScepError):
        envelope.read_envelope(enveloped(CONTENT, *[raw_recipient(ra)] * 200))


def test_originator_info_is_passed_over(ra: Identity) -> None:
    algorithm = tlv(SEQ, oid(messages.CIPHERS["aes256"][0]), tlv(4, IV))
    encrypted = tlv(SEQ, DATA, algorithm, tlv(0x80, messages.encrypt("aes256", CONTENT)))
    body = tlv(
        SEQ, integer(2), tlv(0xA0, tlv(0xA0, ra.der)), tlv(SET, raw_recipient(ra)), encrypted
    )
    found = envelope.read_envelope(tlv(SEQ, ENVELOPED, tlv(0xA0, body)))
    assert found.decrypt(CONTENT_KEY) == CONTENT


def test_several_definite_segments_are_joined(ra: Identity) -> None:
    ciphertext = messages.encrypt("aes256", CONTENT)
    whole = tlv(0x80, ciphertext)
    split = tlv(0xA0, *(tlv(4, ciphertext[i : i + 99]) for i in range(0, len(ciphertext), 99)))
    message = enveloped(CONTENT, raw_recipient(ra))
    head = message[: -len(whole)]
    assert message == head + whole
    algorithm = tlv(SEQ, oid(messages.CIPHERS["aes256"][0]), tlv(4, IV))
    encrypted = tlv(SEQ, DATA, algorithm, split)
    body = tlv(SEQ, integer(0), tlv(SET, raw_recipient(ra)), encrypted)
    found = envelope.read_envelope(tlv(SEQ, ENVELOPED, tlv(0xA0, body)))
    assert found.ciphertext == ciphertext


@pytest.mark.parametrize("cipher", messages.CIPHERS)
def test_every_way_to_fail_decryption_says_the_same(ra: Identity, cipher: str) -> None:
    """Neither the words nor failInfo tell a wrong key from wrong padding or a wrong length."""
    key, block = cipher_key(cipher), messages.CIPHERS[cipher][2]
    good = messages.encrypt(cipher, CONTENT)
    attempts = [
        (good, key[:-1]),
        (good, key + b"\0"),
        (good, b""),
        (good, key * 2),
        (good[:-1], key),
        (good[:-block], key),
        (good[:-1] + bytes([good[-1] ^ 1]), key),
        (b"", key),
        (b"x", key),
    ]
    said = set()
    for ciphertext, used in attempts:
        message = enveloped(b"", raw_recipient(ra), cipher=cipher, ciphertext=ciphertext)
        with pytest.raises(ScepError) as caught:
            envelope.read_envelope(message).decrypt(used)
        said.add((str(caught.value), caught.value.detail, caught.value.fail_info))
    ((_, _, fail_info),) = said
    assert fail_info is FailInfo.BAD_MESSAGE_CHECK


@pytest.mark.parametrize(
    "algorithm",
    [
        tlv(SEQ, oid("2.16.840.1.101.3.4.1.6"), tlv(SEQ, tlv(4, IV[:12]))),
        tlv(SEQ, oid("1.2.840.113549.3.2"), tlv(SEQ, integer(58), tlv(4, IV[:8]))),
        tlv(SEQ, oid("1.2.3"), NULL),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_unknown_cipher_is_bad_alg(ra: Identity, algorithm: bytes, form: str) -> None:
    message = enveloped(CONTENT, raw_recipient(ra), algorithm=algorithm, form=form)
    with pytest.raises(ScepError) as caught:
        envelope.read_envelope(message)
    assert caught.value.fail_info is FailInfo.BAD_ALG


def test_unknown_key_transport_is_bad_alg(ra: Identity) -> None:
    info = tlv(SEQ, integer(0), ra.issuer_and_serial, tlv(SEQ, oid("1.2.3")), tlv(4, b"wrapped"))
    with pytest.raises(ScepError) as caught:
        envelope.read_envelope(enveloped(CONTENT, info))
    assert caught.value.fail_info is FailInfo.BAD_ALG


@pytest.mark.parametrize("data", [b"", b"\x30\x00", messages.certs_only(), b"\0" * 100])
def test_what_is_no_envelope_is_refused(data: bytes) -> None:
    with pytest.raises(ScepError):
        envelope.read_envelope(data)


def test_envelope_without_content_is_refused(ra: Identity) -> None:
    algorithm = tlv(SEQ, oid(messages.CIPHERS["aes256"][0]), tlv(4, IV))
    body = tlv(SEQ, integer(0), tlv(SET, raw_recipient(ra)), tlv(SEQ, DATA, algorithm))
    with pytest.raises(ScepError):
        envelope.read_envelope(tlv(SEQ, ENVELOPED, tlv(0xA0, body)))


@pytest.mark.parametrize("form", FORMS)
def test_envelope_cut_anywhere_is_refused(ra: Identity, form: str) -> None:
    message = enveloped(b"short", raw_recipient(ra), form=form)
    for end in range(len(message)):
        with pytest.raises(ScepError):
            envelope.read_envelope(message[:end])


@pytest.mark.parametrize("transport", OPENSSL_TRANSPORTS)
@pytest.mark.parametrize(
    ("cipher", "streaming"),
    [("aes128", False), ("aes192", True), ("aes256", True), ("des3", False), ("des", True)],
)
def test_what_openssl_encrypts_is_read(
    ra: Identity,
    tmp_path: Path,
    cipher: str,
    streaming: bool,  # noqa: FBT001
    transport: str,
) -> None:
    options, expected = OPENSSL_TRANSPORTS[transport]
    pem, _ = oracles.write_pem(ra, tmp_path)
    message = oracles.openssl(
        *("cms", "-encrypt", "-binary", "-outform", "DER", *oracles.LEGACY),
        *(OPENSSL_CIPHERS[cipher], "-stream" if streaming else "-noindef"),
        *("-recip", pem, *options),
        stdin=CONTENT,
    )
    assert (message[1] == 0x80) is streaming
    found = envelope.read_envelope(message)
    assert found.cipher.name == cipher
    (info,) = found.recipients
    assert info.transport == expected
    key = ra.key.decrypt(info.encrypted_key, info.transport.padding())
    assert found.decrypt(key) == CONTENT


def test_key_id_recipient_of_openssl_is_read(ra: Identity, tmp_path: Path) -> None:
    pem, _ = oracles.write_pem(ra, tmp_path)
    message = oracles.openssl(
        *("cms", "-encrypt", "-binary", "-outform", "DER", "-aes128", "-keyid", "-recip", pem),
        stdin=CONTENT,
    )
    (info,) = envelope.read_envelope(message).recipients
    assert info.key_id == ra.key_id


@pytest.mark.parametrize(
    "transport", [v[1] for v in OPENSSL_TRANSPORTS.values()], ids=list(OPENSSL_TRANSPORTS)
)
@pytest.mark.parametrize("cipher", CIPHERS.values(), ids=lambda c: c.name)
def test_openssl_decrypts_what_is_written(
    device: Identity, tmp_path: Path, cipher: ContentCipher, transport: KeyTransport
) -> None:
    written = envelope.write_envelope(CONTENT, device.certificate, sealing(cipher, transport))
    assert oracles.openssl_decrypted(written, device, tmp_path) == CONTENT


def test_written_fields_are_strict_der(device: Identity) -> None:
    written = envelope.write_envelope(CONTENT, device.certificate, sealing(algorithms.AES192))
    data = oracles.enveloped_data(written)
    assert data["version"].native == "v0"
    assert data["originator_info"].native is None
    (info,) = data["recipient_infos"]
    assert info.name == "ktri"
    assert info.chosen["version"].native == "v0"
    assert info.chosen["rid"].chosen.dump() == device.issuer_and_serial
    assert info.chosen["key_encryption_algorithm"].dump() == messages.RSA
    content = data["encrypted_content_info"]
    assert content["content_type"].native == "data"
    algorithm = content["content_encryption_algorithm"]
    assert algorithm["algorithm"].native == "aes192_cbc"
    assert algorithm["parameters"].native == IV
    assert content["encrypted_content"].native == messages.encrypt("aes192", CONTENT)
    assert data["unprotected_attrs"].native is None
    assert tlv(SEQ, ENVELOPED, data.dump(force=True)) == written


def test_empty_content_goes_both_ways(device: Identity, tmp_path: Path) -> None:
    written = envelope.write_envelope(b"", device.certificate, sealing(algorithms.AES128))
    assert oracles.openssl_decrypted(written, device, tmp_path) == b""
    assert envelope.read_envelope(written).decrypt(CONTENT_KEY[:16]) == b""


def test_ec_recipient_is_bad_alg(ec_key: ec.EllipticCurvePrivateKey) -> None:
    made = certificate("ec", ec_key.public_key(), None, 5).sign(ec_key, hashes.SHA256())
    to = read_certificate(made.public_bytes(serialization.Encoding.DER))
    with pytest.raises(ScepError) as caught:
        envelope.write_envelope(CONTENT, to, sealing(algorithms.AES128))
    assert caught.value.fail_info is FailInfo.BAD_ALG


def test_recipient_key_too_short_for_the_padding_is_bad_alg(device: Identity) -> None:
    """OAEP with SHA-512 wants 130 bytes more than the content key."""
    key = rsa.generate_private_key(65537, 1024)
    made = certificate("short", key.public_key(), None, 5).sign(device.key, hashes.SHA256())
    to = read_certificate(made.public_bytes(serialization.Encoding.DER))
    transport = KeyTransport("oaep", algorithms.SHA512, SHA1)
    with pytest.raises(ScepError) as caught:
        envelope.write_envelope(CONTENT, to, sealing(algorithms.AES256, transport))
    assert caught.value.fail_info is FailInfo.BAD_ALG


@pytest.mark.parametrize("exponent", [0, 1, 2, (1 << 64) + 1, (1 << 4000) + 1], ids=int.bit_length)
@pytest.mark.parametrize("modulus", [15, (1 << 2047) + 1, (1 << 4095) + 1], ids=int.bit_length)
def test_odd_recipient_keys_give_an_envelope_or_bad_alg(
    device: Identity, modulus: int, exponent: int
) -> None:
    numbers = tlv(SEQ, integer(modulus), integer(exponent))
    spki = tlv(SEQ, messages.RSA, tlv(3, b"\0", numbers))
    to = device.certificate
    odd = type(to)(to.der, to.issuer, to.serial, to.subject, spki, None)
    try:
        written = envelope.write_envelope(CONTENT, odd, sealing(algorithms.AES128))
        outcome = envelope.read_envelope(written).decrypt(CONTENT_KEY[:16])
    except ScepError as refused:
        outcome = refused.fail_info
    assert outcome in (CONTENT, FailInfo.BAD_ALG)
