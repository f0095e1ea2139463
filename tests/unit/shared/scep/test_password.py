"""Content keys under a password: PBKDF2 and the wrapping of RFC 3211."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.scep import envelope, password, pkimessage
from shared.scep.algorithms import (
    AES128,
    AES192,
    AES256,
    AES256_GCM,
    AUTHENTICATED_CIPHERS,
    CIPHERS,
    DES,
    DES3,
    PKCS1V15,
    AlgorithmPolicy,
    AnyCipher,
    ContentCipher,
)
from shared.scep.asn1 import Der
from shared.scep.envelope import ContentEncryption
from shared.scep.errors import FailInfo, ScepError
from shared.scep.password import (
    MAX_ITERATIONS,
    WRITTEN_ITERATIONS,
    Derivation,
    Password,
    PasswordRecipient,
)
from tests.support import messages, sealing
from tests.support.messages import (
    CONTENT_KEY,
    IV,
    NULL,
    SEQ,
    Identity,
    enveloped,
    integer,
    oid,
    recipient,
    signed,
    tlv,
)
from tests.support.sealing import (
    PASSWORD,
    PBKDF2,
    PRFS,
    PWRI_KEK,
    SALT,
    authenticated,
    derived,
    password_recipient,
    pbkdf2_id,
    wrap,
)
from tests.unit.shared.scep import oracles

CONTENT = bytes(range(256)) * 3
WRONG = "s3creT"
RFC_3211_SALT = bytes.fromhex("1234567878563412")
KEKS = list(messages.CIPHERS)
EVERY = [*CIPHERS.values(), *AUTHENTICATED_CIPHERS.values()]


def read(info: bytes) -> PasswordRecipient:
    return password.read_password_recipient(Der(info).enter(0xA3))


def refusal(info: bytes) -> FailInfo:
    with pytest.raises(ScepError) as caught:
        read(info)
    return caught.value.fail_info


def to(cipher: AnyCipher, said: str = PASSWORD) -> Password:
    block = envelope.wrapping_cipher(cipher).block_size
    return Password(said, SALT, IV[:block], bytes(range(1, 1 + block)))


def written(cipher: AnyCipher) -> bytes:
    return envelope.write_envelope(CONTENT, to(cipher), how(cipher))


def how(cipher: AnyCipher) -> ContentEncryption:
    return ContentEncryption(cipher, PKCS1V15, CONTENT_KEY[: cipher.key_size], IV[: cipher.iv_size])


# RFC 3211


@pytest.mark.parametrize(
    ("said", "iterations", "cipher", "iv", "wrapped", "kek", "key"),
    [
        (
            "password",
            5,
            DES,
            "efe598ef21b33d6d",
            "b81b2565ee373ca6dedca26a178b0c10",
            "d1daa78615f287e6",
            "8c627c897323a2f8",
        ),
        (
            "All n-entities must communicate with other n-entities via n-1 entiteeheehees",
            500,
            DES3,
            "baf1ca7931213c4e",
            "c03c514abdb9e2c5aac038572b5e24553876b377aafb82eca5a9d73f8ab143d9ec74e6cad7db260c",
            "6a8970bf68c92caea84a8df28510858607126380cc47ab2d",
            "8c637d887223a2f965b566eb014b0fa5d52300a3f7ea40fffc577203c71baf3b",
        ),
    ],
    ids=["single DES", "3DES"],
)
def test_examples_of_rfc_3211_unwrap(
    said: str, iterations: int, cipher: ContentCipher, iv: str, wrapped: str, kek: str, key: str
) -> None:
    derivation = Derivation(RFC_3211_SALT, iterations, hashes.SHA1())
    found = PasswordRecipient(derivation, cipher, bytes.fromhex(iv), bytes.fromhex(wrapped))
    assert derivation.key(said, cipher.key_size).hex() == kek
    assert found.unwrap(said) == bytes.fromhex(key)
    assert found.unwrap(said + " ") is None


# Reading


@pytest.mark.parametrize("prf", PRFS)
@pytest.mark.parametrize("kek", KEKS)
@pytest.mark.parametrize("size", [8, 16, 24, 32])
def test_key_wrapped_elsewhere_is_unwrapped(kek: str, prf: str, size: int) -> None:
    key = CONTENT_KEY[:size]
    found = read(password_recipient(key, cipher=kek, prf=prf))
    assert found.cipher.name == kek
    assert found.derivation.prf.name == prf
    assert (found.derivation.salt, found.derivation.iterations) == (SALT, 1000)
    assert found.unwrap(PASSWORD) == key
    assert found.unwrap(WRONG) is None


@pytest.mark.parametrize("said", ["", " ", "ü", "日本", "a\0b", "x" * 1000])
def test_any_password_is_its_utf_8(said: str) -> None:
    """RFC 8018 s2 leaves the encoding open, RFC 3211 wants UTF-8."""
    found = read(password_recipient(CONTENT_KEY, said))
    assert found.unwrap(said) == CONTENT_KEY
    assert found.unwrap(said + "x") is None


@pytest.mark.parametrize("salt", [b"", b"\0", bytes(8), bytes(128)], ids=len)
def test_salt_up_to_the_bound_is_taken(salt: bytes) -> None:
    assert read(password_recipient(CONTENT_KEY, salt=salt)).unwrap(PASSWORD) == CONTENT_KEY


def test_salt_beyond_the_bound_is_bad_alg() -> None:
    assert refusal(password_recipient(CONTENT_KEY, salt=bytes(129))) is FailInfo.BAD_ALG


@pytest.mark.parametrize("iterations", [1, 2, 2048, MAX_ITERATIONS])
def test_iterations_up_to_the_bound_are_taken(iterations: int) -> None:
    info = password_recipient(CONTENT_KEY, iterations=iterations)
    assert read(info).derivation.iterations == iterations
    assert read(info).unwrap(PASSWORD) == CONTENT_KEY


@pytest.mark.parametrize(
    "iterations",
    [
        integer(0),
        integer(MAX_ITERATIONS + 1),
        *(integer(1 << bits) for bits in (16, 31, 32, 39, 40, 47, 63, 4000)),
        *(tlv(2, octets) for octets in (b"", b"\xff", b"\x80\0\0\0\0\0", b"\0" * 5 + b"\x01")),
    ],
    ids=bytes.hex,
)
def test_iterations_out_of_bounds_are_refused_before_any_is_made(iterations: bytes) -> None:
    """Also those that would be few if the last octets of a long number were not read."""
    named = tlv(SEQ, oid(PRFS["sha256"]), NULL)
    derivation = tlv(0xA0, PBKDF2, tlv(SEQ, tlv(4, SALT), iterations, named))
    info = password_recipient(CONTENT_KEY, derivation=derivation)
    assert refusal(info) is FailInfo.BAD_ALG


@pytest.mark.parametrize("parameters", [NULL, b""], ids=["NULL", "absent"])
@pytest.mark.parametrize("key_length", [b"", integer(32)], ids=["no length", "a length"])
def test_optional_parts_of_pbkdf2_may_stand(key_length: bytes, parameters: bytes) -> None:
    derivation = pbkdf2_id(key_length=key_length, parameters=parameters)
    info = password_recipient(CONTENT_KEY, derivation=derivation)
    assert read(info).unwrap(PASSWORD) == CONTENT_KEY


def test_hmac_sha1_may_be_named() -> None:
    """It is the DEFAULT, which some encoders write."""
    named = tlv(SEQ, oid(PRFS["sha1"]), NULL)
    derivation = tlv(0xA0, PBKDF2, tlv(SEQ, tlv(4, SALT), integer(1000), named))
    wrapped = wrap(CONTENT_KEY, derived(PASSWORD, "sha1", 32))
    info = password_recipient(CONTENT_KEY, derivation=derivation, wrapped=wrapped)
    assert read(info).unwrap(PASSWORD) == CONTENT_KEY


@pytest.mark.parametrize(
    "changes",
    [
        {"derivation": b""},
        {"derivation": tlv(0xA0, oid("1.3.6.1.4.1.11591.4.11"), tlv(SEQ))},
        {"derivation": tlv(0xA0, oid("1.2.840.113549.1.5.13"), tlv(SEQ))},
        {"derivation": pbkdf2_id().replace(oid(PRFS["sha256"]), oid("1.2.840.113549.2.8"))},
        {"derivation": pbkdf2_id().replace(oid(PRFS["sha256"]), oid("1.2.840.113549.2.6"))},
        {"wrapping": tlv(SEQ, oid("2.16.840.1.101.3.4.1.45"))},
        {"wrapping": tlv(SEQ, oid("1.2.840.113549.1.9.16.3.10"), NULL)},
        {"wrapping": tlv(SEQ, PWRI_KEK, sealing.gcm_id("aes256-gcm"))},
        {"wrapping": tlv(SEQ, PWRI_KEK, tlv(SEQ, oid("1.2.840.113549.3.2"), tlv(4, IV)))},
    ],
    ids=[
        *("no derivation", "scrypt", "PBES2", "HMAC-SHA-224", "HMAC-MD5"),
        *("AES key wrap", "other wrap", "GCM", "RC2"),
    ],
)
def test_other_algorithms_are_bad_alg(changes: dict[str, bytes]) -> None:
    assert refusal(password_recipient(CONTENT_KEY, **changes)) is FailInfo.BAD_ALG


@pytest.mark.parametrize(
    "changes",
    [
        {"derivation": tlv(0xA0, PBKDF2)},
        {"derivation": tlv(0xA0, PBKDF2, tlv(SEQ, tlv(4, SALT)))},
        {"derivation": tlv(0xA0, PBKDF2, tlv(SEQ, tlv(SEQ, oid("1.2.3")), integer(1)))},
        {"wrapping": tlv(SEQ, PWRI_KEK)},
        {"wrapping": tlv(SEQ, PWRI_KEK, tlv(SEQ, oid("2.16.840.1.101.3.4.1.42"), NULL))},
        {"wrapping": tlv(SEQ, PWRI_KEK, tlv(SEQ, oid("2.16.840.1.101.3.4.1.42"), tlv(4, IV[1:])))},
    ],
    ids=["no parameters", "no iterations", "salt elsewhere", "no cipher", "no IV", "short IV"],
)
def test_what_is_cut_short_is_refused(changes: dict[str, bytes]) -> None:
    refusal(password_recipient(CONTENT_KEY, **changes))


# Unwrapping

KEK = derived(PASSWORD, "sha256", 32)
CHECK = bytes(octet ^ 0xFF for octet in CONTENT_KEY[:3])


@pytest.mark.parametrize(
    "wrapped",
    [
        b"",
        bytes(16),
        bytes(31),
        bytes(33),
        wrap(CONTENT_KEY, KEK)[:-16],
        wrap(CONTENT_KEY, KEK)[16:],
        wrap(CONTENT_KEY, KEK)[::-1],
        wrap(CONTENT_KEY, KEK, head=b"\x20" + CONTENT_KEY[:3]),
        wrap(CONTENT_KEY, KEK, head=b"\x20\0\0\0"),
        wrap(CONTENT_KEY, KEK, head=b"\x2d" + CHECK),
        wrap(CONTENT_KEY, KEK, head=b"\xff" + CHECK),
        wrap(CONTENT_KEY, KEK, head=b"\0" + CHECK),
        wrap(CONTENT_KEY, KEK, head=b"\x02" + CHECK),
    ],
    ids=[
        *("empty", "one block", "31", "33", "cut at the end", "cut at the start", "reversed"),
        *("check not inverted", "no check", "longer than it is", "255", "no length", "length 2"),
    ],
)
def test_what_does_not_unwrap_is_no_key(wrapped: bytes) -> None:
    assert read(password_recipient(CONTENT_KEY, wrapped=wrapped)).unwrap(PASSWORD) is None


def test_not_one_octet_of_the_wrapped_key_may_change() -> None:
    """The check value sees most changes; the content's own check sees those to the key's end."""
    info = password_recipient(CONTENT_KEY)
    good = read(info)
    for at in range(len(good.wrapped)):
        changed = bytearray(good.wrapped)
        changed[at] ^= 1 << at % 8
        assert replace(good, wrapped=bytes(changed)).unwrap(PASSWORD) != CONTENT_KEY


@pytest.mark.parametrize("kind", ["salt", "iterations", "prf", "iv"])
def test_another_derivation_or_iv_gives_another_key(kind: str) -> None:
    good = read(password_recipient(CONTENT_KEY))
    derivation = {
        "salt": replace(good.derivation, salt=SALT[1:]),
        "iterations": replace(good.derivation, iterations=999),
        "prf": replace(good.derivation, prf=hashes.SHA1()),
        "iv": good.derivation,
    }[kind]
    iv = bytes(16) if kind == "iv" else good.iv
    assert replace(good, derivation=derivation, iv=iv).unwrap(PASSWORD) is None


# Envelopes


@pytest.mark.parametrize("form", ["primitive", "constructed", "ber"])
@pytest.mark.parametrize("seal", [enveloped, authenticated], ids=["CBC", "GCM"])
def test_envelope_under_a_password_opens(seal: Callable[..., bytes], form: str) -> None:
    found = envelope.read_envelope(seal(CONTENT, password_recipient(CONTENT_KEY), form=form))
    assert found.recipients == ()
    assert pkimessage.unwrap_with_password(found, ["", WRONG]) is None
    assert pkimessage.unwrap_with_password(found, []) is None
    opened = pkimessage.unwrap_with_password(found, [WRONG, PASSWORD, "other"])
    assert opened == (PASSWORD, CONTENT_KEY)
    assert found.decrypt(CONTENT_KEY) == CONTENT


def test_envelope_in_ber_throughout_opens() -> None:
    """Streamed by a writer that uses indefinite lengths for the recipient too."""
    info = password_recipient(CONTENT_KEY)
    streamed = messages.indefinite(0xA3, Der(info).value(0xA3))
    found = envelope.read_envelope(enveloped(CONTENT, streamed, form="ber"))
    assert pkimessage.unwrap_with_password(found, [PASSWORD]) == (PASSWORD, CONTENT_KEY)


@pytest.mark.parametrize("size", [8, 16, 24, 31])
def test_wrapped_key_of_another_size_than_the_ciphers_does_not_open(size: int) -> None:
    found = envelope.read_envelope(enveloped(CONTENT, password_recipient(CONTENT_KEY[:size])))
    assert found.passwords[0].unwrap(PASSWORD) == CONTENT_KEY[:size]
    assert pkimessage.unwrap_with_password(found, [PASSWORD]) is None


def test_whether_the_content_opens_does_not_decide_which_password_fits() -> None:
    """It would tell whoever altered the content about its padding."""
    info = password_recipient(CONTENT_KEY[::-1])
    found = envelope.read_envelope(authenticated(CONTENT, info))
    assert pkimessage.unwrap_with_password(found, [PASSWORD]) == (PASSWORD, CONTENT_KEY[::-1])


def test_only_the_first_few_passwords_are_tried() -> None:
    """Each costs a key derivation."""
    found = envelope.read_envelope(enveloped(CONTENT, password_recipient(CONTENT_KEY)))
    wrong = [f"wrong-{number}" for number in range(pkimessage.MAX_PASSWORDS)]
    assert pkimessage.unwrap_with_password(found, [*wrong[1:], PASSWORD]) is not None
    assert pkimessage.unwrap_with_password(found, [*wrong, PASSWORD]) is None


def test_two_passwords_are_refused() -> None:
    """Each costs thousands of hashes."""
    infos = [password_recipient(CONTENT_KEY)] * 2
    with pytest.raises(ScepError):
        envelope.read_envelope(enveloped(CONTENT, *infos))


def test_password_beside_a_certificate_leaves_both_to_try(ra: Identity) -> None:
    infos = recipient(ra), password_recipient(CONTENT_KEY)
    for order in (infos, infos[::-1]):
        found = envelope.read_envelope(enveloped(CONTENT, *order))
        key = pkimessage.unwrap_content_key(found, [ra.decryption], bytes(32))
        assert found.decrypt(key) == CONTENT
        assert pkimessage.unwrap_with_password(found, [PASSWORD]) == (PASSWORD, CONTENT_KEY)


@pytest.mark.parametrize("kek", ["des", "des3"])
def test_old_cipher_around_the_key_needs_a_legacy_profile(device: Identity, kek: str) -> None:
    """A content key under single DES is no better kept than the content would be."""
    inner = enveloped(CONTENT, password_recipient(CONTENT_KEY, cipher=kek))
    message = pkimessage.read_message(signed(inner, device))
    assert pkimessage.read_envelope(message, AlgorithmPolicy(legacy=True)).passwords
    with pytest.raises(ScepError) as caught:
        pkimessage.read_envelope(message, AlgorithmPolicy())
    assert caught.value.fail_info is FailInfo.BAD_ALG


# Writing


@pytest.mark.parametrize("cipher", EVERY, ids=lambda c: c.name)
def test_what_is_written_is_opened_by_its_password_alone(cipher: AnyCipher) -> None:
    found = envelope.read_envelope(written(cipher))
    key = CONTENT_KEY[: cipher.key_size]
    assert found.recipients == ()
    assert pkimessage.unwrap_with_password(found, [WRONG]) is None
    assert pkimessage.unwrap_with_password(found, [PASSWORD]) == (PASSWORD, key)
    assert found.decrypt(key) == CONTENT


@pytest.mark.parametrize("cipher", EVERY, ids=lambda c: c.name)
def test_written_recipient_is_what_the_tests_make_of_it(cipher: AnyCipher) -> None:
    """Same derivation, same wrapping, same bytes."""
    kek = envelope.wrapping_cipher(cipher)
    key = CONTENT_KEY[: cipher.key_size]
    expected = password_recipient(key, cipher=kek.name, iterations=WRITTEN_ITERATIONS)
    assert password.write_password_recipient(key, to(cipher), kek) == expected


@pytest.mark.parametrize("cipher", [AES128, AES192, AES256], ids=lambda c: c.name)
def test_written_envelope_is_strict_der(cipher: ContentCipher) -> None:
    message = written(cipher)
    data = oracles.enveloped_data(message)
    assert data["version"].native == "v3"
    (info,) = data["recipient_infos"]
    assert info.name == "pwri"
    assert info.chosen["version"].native == "v0"
    derivation = info.chosen["key_derivation_algorithm"]
    assert derivation["algorithm"].native == "pbkdf2"
    assert derivation["parameters"]["salt"].native == SALT
    assert derivation["parameters"]["iteration_count"].native == WRITTEN_ITERATIONS
    assert derivation["parameters"]["prf"]["algorithm"].native == "sha256"
    wrapping = info.chosen["key_encryption_algorithm"]
    assert wrapping["algorithm"].dotted == "1.2.840.113549.1.9.16.3.9"
    assert wrapping["parameters"].dump() == cipher.identifier(IV)
    assert tlv(SEQ, messages.ENVELOPED, data.dump(force=True)) == message


def test_nothing_of_the_password_shows_in_what_is_written() -> None:
    recipient = to(AES256_GCM, "correct horse battery staple")
    assert b"horse" not in envelope.write_envelope(CONTENT, recipient, how(AES256_GCM))


# openssl


@pytest.mark.parametrize("streaming", ["-stream", "-noindef"])
@pytest.mark.parametrize("cipher", ["aes128", "aes192", "aes256", "des3"])
def test_what_openssl_encrypts_under_a_password_is_read(cipher: str, streaming: str) -> None:
    message = oracles.openssl(
        *("cms", "-encrypt", "-binary", "-outform", "DER", *oracles.LEGACY),
        *(f"-{cipher}", streaming, "-pwri_password", PASSWORD),
        stdin=CONTENT,
    )
    found = envelope.read_envelope(message)
    assert found.cipher.name == cipher
    assert pkimessage.unwrap_with_password(found, [WRONG]) is None
    opened = pkimessage.unwrap_with_password(found, [WRONG, PASSWORD])
    assert opened is not None
    assert found.decrypt(opened[1]) == CONTENT


def test_what_openssl_encrypts_to_both_opens_by_both(ra: Identity, tmp_path: Path) -> None:
    pem, _ = oracles.write_pem(ra, tmp_path)
    message = oracles.openssl(
        *("cms", "-encrypt", "-binary", "-outform", "DER", "-aes256"),
        *("-pwri_password", PASSWORD, "-recip", pem),
        stdin=CONTENT,
    )
    found = envelope.read_envelope(message)
    key = pkimessage.unwrap_content_key(found, [ra.decryption], bytes(32))
    assert pkimessage.unwrap_with_password(found, [PASSWORD]) == (PASSWORD, key)
    assert found.decrypt(key) == CONTENT


@pytest.mark.parametrize("cipher", EVERY, ids=lambda c: c.name)
def test_openssl_decrypts_what_is_written_under_a_password(cipher: AnyCipher) -> None:
    opened = oracles.openssl(
        *("cms", "-decrypt", "-binary", "-inform", "DER", *oracles.LEGACY),
        *("-pwri_password", PASSWORD),
        stdin=written(cipher),
    )
    assert opened == CONTENT


# Any bytes


@given(data=st.binary(max_size=300))
@example(data=b"")
@example(data=password_recipient(CONTENT_KEY)[2:-1])
def test_any_bytes_are_a_recipient_or_the_one_error(data: bytes) -> None:
    try:
        password.read_password_recipient(Der(data))
    except ScepError:
        return


@settings(max_examples=300)
@given(at=st.floats(0, 0.999), octet=st.integers(0, 255), size=st.integers(0, 2))
def test_any_edit_of_a_recipient_gives_a_key_none_or_the_one_error(
    at: float, octet: int, size: int
) -> None:
    good = password_recipient(CONTENT_KEY, iterations=2)
    start = int(at * len(good))
    data = good[:start] + bytes((octet,)) + good[start + size :]
    try:
        found = read(data)
    except ScepError:
        return
    assert 0 < found.derivation.iterations <= MAX_ITERATIONS
    key = found.unwrap(PASSWORD)
    assert key is None or len(key) < 256


@given(wrapped=st.binary(max_size=100), said=st.text(max_size=10))
@example(wrapped=bytes(32), said="\ud800")
def test_any_wrapped_key_and_password_give_a_key_or_none(wrapped: bytes, said: str) -> None:
    found = replace(read(password_recipient(CONTENT_KEY, iterations=1)), wrapped=wrapped)
    key = found.unwrap(said)
    assert key is None or len(key) >= 3


@given(cipher=st.sampled_from(EVERY), key=st.binary(min_size=32, max_size=32))
def test_every_key_survives_the_wrapping(cipher: AnyCipher, key: bytes) -> None:
    key, kek = key[: cipher.key_size], envelope.wrapping_cipher(cipher)
    info = password.write_password_recipient(key, to(cipher), kek)
    assert read(info).unwrap(PASSWORD) == key
