import contextlib
from collections.abc import Callable

import pytest

from shared.scep import pkimessage
from shared.scep.algorithms import SHA256, AlgorithmPolicy
from shared.scep.asn1 import Der
from shared.scep.envelope import Envelope
from shared.scep.errors import FailInfo, ScepError
from shared.scep.pkimessage import MessageType, PkiMessage, TransactionId
from shared.x509.csr import read_csr, verify_self_signature
from tests.support.messages import (
    BMP,
    CHALLENGE,
    CIPHERS,
    CONTENT_KEY,
    IA5,
    NONCE,
    NULL,
    PRINTABLE,
    SEQ,
    T61,
    TRANSACTION,
    TRANSPORTS,
    UNIVERSAL,
    UTF8,
    Identity,
    attribute,
    cipher_key,
    cms_attributes,
    csr,
    device_csr,
    enveloped,
    indefinite,
    oid,
    recipient,
    scep_attributes,
    signed,
    tlv,
)

MODERN = AlgorithmPolicy()
LEGACY = AlgorithmPolicy(legacy=True)
FALLBACK = bytes(range(32))
CONTENT = b"content"


def message_of(by: Identity, *attributes: bytes, content: bytes = CONTENT) -> bytes:
    return signed(content, by, [*attributes, *cms_attributes(content)])


def opened(message: PkiMessage, *keys: Identity, policy: AlgorithmPolicy = LEGACY) -> bytes:
    """What the gateway does with a request, up to its plaintext."""
    pkimessage.verify(message, policy)
    envelope = pkimessage.read_envelope(message, policy)
    return envelope.decrypt(unwrapped(envelope, *keys))


def unwrapped(envelope: Envelope, *keys: Identity, fallback: bytes = FALLBACK) -> bytes:
    return pkimessage.unwrap_content_key(envelope, [k.decryption for k in keys], fallback)


def envelope_of(data: bytes, by: Identity) -> Envelope:
    return pkimessage.read_envelope(pkimessage.read_message(signed(data, by)), LEGACY)


@pytest.mark.parametrize("ber", [False, True], ids=["DER", "BER"])
@pytest.mark.parametrize("form", ["primitive", "constructed", "ber"])
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("cipher", CIPHERS)
def test_request_opens(
    device: Identity,
    ra: Identity,
    cipher: str,
    transport: str,
    form: str,
    ber: bool,  # noqa: FBT001
) -> None:
    payload = device_csr(device)
    inner = enveloped(
        payload, recipient(ra, cipher=cipher, transport=transport), cipher=cipher, form=form
    )
    message = pkimessage.read_message(signed(inner, device, ber=ber))
    assert message.message_type == MessageType.PKCS_REQ
    assert message.transaction_id == TransactionId(PRINTABLE, TRANSACTION)
    assert message.sender_nonce == NONCE
    assert message.signer == device.certificate
    assert message.digest is SHA256
    plaintext = opened(message, ra)
    assert plaintext == payload
    request = read_csr(plaintext)
    verify_self_signature(request)
    assert request.challenge == CHALLENGE


@pytest.mark.parametrize("ber", [False, True], ids=["DER", "BER"])
def test_line_ends_after_the_message_are_ignored(
    device: Identity,
    ra: Identity,
    ber: bool,  # noqa: FBT001
) -> None:
    inner = enveloped(CONTENT, recipient(ra)) + b"\r\n"
    data = signed(inner, device, ber=ber)
    for tail in (b"\n", b"\r\n", b"\r\n\r\n"):
        assert opened(pkimessage.read_message(data + tail), ra) == CONTENT


@pytest.mark.parametrize("ber", [False, True], ids=["DER", "BER"])
@pytest.mark.parametrize("tail", [b"\0", b" ", b"\r\n\0", b"\x05\x00"])
def test_anything_else_after_the_message_is_refused(
    device: Identity,
    tail: bytes,
    ber: bool,  # noqa: FBT001
) -> None:
    with pytest.raises(ScepError):
        pkimessage.read_message(signed(CONTENT, device, ber=ber) + tail)


@pytest.mark.parametrize("ber", [False, True], ids=["DER", "BER"])
def test_message_cut_anywhere_is_refused(
    device: Identity,
    ber: bool,  # noqa: FBT001
) -> None:
    data = signed(CONTENT, device, ber=ber)
    for end in range(len(data)):
        with pytest.raises(ScepError):
            pkimessage.read_message(data[:end])


def test_outer_message_in_ber_around_der_signed_attributes_verifies(device: Identity) -> None:
    """Only lengths outside of what is signed differ."""
    data = signed(CONTENT, device)
    body = Der(data).value(SEQ)
    message = pkimessage.read_message(indefinite(SEQ, body))
    pkimessage.verify(message, MODERN)


@pytest.mark.parametrize("number", [0, 3, 17, 18, 19, 20, 21, 22, 255])
def test_message_type_is_a_number_in_a_printable_string(device: Identity, number: int) -> None:
    """Known or not: whether it is served is not for the codec."""
    value = tlv(PRINTABLE, str(number).encode())
    data = message_of(device, *scep_attributes(message_type=value))
    assert pkimessage.read_message(data).message_type == number


@pytest.mark.parametrize("number", [17, 19, 20])
def test_message_type_may_be_a_bare_integer(device: Identity, number: int) -> None:
    data = message_of(device, *scep_attributes(message_type=tlv(2, bytes((number,)))))
    assert pkimessage.read_message(data).message_type == number


@pytest.mark.parametrize("tag", [UTF8, IA5, T61])
def test_message_type_may_be_another_string(device: Identity, tag: int) -> None:
    data = message_of(device, *scep_attributes(message_type=tlv(tag, b"19")))
    assert pkimessage.read_message(data).message_type == MessageType.PKCS_REQ


@pytest.mark.parametrize(
    "value",
    [
        b"",
        tlv(PRINTABLE),
        tlv(PRINTABLE, b"PKCSReq"),
        tlv(PRINTABLE, b"-1"),
        tlv(PRINTABLE, b" 19"),
        tlv(PRINTABLE, b"1_9"),
        tlv(PRINTABLE, b"9" * 5000),
        tlv(UTF8, b"\xef\xbc\x91"),
        tlv(2, b""),
        tlv(2, b"\x01" * 100),
        tlv(4, b"19"),
        NULL,
    ],
)
def test_message_type_that_is_no_number_is_unknown(device: Identity, value: bytes) -> None:
    """Transaction, nonce and signer are known: a CertRep can say badRequest."""
    message = pkimessage.read_message(message_of(device, *scep_attributes(message_type=value)))
    assert message.message_type == pkimessage.UNKNOWN_TYPE


@pytest.mark.parametrize("size", [1, 8, 16, 64])
def test_nonce_of_any_size_is_kept(device: Identity, size: int) -> None:
    nonce = bytes(range(255, 255 - size, -1))
    data = message_of(device, *scep_attributes(nonce=tlv(4, nonce)))
    assert pkimessage.read_message(data).sender_nonce == nonce


@pytest.mark.parametrize(
    "value",
    [b"", tlv(4), tlv(4, bytes(65)), tlv(4, bytes(70_000)), tlv(PRINTABLE, b"nonce")],
    ids=["missing", "empty", "65 bytes", "70000 bytes", "a string"],
)
def test_nonce_missing_or_of_a_wrong_size_is_bad_request(device: Identity, value: bytes) -> None:
    with pytest.raises(ScepError) as caught:
        pkimessage.read_message(message_of(device, *scep_attributes(nonce=value)))
    assert caught.value.fail_info is FailInfo.BAD_REQUEST


@pytest.mark.parametrize(
    "value",
    [
        tlv(PRINTABLE, b"1"),
        tlv(PRINTABLE, b"x" * 255),
        tlv(PRINTABLE, b"SSCEP transactionId"),
        tlv(PRINTABLE, b"../../etc/passwd\0*_@"),
        tlv(UTF8, "gerät".encode()),
        tlv(UTF8, b"\xff\xfe"),
        tlv(IA5, b"a_b"),
        tlv(T61, b"\xe9"),
        tlv(BMP, "gerät".encode("utf-16-be")),
        tlv(UNIVERSAL, "gerät".encode("utf-32-be")),
    ],
)
def test_transaction_id_of_any_string_type_is_echoed_byte_for_byte(
    device: Identity, value: bytes
) -> None:
    data = message_of(device, *scep_attributes(transaction_id=value))
    found = pkimessage.read_message(data).transaction_id
    tag, contents = Der(value).any()
    assert found == TransactionId(tag, contents)
    assert Der(found.encode()).any() == (tag, contents)
    found.text().encode("ascii")


@pytest.mark.parametrize("tag", [UTF8, IA5, T61])
def test_transaction_id_is_echoed_as_printable_string_where_it_can_be(tag: int) -> None:
    assert TransactionId(tag, b"AZaz09 '()+,-./:=?").encode() == tlv(
        PRINTABLE, b"AZaz09 '()+,-./:=?"
    )
    assert TransactionId(tag, b"a_b").encode() == tlv(tag, b"a_b")


@pytest.mark.parametrize(
    "value",
    [
        b"",
        tlv(PRINTABLE),
        tlv(PRINTABLE, b"x" * 256),
        tlv(UTF8, b"x" * 70_000),
        tlv(4, b"octets"),
        tlv(2, b"\x05"),
    ],
    ids=["missing", "empty", "256 bytes", "70000 bytes", "octets", "an integer"],
)
def test_transaction_id_missing_or_of_a_wrong_size_is_bad_request(
    device: Identity, value: bytes
) -> None:
    with pytest.raises(ScepError) as caught:
        pkimessage.read_message(message_of(device, *scep_attributes(transaction_id=value)))
    assert caught.value.fail_info is FailInfo.BAD_REQUEST


def test_transaction_id_as_text_is_escaped() -> None:
    assert TransactionId(UTF8, b"a\xff").text() == "a\\xff"


@pytest.mark.parametrize("last", ["2", "5", "7"])
def test_attribute_twice_is_refused(device: Identity, last: str) -> None:
    twice = attribute("2.16.840.1.113733.1.9." + last, tlv(PRINTABLE, b"19"))
    with pytest.raises(ScepError):
        pkimessage.read_message(message_of(device, *scep_attributes(), twice))


def test_unknown_attributes_are_passed_over(device: Identity) -> None:
    other = attribute("1.2.840.113549.1.9.5", tlv(0x17, b"240101000000Z"))
    message = pkimessage.read_message(message_of(device, *scep_attributes(), other))
    pkimessage.verify(message, MODERN)


def test_unknown_digest_can_be_answered_with_bad_alg(device: Identity) -> None:
    algorithm = tlv(SEQ, oid("1.2.840.113549.2.2"), NULL)
    message = pkimessage.read_message(signed(CONTENT, device, digest_algorithm=algorithm))
    assert message.digest is SHA256
    assert message.transaction_id.value == TRANSACTION
    with pytest.raises(ScepError) as caught:
        pkimessage.verify(message, LEGACY)
    assert caught.value.fail_info is FailInfo.BAD_ALG


@pytest.mark.parametrize("digest", ["md5", "sha1"])
def test_old_digests_need_a_legacy_profile(device: Identity, digest: str) -> None:
    message = pkimessage.read_message(signed(CONTENT, device, digest=digest))
    assert message.digest.name == digest
    pkimessage.verify(message, LEGACY)
    with pytest.raises(ScepError) as caught:
        pkimessage.verify(message, MODERN)
    assert caught.value.fail_info is FailInfo.BAD_ALG


@pytest.mark.parametrize("cipher", ["des", "des3"])
def test_des_needs_a_legacy_profile(device: Identity, ra: Identity, cipher: str) -> None:
    inner = enveloped(CONTENT, recipient(ra, cipher=cipher), cipher=cipher)
    message = pkimessage.read_message(signed(inner, device))
    assert pkimessage.read_envelope(message, LEGACY).cipher.name == cipher
    with pytest.raises(ScepError) as caught:
        pkimessage.read_envelope(message, MODERN)
    assert caught.value.fail_info is FailInfo.BAD_ALG


@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("cipher", ["aes128", "aes192", "aes256"])
def test_modern_algorithms_need_no_legacy_profile(
    device: Identity, ra: Identity, digest: str, cipher: str
) -> None:
    inner = enveloped(CONTENT, recipient(ra, cipher=cipher), cipher=cipher)
    message = pkimessage.read_message(signed(inner, device, digest=digest))
    assert opened(message, ra, policy=MODERN) == CONTENT


def test_envelope_swapped_under_a_valid_signature_is_refused(
    device: Identity, ra: Identity
) -> None:
    """Another request's envelope of the same length, put in place of the signed one."""
    ours, theirs = (
        enveloped(csr(device.key, subject=tlv(SEQ, b"\x31" + bytes((4, 5, 0, 5, 0)))), info)
        for info in (recipient(ra), recipient(ra))
    )
    assert ours != theirs
    message = pkimessage.read_message(signed(ours, device).replace(ours, theirs))
    assert message.signed.content == theirs
    with pytest.raises(ScepError) as caught:
        pkimessage.verify(message, MODERN)
    assert caught.value.fail_info is FailInfo.BAD_MESSAGE_CHECK


# unwrap_content_key


@pytest.mark.parametrize("order", [lambda keys: keys, reversed], ids=["first", "last"])
def test_key_named_by_issuer_and_serial_opens(
    device: Identity,
    ra: Identity,
    old_ra: Identity,
    order: Callable[[list[Identity]], list[Identity]],
) -> None:
    envelope = envelope_of(enveloped(CONTENT, recipient(ra)), device)
    assert unwrapped(envelope, *order([ra, old_ra])) == CONTENT_KEY


def test_key_named_by_key_id_opens(device: Identity, ra: Identity, old_ra: Identity) -> None:
    info = recipient(ra, sid=tlv(0x80, ra.key_id))
    envelope = envelope_of(enveloped(CONTENT, info), device)
    assert unwrapped(envelope, old_ra, ra) == CONTENT_KEY


@pytest.mark.parametrize("position", [0, 1, 2])
def test_key_named_by_one_of_several_recipients_opens(
    device: Identity, ra: Identity, old_ra: Identity, position: int
) -> None:
    others = [recipient(device), recipient(old_ra)]
    others.insert(position, recipient(ra))
    envelope = envelope_of(enveloped(CONTENT, *others), device)
    assert unwrapped(envelope, ra) == CONTENT_KEY


@pytest.mark.parametrize(
    "sid",
    [
        tlv(SEQ, tlv(SEQ), tlv(2, b"\x63")),
        tlv(0x80, b"unknown key id"),
    ],
    ids=["issuer and serial", "key id"],
)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_each_key_is_tried_where_the_recipient_names_none(
    device: Identity, ra: Identity, old_ra: Identity, transport: str, sid: bytes
) -> None:
    """A stale serial or a re-encoded issuer."""
    wrapped = wrap(ra, transport, CONTENT_KEY)
    while unlucky(wrapped, old_ra, device):
        wrapped = wrap(ra, transport, CONTENT_KEY)
    info = recipient(ra, sid=sid, transport=transport, encrypted_key=wrapped)
    envelope = envelope_of(enveloped(CONTENT, info), device)
    for keys in ([ra], [ra, old_ra], [old_ra, ra], [old_ra, device, ra]):
        assert unwrapped(envelope, *keys) == CONTENT_KEY


def test_key_of_the_right_size_that_does_not_open_is_not_taken(
    device: Identity, ra: Identity, old_ra: Identity
) -> None:
    """Found by chance: the other RA's key makes 32 bytes of what was not encrypted to it."""
    stale = tlv(SEQ, tlv(SEQ), tlv(2, b"\x63"))
    for _ in range(20_000):
        wrapped = wrap(ra, "pkcs1v15", CONTENT_KEY)
        if not unlucky(wrapped, old_ra):
            continue
        info = recipient(ra, sid=stale, encrypted_key=wrapped)
        envelope = envelope_of(enveloped(CONTENT, info), device)
        wrong = old_ra.key.decrypt(wrapped, TRANSPORTS["pkcs1v15"][1])
        with contextlib.suppress(ScepError):
            envelope.decrypt(wrong)
            continue
        assert unwrapped(envelope, old_ra, ra) == CONTENT_KEY
        return
    pytest.fail("garbage never decrypted to 32 bytes")


def test_no_key_is_tried_where_several_recipients_name_none(
    device: Identity, ra: Identity, old_ra: Identity
) -> None:
    stale = tlv(SEQ, tlv(SEQ), tlv(2, b"\x63"))
    inner = enveloped(CONTENT, recipient(ra, sid=stale), recipient(device))
    assert unwrapped(envelope_of(inner, device), ra, old_ra) == FALLBACK


def test_named_key_that_fails_is_not_followed_by_others(
    device: Identity, ra: Identity, old_ra: Identity
) -> None:
    """The recipient names `old_ra`, the key is encrypted to `ra`."""
    info = recipient(ra, sid=old_ra.issuer_and_serial, transport="oaep")
    envelope = envelope_of(enveloped(CONTENT, info), device)
    assert unwrapped(envelope, ra, old_ra) == FALLBACK


FAILURES: dict[str, tuple[str, Callable[[Identity, bytes], bytes]]] = {
    "empty": ("pkcs1v15", lambda _, __: b""),
    "short": ("pkcs1v15", lambda _, wrapped: wrapped[:-1]),
    "long": ("pkcs1v15", lambda _, wrapped: wrapped + b"\0"),
    "above the modulus": ("pkcs1v15", lambda _, wrapped: b"\xff" * len(wrapped)),
    "flipped": ("pkcs1v15", lambda _, wrapped: wrapped[:-1] + bytes([wrapped[-1] ^ 1])),
    "flipped OAEP": ("oaep", lambda _, wrapped: wrapped[:-1] + bytes([wrapped[-1] ^ 1])),
    "another padding": ("oaep-sha256", lambda to, _: wrap(to, "pkcs1v15", CONTENT_KEY)),
    "a shorter key": ("oaep", lambda to, _: wrap(to, "oaep", CONTENT_KEY[:16])),
    "a longer key": ("pkcs1v15", lambda to, _: wrap(to, "pkcs1v15", CONTENT_KEY * 2)),
    "no key": ("oaep", lambda to, _: wrap(to, "oaep", b"")),
    "another key": ("pkcs1v15", lambda to, _: wrap(to, "pkcs1v15", CONTENT_KEY[::-1])),
}


def wrap(to: Identity, transport: str, key: bytes) -> bytes:
    return to.key.public_key().encrypt(key, TRANSPORTS[transport][1])


def unlucky(wrapped: bytes, *others: Identity) -> bool:
    """Whether one of these makes a key of it by chance: garbage decrypts to random bytes."""
    sizes = []
    for other in others:
        with contextlib.suppress(ValueError):
            sizes.append(len(other.key.decrypt(wrapped, TRANSPORTS["pkcs1v15"][1])))
    return len(CONTENT_KEY) in sizes


@pytest.mark.parametrize("stale", [False, True], ids=["named", "not named"])
def test_every_failure_to_decrypt_says_the_same(
    device: Identity,
    ra: Identity,
    old_ra: Identity,
    stale: bool,  # noqa: FBT001
) -> None:
    """Bad padding, a key of the wrong size, the wrong key: one error for all (RFC 3218)."""
    sid = tlv(SEQ, tlv(SEQ), tlv(2, b"\x63")) if stale else None
    said = set()
    for kind, (transport, make) in FAILURES.items():
        wrapped = make(ra, wrap(ra, transport, CONTENT_KEY))
        while kind == "flipped" and unlucky(wrapped, ra, old_ra):
            wrapped = make(ra, wrap(ra, transport, CONTENT_KEY))
        info = recipient(ra, sid=sid, transport=transport, encrypted_key=wrapped)
        envelope = envelope_of(enveloped(b"x" * 100, info), device)
        with pytest.raises(ScepError) as caught:
            envelope.decrypt(unwrapped(envelope, ra, old_ra))
        said.add((str(caught.value), caught.value.detail, caught.value.fail_info))
    ((_, _, fail_info),) = said
    assert fail_info is FailInfo.BAD_MESSAGE_CHECK


@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("kind", ["flipped OAEP", "empty", "long", "a longer key", "no key"])
def test_fallback_stands_in_for_a_key_that_cannot_be_had(
    device: Identity, ra: Identity, cipher: str, kind: str
) -> None:
    """Cut to the size that the cipher wants."""
    transport, make = FAILURES[kind]
    wrapped = make(ra, wrap(ra, transport, cipher_key(cipher)))
    info = recipient(ra, transport=transport, encrypted_key=wrapped)
    envelope = envelope_of(enveloped(CONTENT, info, cipher=cipher), device)
    assert unwrapped(envelope, ra) == FALLBACK[: CIPHERS[cipher][1]]


def test_fallback_opens_what_was_encrypted_under_it(device: Identity, ra: Identity) -> None:
    """The caller goes on with it as with any key: nothing after it knows the difference."""
    info = recipient(ra, encrypted_key=b"")
    envelope = envelope_of(enveloped(CONTENT, info), device)
    assert envelope.decrypt(unwrapped(envelope, ra, fallback=CONTENT_KEY)) == CONTENT


def test_fallback_where_there_is_no_recipient_or_no_key(device: Identity, ra: Identity) -> None:
    assert unwrapped(envelope_of(enveloped(CONTENT), device), ra) == FALLBACK
    assert unwrapped(envelope_of(enveloped(CONTENT, recipient(ra)), device)) == FALLBACK
