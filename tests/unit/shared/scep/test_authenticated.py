"""AuthEnvelopedData: AES-GCM, what it authenticates, and what must not stand in its place."""

from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.scep import algorithms, envelope, pkimessage
from shared.scep.algorithms import (
    AES256_GCM,
    AUTHENTICATED_CIPHERS,
    PKCS1V15,
    SHA1,
    SHA256,
    AlgorithmPolicy,
    AuthenticatedCipher,
    KeyTransport,
)
from shared.scep.asn1 import Der
from shared.scep.envelope import ContentEncryption
from shared.scep.errors import FailInfo, ScepError
from tests.support import messages, sealing
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
    attribute,
    enveloped,
    indefinite,
    integer,
    oid,
    recipient,
    signed,
    tlv,
)
from tests.support.sealing import (
    AUTH_ENVELOPED,
    GCM,
    GCM_NONCE,
    authenticated,
    gcm_id,
    gcm_key,
)
from tests.unit.shared.scep import oracles

CONTENT = bytes(range(256)) * 9
FORMS = ["primitive", "constructed", "ber"]
ATTRIBUTES = attribute("1.2.840.113549.1.9.3", DATA) + attribute("1.2.3", tlv(4, b"x"))
each_cipher = pytest.mark.parametrize("cipher", GCM)
written_by = pytest.mark.parametrize("cipher", AUTHENTICATED_CIPHERS.values(), ids=lambda c: c.name)
OPENSSL = {
    "pkcs1v15": ((), PKCS1V15),
    "oaep": (("rsa_padding_mode:oaep",), KeyTransport("oaep")),
    "oaep-sha256": (
        ("rsa_padding_mode:oaep", "rsa_oaep_md:sha256"),
        KeyTransport("oaep", SHA256, SHA256),
    ),
    "oaep-sha256, MGF1 sha1": (
        ("rsa_padding_mode:oaep", "rsa_oaep_md:sha256", "rsa_mgf1_md:sha1"),
        KeyTransport("oaep", SHA256, SHA1),
    ),
}


def refusal(message: bytes) -> FailInfo:
    with pytest.raises(ScepError) as caught:
        envelope.read_envelope(message)
    return caught.value.fail_info


def opened(message: bytes, key: bytes = CONTENT_KEY) -> bytes:
    return envelope.read_envelope(message).decrypt(key)


def how(cipher: AuthenticatedCipher, transport: KeyTransport = PKCS1V15) -> ContentEncryption:
    return ContentEncryption(cipher, transport, CONTENT_KEY[: cipher.key_size], GCM_NONCE)


# Reading


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("attributes", [b"", ATTRIBUTES], ids=["none", "attributes"])
@each_cipher
def test_every_cipher_in_every_form_is_read(cipher: str, form: str, attributes: bytes) -> None:
    message = authenticated(CONTENT, cipher=cipher, form=form, attributes=attributes)
    found = envelope.read_envelope(message)
    assert found.cipher.name == cipher
    assert found.decrypt(gcm_key(cipher)) == CONTENT


@pytest.mark.parametrize("transport", TRANSPORTS)
@each_cipher
def test_request_under_gcm_opens(
    device: Identity, ra: Identity, cipher: str, transport: str
) -> None:
    key = gcm_key(cipher)
    wrapped = ra.key.public_key().encrypt(key, TRANSPORTS[transport][1])
    info = recipient(ra, transport=transport, encrypted_key=wrapped)
    inner = authenticated(CONTENT, info, cipher=cipher)
    message = pkimessage.read_message(signed(inner, device))
    pkimessage.verify(message, AlgorithmPolicy())
    found = pkimessage.read_envelope(message, AlgorithmPolicy())
    assert pkimessage.unwrap_content_key(found, [ra.decryption], bytes(32)) == key
    assert found.decrypt(key) == CONTENT


def test_each_key_is_tried_where_the_recipient_names_none(
    device: Identity, ra: Identity, old_ra: Identity
) -> None:
    """Here the tag says which of them it was, never the padding."""
    stale = tlv(SEQ, tlv(SEQ), tlv(2, b"\x63"))
    inner = authenticated(CONTENT, recipient(ra, sid=stale))
    found = envelope.read_envelope(inner)
    for keys in ([ra], [old_ra, ra], [old_ra, device, ra]):
        decryption = [each.decryption for each in keys]
        assert pkimessage.unwrap_content_key(found, decryption, bytes(32)) == CONTENT_KEY


@pytest.mark.parametrize("attributes", [b"", ATTRIBUTES], ids=["none", "attributes"])
@pytest.mark.parametrize("size", [12, 13, 14, 15, 16])
def test_tag_of_every_size_that_rfc_5084_has_is_read(size: int, attributes: bytes) -> None:
    message = authenticated(CONTENT, tag_size=size, attributes=attributes)
    assert envelope.read_envelope(message).tag == Der(message).buf[-size:]
    assert opened(message) == CONTENT


def test_tag_is_of_12_octets_where_its_size_is_left_out() -> None:
    algorithm = gcm_id("aes256-gcm", size=None)
    assert opened(authenticated(CONTENT, tag_size=12, algorithm=algorithm)) == CONTENT
    with pytest.raises(ScepError):
        opened(authenticated(CONTENT, tag_size=16, algorithm=algorithm))


@pytest.mark.parametrize("said", [0, 1, 4, 8, 11, 17, 32, 1 << 64])
def test_tag_size_out_of_bounds_is_refused(said: int) -> None:
    """Short tags can be found by trying."""
    algorithm = gcm_id("aes256-gcm", size=said)
    with pytest.raises(ScepError):
        opened(authenticated(CONTENT, algorithm=algorithm, tag=bytes(min(said, 40))))


@pytest.mark.parametrize("size", [0, 4, 12, 15, 17, 32])
def test_tag_of_another_size_than_said_is_refused(size: int) -> None:
    whole = authenticated(CONTENT)[-16:]
    algorithm = gcm_id("aes256-gcm")
    with pytest.raises(ScepError):
        opened(authenticated(CONTENT, algorithm=algorithm, tag=(whole * 2)[:size]))


@pytest.mark.parametrize("size", [0, 8, 11, 13, 16, 200])
def test_nonce_of_another_size_is_refused(size: int) -> None:
    """RFC 5084 s3.2 has 12 octets; others are hashed first, which no one sends."""
    algorithm = gcm_id("aes256-gcm", bytes(size))
    with pytest.raises(ScepError):
        opened(authenticated(CONTENT, algorithm=algorithm))


@pytest.mark.parametrize(
    "parameters", [b"", NULL, tlv(4, GCM_NONCE), tlv(SEQ), tlv(SEQ, integer(16))]
)
def test_missing_nonce_is_refused(parameters: bytes) -> None:
    algorithm = tlv(SEQ, oid(GCM["aes256-gcm"][0]), parameters)
    with pytest.raises(ScepError):
        opened(authenticated(CONTENT, algorithm=algorithm))


# Ciphers of the other kind

CBC_ID = tlv(SEQ, oid(messages.CIPHERS["aes256"][0]), tlv(4, IV))
CCM_ID = tlv(SEQ, oid("2.16.840.1.101.3.4.1.47"), tlv(SEQ, tlv(4, IV[:12]), integer(12)))
CHACHA_ID = tlv(SEQ, oid("1.2.840.113549.1.9.16.3.18"), tlv(4, IV[:12]))


@pytest.mark.parametrize("tag", [b"", tlv(4, bytes(16))], ids=["no tag", "a tag"])
@pytest.mark.parametrize("named", messages.CIPHERS)
def test_cbc_in_auth_enveloped_data_is_bad_alg(named: str, tag: bytes) -> None:
    """Nothing would be authenticated."""
    dotted, _, block, _ = messages.CIPHERS[named]
    algorithm = tlv(SEQ, oid(dotted), tlv(4, IV[:block]))
    assert refusal(sealing.swapped(AUTH_ENVELOPED, algorithm, tag=tag)) is FailInfo.BAD_ALG


@each_cipher
@pytest.mark.parametrize("tag", [b"", tlv(4, bytes(16))], ids=["no tag", "a tag"])
def test_gcm_in_enveloped_data_is_bad_alg(cipher: str, tag: bytes) -> None:
    """The tag would be missing, the content counter mode alone."""
    assert refusal(sealing.swapped(ENVELOPED, gcm_id(cipher), tag=tag)) is FailInfo.BAD_ALG


@pytest.mark.parametrize("algorithm", [CCM_ID, CHACHA_ID], ids=["CCM", "ChaCha20-Poly1305"])
@pytest.mark.parametrize("kind", sealing.ENVELOPES, ids=["Enveloped", "AuthEnveloped"])
def test_other_authenticated_ciphers_are_bad_alg(kind: bytes, algorithm: bytes) -> None:
    tag = tlv(4, bytes(16))
    assert refusal(sealing.swapped(kind, algorithm, tag=tag)) is FailInfo.BAD_ALG


def test_tag_left_out_is_refused() -> None:
    with pytest.raises(ScepError):
        envelope.read_envelope(sealing.swapped(AUTH_ENVELOPED, gcm_id("aes256-gcm")))


# What is authenticated


@pytest.mark.parametrize("form", FORMS)
def test_not_one_octet_of_content_tag_or_attributes_may_change(form: str) -> None:
    message = authenticated(b"content of any size", form=form, attributes=ATTRIBUTES)
    start = message.index(gcm_id("aes256-gcm")) + len(gcm_id("aes256-gcm"))
    end = len(message) - (6 if form == "ber" else 0)
    for at in range(start, end):
        changed = bytearray(message)
        changed[at] ^= 1 << at % 8
        with pytest.raises(ScepError):
            opened(bytes(changed))


def test_attributes_put_in_or_taken_out_are_refused() -> None:
    bare, full = authenticated(CONTENT), authenticated(CONTENT, attributes=ATTRIBUTES)
    for message, other in ((bare, full), (full, bare)):
        tag, wrong = envelope.read_envelope(message).tag, envelope.read_envelope(other).tag
        with pytest.raises(ScepError):
            opened(message.replace(tag, wrong))


def test_attributes_are_authenticated_as_the_set_they_are() -> None:
    """Tagged SET OF, not the `[1]` that stands in the message (RFC 5083 s2.2)."""
    sealed = AESGCM(CONTENT_KEY).encrypt(GCM_NONCE, CONTENT, tlv(0xA1, ATTRIBUTES))
    with pytest.raises(ScepError):
        opened(authenticated(CONTENT, attributes=ATTRIBUTES, tag=sealed[-16:]))
    assert envelope.read_envelope(authenticated(CONTENT, attributes=ATTRIBUTES)).associated == tlv(
        SET, ATTRIBUTES
    )


def test_attributes_in_ber_are_authenticated_as_der() -> None:
    """The bytes of a stream are not those that were authenticated."""
    message = authenticated(CONTENT, attributes=ATTRIBUTES, form="ber")
    streamed = message.replace(tlv(0xA1, ATTRIBUTES), indefinite(0xA1, ATTRIBUTES))
    assert streamed != message
    assert opened(streamed) == CONTENT


def test_unauthenticated_attributes_are_passed_over() -> None:
    message = authenticated(CONTENT)
    body = Der(message).enter(SEQ)
    body.element()
    inner = body.enter(0xA0).value(SEQ) + tlv(0xA2, attribute("1.2.3", NULL))
    assert opened(tlv(SEQ, AUTH_ENVELOPED, tlv(0xA0, tlv(SEQ, inner)))) == CONTENT


@each_cipher
def test_every_way_to_fail_decryption_says_the_same(cipher: str) -> None:
    """A wrong key, a key of the wrong size, a wrong tag: as with the other ciphers."""
    key = gcm_key(cipher)
    good = authenticated(CONTENT, cipher=cipher)
    cbc = enveloped(CONTENT, cipher="aes256", ciphertext=b"x" * 16)
    attempts = [
        (good, key[::-1]),
        (good, key[:-1]),
        (good, key + b"\0"),
        (good, b""),
        (authenticated(CONTENT, cipher=cipher, tag=bytes(16)), key),
        (cbc, CONTENT_KEY),
    ]
    said = set()
    for message, used in attempts:
        with pytest.raises(ScepError) as caught:
            opened(message, used)
        said.add((str(caught.value), caught.value.detail, caught.value.fail_info))
    ((_, _, fail_info),) = said
    assert fail_info is FailInfo.BAD_MESSAGE_CHECK


# Writing


@written_by
def test_cipher_identifier_carries_nonce_and_tag_size(cipher: AuthenticatedCipher) -> None:
    identifier = cipher.identifier(GCM_NONCE)
    assert identifier == gcm_id(cipher.name)
    assert algorithms.read_authenticated_cipher(Der(identifier)) == (cipher, GCM_NONCE, 16)
    assert (cipher.oid, cipher.key_size) == (oid(GCM[cipher.name][0]), GCM[cipher.name][1])


@written_by
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 1000])
def test_cipher_agrees_with_another_api(cipher: AuthenticatedCipher, size: int) -> None:
    key, plaintext = CONTENT_KEY[: cipher.key_size], CONTENT[:size]
    sealed = AESGCM(key).encrypt(GCM_NONCE, plaintext, None)
    assert cipher.encrypt(key, GCM_NONCE, plaintext) == (sealed[:-16], sealed[-16:])
    assert cipher.decrypt(key, GCM_NONCE, sealed[:-16], sealed[-16:], b"") == plaintext
    with pytest.raises(InvalidTag):
        AESGCM(key).decrypt(GCM_NONCE, sealed, b"attributes")


@pytest.mark.parametrize("content", [b"", CONTENT], ids=["empty", "long"])
@pytest.mark.parametrize("transport", [v[1] for v in OPENSSL.values()], ids=list(OPENSSL))
@written_by
def test_openssl_decrypts_what_is_written(
    device: Identity,
    tmp_path: Path,
    cipher: AuthenticatedCipher,
    transport: KeyTransport,
    content: bytes,
) -> None:
    written = envelope.write_envelope(content, device.certificate, how(cipher, transport))
    assert oracles.openssl_decrypted(written, device, tmp_path) == content
    assert opened(written, CONTENT_KEY[: cipher.key_size]) == content


@written_by
def test_written_envelope_is_strict_der(device: Identity, cipher: AuthenticatedCipher) -> None:
    written = envelope.write_envelope(CONTENT, device.certificate, how(cipher))
    data = oracles.auth_enveloped_data(written)
    assert data["version"].native == "v0"
    (info,) = data["recipient_infos"]
    assert info.name == "ktri"
    assert info.chosen["rid"].chosen.dump() == device.issuer_and_serial
    content = data["auth_encrypted_content_info"]
    assert content["content_type"].native == "data"
    assert content["content_encryption_algorithm"].dump() == gcm_id(cipher.name)
    sealed = AESGCM(CONTENT_KEY[: cipher.key_size]).encrypt(GCM_NONCE, CONTENT, None)
    assert content["encrypted_content"].native + data["mac"].native == sealed
    assert data["auth_attrs"].native is None
    assert tlv(SEQ, AUTH_ENVELOPED, data.dump(force=True)) == written


# openssl


@pytest.mark.parametrize("transport", OPENSSL)
@pytest.mark.parametrize(
    ("cipher", "streaming"), [("128", "-noindef"), ("192", "-stream"), ("256", "-stream")]
)
def test_what_openssl_encrypts_is_read(
    ra: Identity, tmp_path: Path, cipher: str, streaming: str, transport: str
) -> None:
    options, expected = OPENSSL[transport]
    pem, _ = oracles.write_pem(ra, tmp_path)
    message = oracles.openssl(
        *("cms", "-encrypt", "-binary", "-outform", "DER", f"-aes-{cipher}-gcm", streaming),
        *("-recip", pem),
        *(part for option in options for part in ("-keyopt", option)),
        stdin=CONTENT,
    )
    found = envelope.read_envelope(message)
    assert found.cipher.name == f"aes{cipher}-gcm"
    (info,) = found.recipients
    assert info.transport == expected
    assert found.decrypt(ra.key.decrypt(info.encrypted_key, info.transport.padding())) == CONTENT


def test_openssl_reads_the_structure_that_the_tests_write(ra: Identity) -> None:
    message = authenticated(CONTENT, recipient(ra, encrypted_key=bytes(256)))
    printed = oracles.openssl("cms", "-cmsout", "-print", "-noout", "-inform", "DER", stdin=message)
    assert b"id-smime-ct-authEnvelopedData" in printed
    assert b"aes-256-gcm" in printed


# Any bytes


@given(data=st.binary(max_size=200))
@example(data=b"")
@example(data=gcm_id("aes128-gcm")[:-1])
@example(data=tlv(SEQ, oid(GCM["aes128-gcm"][0]), tlv(SEQ, tlv(4, GCM_NONCE), tlv(2))))
def test_any_bytes_are_a_cipher_or_the_one_error(data: bytes) -> None:
    for read in (algorithms.read_authenticated_cipher, algorithms.read_cipher):
        try:
            read(Der(data))
        except ScepError:
            continue


@settings(max_examples=300)
@given(at=st.floats(0, 0.999), octet=st.integers(0, 255), size=st.integers(0, 2))
def test_any_edit_of_an_envelope_opens_to_the_content_or_not_at_all(
    at: float, octet: int, size: int
) -> None:
    good = authenticated(CONTENT[:40], attributes=ATTRIBUTES)
    start = int(at * len(good))
    data = good[:start] + bytes((octet,)) + good[start + size :]
    try:
        assert opened(data) == CONTENT[:40]
    except ScepError:
        return


@given(tag=st.binary(min_size=12, max_size=16), ciphertext=st.binary(max_size=64))
def test_no_bytes_pass_for_a_tag(tag: bytes, ciphertext: bytes) -> None:
    with pytest.raises(ScepError):
        AES256_GCM.decrypt(CONTENT_KEY, GCM_NONCE, ciphertext, tag, b"")
