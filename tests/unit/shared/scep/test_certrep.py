from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from shared.scep import certrep, envelope, pkimessage
from shared.scep.algorithms import (
    AES128,
    AES128_GCM,
    AES192,
    AES192_GCM,
    AES256,
    AES256_GCM,
    CIPHERS,
    DES,
    DES3,
    DIGESTS,
    MD5,
    PKCS1V15,
    SHA1,
    SHA256,
    SHA384,
    SHA512,
    AnyCipher,
    ContentCipher,
    Digest,
    KeyTransport,
)
from shared.scep.certrep import PkiStatus, ReplyTo
from shared.scep.envelope import ContentEncryption
from shared.scep.errors import FailInfo, ScepError
from shared.scep.password import Password
from shared.scep.pkimessage import PkiMessage, TransactionId
from shared.scep.schemes import read_scheme
from shared.scep.signed_data import Signer, write_certs_only
from tests.support import messages
from tests.support.messages import (
    BMP,
    CONTENT_KEY,
    DATA,
    IA5,
    IV,
    NONCE,
    NULL,
    PRINTABLE,
    RSA,
    SCEP,
    SEQ,
    UTF8,
    Identity,
    attribute,
    certificate,
    certs_only,
    cms_attributes,
    scep_attributes,
    signed,
    tlv,
)
from tests.support.signing import every_way
from tests.unit.shared.scep import oracles

FRESH = bytes(range(50, 66))
SIGNED_AT = 1_700_000_000
FAIL_INFO_TEXT = "1.3.6.1.5.5.7.24.1"
STRENGTH = (MD5, SHA1, SHA256, SHA384, SHA512)
DIGEST_OF = pytest.mark.parametrize("digest", DIGESTS.values(), ids=lambda d: d.name)


@pytest.fixture(scope="module")
def request_message(device: Identity) -> PkiMessage:
    return pkimessage.read_message(signed(b"", device))


@pytest.fixture(scope="module")
def issued(device: Identity, ra: Identity) -> list[bytes]:
    """A leaf and its chain, so that sorting would not keep the leaf first."""
    made = [
        certificate(f"c{serial}", device.key.public_key(), ra, serial)
        .sign(ra.key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
        for serial in (1, 2, 3)
    ]
    return sorted(made, reverse=True)


def reply_to(digest: Digest = SHA256, transaction: TransactionId | None = None) -> ReplyTo:
    transaction = transaction or TransactionId(PRINTABLE, b"1234")
    return ReplyTo(transaction, NONCE, FRESH, digest, SIGNED_AT)


def sealing(cipher: ContentCipher, transport: KeyTransport = PKCS1V15) -> ContentEncryption:
    return ContentEncryption(
        cipher, transport, CONTENT_KEY[: cipher.key_size], IV[: cipher.block_size]
    )


def signer_info(reply: bytes) -> Any:
    (info,) = oracles.signed_data(reply)["signer_infos"]
    return info


def attributes(reply: bytes) -> dict[str, tuple[int, bytes]]:
    return oracles.attributes(signer_info(reply))


def all_three(request: PkiMessage, to: ReplyTo, ra: Identity, leaf: bytes) -> dict[str, bytes]:
    content = certs_only(leaf)
    return {
        "0": certrep.success(to, content, request.signer, sealing(AES128), ra.signer),
        "2": certrep.failure(to, FailInfo.BAD_REQUEST, "no", ra.signer),
        "3": certrep.pending(to, ra.signer),
    }


@DIGEST_OF
def test_every_reply_is_what_strict_clients_want(
    request_message: PkiMessage, ra: Identity, issued: list[bytes], digest: Digest
) -> None:
    """The rules of RFC 8894 and of clients that are stricter than it."""
    for status, reply in all_three(request_message, reply_to(digest), ra, issued[0]).items():
        data = oracles.signed_data(reply)
        info = signer_info(reply)
        assert info["signature_algorithm"].dump() == RSA
        for algorithm in (*data["digest_algorithms"], info["digest_algorithm"]):
            assert algorithm["algorithm"].native == digest.name
            assert algorithm["parameters"].dump() == NULL
        encoded = [each.dump() for each in info["signed_attrs"]]
        assert encoded == sorted(encoded)
        found = attributes(reply)
        content = data["encap_content_info"]["content"].native
        assert found["1.2.840.113549.1.9.3"] == (0x06, DATA[2:])
        assert found["1.2.840.113549.1.9.4"] == (0x04, digest.of(content))
        assert found["1.2.840.113549.1.9.5"] == (0x17, b"231114221320Z")
        assert found[SCEP + "2"] == (PRINTABLE, b"3")
        assert found[SCEP + "3"] == (PRINTABLE, status.encode())
        assert found[SCEP + "5"] == (0x04, FRESH)
        assert found[SCEP + "6"] == (0x04, NONCE)
        assert found[SCEP + "7"] == (PRINTABLE, b"1234")
        assert info["sid"].chosen.dump() == ra.issuer_and_serial
        assert oracles.certificates(data) == [ra.der]
        assert oracles.openssl_verified(reply) == content


@pytest.mark.parametrize(
    ("sent", "echoed"),
    [
        (tlv(PRINTABLE, b"x" * 255), tlv(PRINTABLE, b"x" * 255)),
        (tlv(PRINTABLE, b"a_b@c*"), tlv(PRINTABLE, b"a_b@c*")),
        (tlv(UTF8, b"a=b"), tlv(PRINTABLE, b"a=b")),
        (tlv(IA5, b"a_b"), tlv(IA5, b"a_b")),
        (tlv(UTF8, "gerät".encode()), tlv(UTF8, "gerät".encode())),
        (tlv(BMP, "id".encode("utf-16-be")), tlv(BMP, "id".encode("utf-16-be"))),
    ],
)
def test_transaction_id_is_echoed_byte_for_byte(
    device: Identity, ra: Identity, issued: list[bytes], sent: bytes, echoed: bytes
) -> None:
    """PrintableString where it can be, else the type it came as."""
    data = signed(b"", device, [*scep_attributes(transaction_id=sent), *cms_attributes(b"")])
    request = pkimessage.read_message(data)
    to = certrep.reply_to(request, FRESH, SHA256, SIGNED_AT)
    wanted = attribute(SCEP + "7", echoed)
    for reply in all_three(request, to, ra, issued[0]).values():
        encoded = [each.dump() for each in signer_info(reply)["signed_attrs"]]
        assert encoded.count(wanted) == 1


@pytest.mark.parametrize("size", [1, 8, 16, 64])
def test_sender_nonce_returns_as_recipient_nonce(device: Identity, ra: Identity, size: int) -> None:
    nonce = bytes(range(size))
    data = signed(b"", device, [*scep_attributes(nonce=tlv(4, nonce)), *cms_attributes(b"")])
    to = certrep.reply_to(pkimessage.read_message(data), FRESH, SHA256, SIGNED_AT)
    found = attributes(certrep.pending(to, ra.signer))
    assert found[SCEP + "6"] == (0x04, nonce)
    assert found[SCEP + "5"] == (0x04, FRESH)


def test_failure_and_pending_have_present_and_empty_content(ra: Identity) -> None:
    """Absent breaks certmonger and scepreq."""
    for reply in (
        certrep.failure(reply_to(), FailInfo.BAD_ALG, "", ra.signer),
        certrep.pending(reply_to(), ra.signer),
    ):
        encapsulated = oracles.signed_data(reply)["encap_content_info"]
        assert encapsulated.dump() == tlv(SEQ, DATA, tlv(0xA0, b"\x04\x00"))


def test_failure_and_pending_without_content_are_those_of_the_rfc(ra: Identity) -> None:
    """As cryptlib reads them; the signature is over no content, and still verifies."""
    to = replace(reply_to(), without_content=True)
    for reply in (
        certrep.failure(to, FailInfo.BAD_ALG, "", ra.signer),
        certrep.pending(to, ra.signer),
    ):
        assert oracles.signed_data(reply)["encap_content_info"].dump() == tlv(SEQ, DATA)
        assert attributes(reply)["1.2.840.113549.1.9.4"] == (0x04, SHA256.of(b""))
        assert certrep.read_reply(reply).signed.content == b""


@pytest.mark.parametrize("fail_info", FailInfo)
@pytest.mark.parametrize("detail", ["", "the challenge is wrong", "Prüfsumme"])
def test_failure_says_why(ra: Identity, fail_info: FailInfo, detail: str) -> None:
    """The failInfoText is a UTF8String, and absent where there is nothing to say."""
    reply = certrep.failure(reply_to(), fail_info, detail, ra.signer)
    found = attributes(reply)
    assert found[SCEP + "4"] == (PRINTABLE, str(fail_info.value).encode())
    assert found.get(FAIL_INFO_TEXT) == ((UTF8, detail.encode()) if detail else None)
    read = certrep.read_reply(reply)
    assert (read.status, read.fail_info) == (PkiStatus.FAILURE, fail_info)
    assert read.fail_info_text == detail


def test_success_and_pending_carry_no_fail_info(
    request_message: PkiMessage, ra: Identity, issued: list[bytes]
) -> None:
    replies = all_three(request_message, reply_to(), ra, issued[0])
    for status in ("0", "3"):
        assert SCEP + "4" not in attributes(replies[status])
        assert FAIL_INFO_TEXT not in attributes(replies[status])


@pytest.mark.parametrize(
    "transport",
    [PKCS1V15, KeyTransport("oaep"), KeyTransport("oaep", SHA256, SHA256)],
    ids=["pkcs1v15", "oaep", "oaep-sha256"],
)
@pytest.mark.parametrize("cipher", CIPHERS.values(), ids=lambda c: c.name)
def test_success_is_encrypted_to_the_signer_of_the_request(
    request_message: PkiMessage,
    device: Identity,
    ra: Identity,
    issued: list[bytes],
    tmp_path: Path,
    cipher: ContentCipher,
    transport: KeyTransport,
) -> None:
    how = sealing(cipher, transport)
    content = write_certs_only(issued[:1])
    reply = certrep.success(reply_to(), content, request_message.signer, how, ra.signer)
    content = oracles.openssl_verified(reply)
    (info,) = oracles.enveloped_data(content)["recipient_infos"]
    assert info.chosen["rid"].chosen.dump() == device.issuer_and_serial
    inner = oracles.openssl_decrypted(content, device, tmp_path)
    data = oracles.signed_data(inner)
    assert oracles.certificates(data) == issued[:1]
    assert len(data["signer_infos"]) == 0


@pytest.mark.parametrize("cipher", [AES128, AES256, AES256_GCM], ids=lambda c: c.name)
def test_success_is_encrypted_under_a_password_where_the_key_cannot_decrypt(
    ra: Identity, issued: list[bytes], cipher: AnyCipher
) -> None:
    """RFC 8894 s3.1: the device's key is EC, the password its challengePassword."""
    how = ContentEncryption(cipher, PKCS1V15, CONTENT_KEY[: cipher.key_size], IV[: cipher.iv_size])
    to = Password("s3cret", bytes(16), IV, bytes(16))
    reply = certrep.success(reply_to(), write_certs_only(issued), to, how, ra.signer)
    inner = oracles.openssl(
        *("cms", "-decrypt", "-binary", "-inform", "DER", "-pwri_password", "s3cret"),
        stdin=oracles.openssl_verified(reply),
    )
    assert oracles.certificates(oracles.signed_data(inner)) == issued


@pytest.mark.parametrize("way", ["PSS sha256", "P-256 sha256, named", "P-521 sha512, named"])
def test_reply_is_signed_in_the_scheme_of_the_signer(device: Identity, way: str) -> None:
    how = every_way(device)[way]
    digest = next(d for d in DIGESTS.values() if d.name == how.digest)
    scheme = read_scheme(how.algorithm, digest)
    signer = Signer(how.by.key, how.by.certificate, scheme)
    for reply in (
        certrep.pending(reply_to(digest), signer),
        certrep.failure(reply_to(digest), FailInfo.BAD_TIME, "late", signer),
    ):
        assert oracles.openssl_verified(reply) == b""
        assert signer_info(reply)["signature_algorithm"].dump() == how.algorithm
        assert certrep.read_reply(reply).signed.signer == how.by.certificate


def test_success_holds_the_leaf_first_and_is_not_sorted(
    request_message: PkiMessage, device: Identity, ra: Identity, issued: list[bytes], tmp_path: Path
) -> None:
    for chain in (issued, issued[::-1]):
        content, how = write_certs_only(chain), sealing(AES256)
        reply = certrep.success(reply_to(), content, request_message.signer, how, ra.signer)
        inner = oracles.openssl_decrypted(oracles.openssl_verified(reply), device, tmp_path)
        assert oracles.certificates(oracles.signed_data(inner)) == chain
        pem = oracles.openssl("pkcs7", "-inform", "DER", "-print_certs", stdin=inner)
        printed = x509.load_pem_x509_certificates(pem)
        assert [c.public_bytes(serialization.Encoding.DER) for c in printed] == chain
        assert certrep.read_certificates(inner) == tuple(chain)


def test_reply_is_read_as_a_client_reads_it(
    request_message: PkiMessage, device: Identity, ra: Identity, issued: list[bytes]
) -> None:
    for status, reply in all_three(request_message, reply_to(), ra, issued[0]).items():
        read = certrep.read_reply(reply)
        assert read.status == status
        assert read.transaction_id == b"1234"
        assert (read.sender_nonce, read.recipient_nonce) == (FRESH, NONCE)
        assert read.signed.signer == ra.certificate
        if read.status is not PkiStatus.SUCCESS:
            assert read.signed.content == b""
            continue
        opened = envelope.read_envelope(read.signed.content)
        key = pkimessage.unwrap_content_key(opened, [device.decryption], bytes(32))
        assert certrep.read_certificates(opened.decrypt(key)) == (issued[0],)


@DIGEST_OF
@pytest.mark.parametrize("floor", DIGESTS.values(), ids=lambda d: d.name)
def test_digest_of_the_request_is_mirrored_above_the_floor(
    device: Identity, digest: Digest, floor: Digest
) -> None:
    request = pkimessage.read_message(signed(b"", device, digest=digest.name))
    to = certrep.reply_to(request, FRESH, floor, SIGNED_AT)
    assert to.digest is STRENGTH[max(STRENGTH.index(digest), STRENGTH.index(floor))]
    assert to.transaction_id == request.transaction_id
    assert (to.recipient_nonce, to.sender_nonce) == (NONCE, FRESH)


def test_unknown_digest_is_answered_with_sha256(request_message: PkiMessage) -> None:
    unknown = replace(request_message, signed=replace(request_message.signed, digest=None))
    assert certrep.reply_to(unknown, FRESH, MD5, SIGNED_AT).digest is SHA256
    assert certrep.reply_to(unknown, FRESH, SHA512, SIGNED_AT).digest is SHA512


@pytest.mark.parametrize(
    ("asked", "floor", "answered"),
    [
        *((cipher, AES128, cipher) for cipher in (AES128, AES192, AES256)),
        *((cipher, AES128_GCM, cipher) for cipher in (AES128_GCM, AES192_GCM, AES256_GCM)),
        *((cipher, DES, cipher) for cipher in CIPHERS.values()),
        *((cipher, AES128, AES128) for cipher in (DES, DES3)),
        *((cipher, AES256_GCM, AES256_GCM) for cipher in (DES, DES3, AES128, AES128_GCM)),
        (AES128_GCM, AES128, AES128_GCM),
        (AES128, AES128_GCM, AES128),
        (AES256, AES256_GCM, AES256),
        (AES128_GCM, AES256, AES256),
    ],
    ids=lambda c: c.name,
)
def test_cipher_of_the_request_is_mirrored_above_the_floor(
    asked: AnyCipher, floor: AnyCipher, answered: AnyCipher
) -> None:
    """The modes are as good as each other; a device that asked in one may not know the other."""
    assert certrep.floor_cipher(asked, floor) is answered


def reply_of(
    by: Identity,
    *,
    message_type: bytes = b"3",
    status: bytes = b"0",
    fail_info: bytes = b"",
    ber: bool = False,
) -> bytes:
    given = [
        attribute(SCEP + "2", tlv(PRINTABLE, message_type)),
        attribute(SCEP + "3", tlv(PRINTABLE, status)),
        attribute(SCEP + "4", tlv(PRINTABLE, fail_info)),
    ]
    return signed(b"x", by, [*given, *cms_attributes(b"x")], ber=ber)


@pytest.mark.parametrize("ber", [False, True], ids=["DER", "BER"])
def test_reply_of_another_server_is_read(
    ra: Identity,
    ber: bool,  # noqa: FBT001
) -> None:
    read = certrep.read_reply(reply_of(ra, status=b"2", fail_info=b"4", ber=ber))
    assert (read.status, read.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_CERT_ID)
    assert (read.transaction_id, read.sender_nonce, read.recipient_nonce) == (b"", b"", b"")


@pytest.mark.parametrize("others", [False, True], ids=["none", "another"])
def test_reply_without_its_signers_certificate_is_read_by_who_knows_it(
    ra: Identity, device: Identity, *, others: bool
) -> None:
    """Clients know it from GetCACert."""
    given = [attribute(SCEP + "2", tlv(PRINTABLE, b"3")), attribute(SCEP + "3", b"\x13\x013")]
    came = [device.der] if others else []
    body = signed(b"x", ra, [*given, *cms_attributes(b"x")], certificates=came)

    assert certrep.read_reply(body, (device.der, ra.der)).signed.signer.der == ra.der
    assert certrep.read_reply(body, (ra.der,)).signed.certificates == tuple(came)
    for known in ((), (device.der,)):
        with pytest.raises(ScepError):
            certrep.read_reply(body, known)


@pytest.mark.parametrize(
    "changes",
    [
        {"message_type": b"19"},
        {"message_type": b""},
        {"status": b""},
        {"status": b"1"},
        {"status": b"\xff"},
        {"status": b"00"},
        {"status": b"2", "fail_info": b"5"},
        {"status": b"2", "fail_info": b"x"},
        {"status": b"2", "fail_info": b"9" * 100},
        {"status": b"2", "fail_info": b"-1"},
    ],
    ids=str,
)
def test_reply_that_says_nothing_known_is_refused(ra: Identity, changes: dict[str, bytes]) -> None:
    with pytest.raises(ScepError):
        certrep.read_reply(reply_of(ra, **changes))


def test_reply_with_a_bad_signature_is_refused(ra: Identity, device: Identity) -> None:
    good = certrep.pending(reply_to(), ra.signer)
    with pytest.raises(ScepError):
        certrep.read_reply(good.replace(FRESH, NONCE))
    forged = signed(b"", ra, sign=messages.rsa_sign(device.key))
    with pytest.raises(ScepError):
        certrep.read_reply(forged)


def test_certificates_are_read_from_der_and_ber(ra: Identity, device: Identity) -> None:
    der = certs_only(device.der, ra.der)
    ber = messages.indefinite(SEQ, der[4:])
    assert certrep.read_certificates(der) == (device.der, ra.der)
    assert certrep.read_certificates(ber + b"\r\n") == (device.der, ra.der)
    with pytest.raises(ScepError):
        certrep.read_certificates(der + b"\0")


def test_reply_to_a_key_that_cannot_be_encrypted_to_is_bad_alg(
    request_message: PkiMessage, ra: Identity
) -> None:
    """Known before anything is issued."""
    odd = replace(request_message.signer, spki=tlv(SEQ))
    with pytest.raises(ScepError) as caught:
        certrep.success(reply_to(), certs_only(), odd, sealing(AES128), ra.signer)
    assert caught.value.fail_info is FailInfo.BAD_ALG
