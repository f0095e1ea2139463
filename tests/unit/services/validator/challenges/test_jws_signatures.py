"""Who signed a token, and how: two algorithms, the anchors' keys, and their times."""

import hashlib
import hmac
import itertools
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from services.validator.challenges.jws import Anchor, read_jws, verified_by
from tests.support.messages import integer, tlv
from tests.support.signed_challenges import (
    DAY,
    PrivateKey,
    Sign,
    anchor,
    claims,
    es256_der,
    es256_raw,
    mint,
    p256,
    rs256,
    rsa_key,
)
from tests.support.world import NOW

RS256: Final = {"alg": "RS256"}
ES256: Final = {"alg": "ES256"}
ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
P384: Final = ec.derive_private_key(1001, ec.SECP384R1())
P521: Final = ec.derive_private_key(1001, ec.SECP521R1())
K256: Final = ec.derive_private_key(1001, ec.SECP256K1())


def verifies(token: str, *anchors: Anchor, now: int = NOW) -> bool:
    return verified_by(read_jws(token), anchors, now) is not None


def hmac_with(key: PrivateKey, encoding: serialization.Encoding) -> Sign:
    """The trick of signing with the public key as a shared secret."""
    secret = key.public_key().public_bytes(
        encoding, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return lambda data: hmac.new(secret, data, hashlib.sha256).digest()


def pss(data: bytes) -> bytes:
    scheme = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    return rsa_key().sign(data, scheme, hashes.SHA256())


def raw_rsa(data: bytes) -> bytes:
    """A signature without the DigestInfo around the digest."""
    numbers = rsa_key().private_numbers()
    modulus = numbers.public_numbers.n
    digest = hashlib.sha256(data).digest()
    block = b"\0\1" + b"\xff" * (256 - 3 - len(digest)) + b"\0" + digest
    return pow(int.from_bytes(block, "big"), numbers.d, modulus).to_bytes(256, "big")


WRONG_RSA: Final[dict[str, Sign]] = {
    "PSS": pss,
    "SHA-512": lambda data: rsa_key().sign(data, padding.PKCS1v15(), hashes.SHA512()),
    "SHA-1": lambda data: rsa_key().sign(data, padding.PKCS1v15(), hashes.SHA1()),
    "no DigestInfo": raw_rsa,
    "cut short": lambda data: rs256(rsa_key())(data)[:-1],
    "an octet more": lambda data: rs256(rsa_key())(data) + b"\0",
    "an octet before": lambda data: b"\0" + rs256(rsa_key())(data),
    "one bit": lambda data: bytes([rs256(rsa_key())(data)[0] ^ 1]) + rs256(rsa_key())(data)[1:],
    "zeros": lambda _: b"\0" * 256,
    "one": lambda _: b"\0" * 255 + b"\1",
    "one octet": lambda _: b"\1",
    "the modulus": lambda _: rsa_key().public_key().public_numbers().n.to_bytes(256, "big"),
    "64 octets": lambda _: b"\1" * 64,
    "other bytes": lambda data: rs256(rsa_key())(data + b" "),
    "HMAC under the PEM": hmac_with(rsa_key(), serialization.Encoding.PEM),
    "HMAC under the DER": hmac_with(rsa_key(), serialization.Encoding.DER),
    "ECDSA": es256_raw(p256()),
}


@pytest.mark.parametrize("name", WRONG_RSA)
def test_rs256_is_pkcs1_with_sha256_and_nothing_else(name: str) -> None:
    token = mint(claims(), header=RS256, sign=WRONG_RSA[name])

    assert not verifies(token, anchor(rsa_key()), anchor(p256()))


def numbers_of(data: bytes) -> tuple[int, int]:
    return decode_dss_signature(es256_der(p256())(data))


def side_by_side(r: int, s: int, size: int = 32) -> bytes:
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def der_with(contents: bytes, prefix: bytes = b"\x30") -> bytes:
    return prefix + bytes([len(contents)]) + contents


def long_zero_r(data: bytes) -> bytes:
    """DER but for a needless zero before r."""
    r, s = numbers_of(data)
    first = b"\0" * 2 + r.to_bytes(32, "big")
    return der_with(tlv(2, first) + integer(s))


def three_numbers(data: bytes) -> bytes:
    r, s = numbers_of(data)
    return der_with(integer(r) + integer(s) + integer(1))


def negative_s(data: bytes) -> bytes:
    r, s = numbers_of(data)
    return der_with(integer(r) + tlv(2, (-s).to_bytes(33, "big", signed=True)))


WRONG_EC: Final[dict[str, Sign]] = {
    "s before r": lambda data: side_by_side(*reversed(numbers_of(data))),
    "zeros": lambda _: b"\0" * 64,
    "zeros in DER": lambda _: der_with(integer(0) + integer(0)),
    "r is zero": lambda data: side_by_side(0, numbers_of(data)[1]),
    "s is zero": lambda data: side_by_side(numbers_of(data)[0], 0),
    "both the order": lambda _: side_by_side(ORDER, ORDER),
    "both one": lambda _: side_by_side(1, 1),
    "ones": lambda _: b"\xff" * 64,
    "r beyond the order": lambda data: der_with(
        integer(numbers_of(data)[0] + ORDER) + integer(numbers_of(data)[1])
    ),
    "63 octets": lambda data: es256_raw(p256())(data)[:-1],
    "65 octets": lambda data: es256_raw(p256())(data) + b"\0",
    "a zero before": lambda data: b"\0" + es256_raw(p256())(data),
    "66 octets": lambda data: side_by_side(*numbers_of(data), 33),
    "128 octets": lambda data: side_by_side(*numbers_of(data), 64),
    "one octet": lambda _: b"\0",
    "an empty sequence": lambda _: b"\x30\x00",
    "r alone": lambda data: der_with(integer(numbers_of(data)[0])),
    "three numbers": three_numbers,
    "a negative s": negative_s,
    "a needless zero": long_zero_r,
    "bytes behind the DER": lambda data: es256_der(p256())(data) + b"\0",
    "DER cut short": lambda data: es256_der(p256())(data)[:-1],
    "a length in BER": lambda data: b"\x30\x81" + es256_der(p256())(data)[1:],
    "an indefinite length": lambda data: b"\x30\x80" + es256_der(p256())(data)[2:] + b"\0\0",
    "another tag": lambda data: b"\x31" + es256_der(p256())(data)[1:],
    "SHA-384": lambda data: p256().sign(data, ec.ECDSA(hashes.SHA384())),
    "other bytes": lambda data: es256_raw(p256())(data + b" "),
    "HMAC under the PEM": hmac_with(p256(), serialization.Encoding.PEM),
    "RSA": rs256(rsa_key()),
}


@pytest.mark.parametrize("name", WRONG_EC)
def test_es256_is_ecdsa_with_sha256_in_one_of_two_forms(name: str) -> None:
    token = mint(claims(), header=ES256, sign=WRONG_EC[name])

    assert not verifies(token, anchor(p256()), anchor(rsa_key()))


def test_numbers_that_are_short_stand_in_64_octets_all_the_same() -> None:
    """One signature in 128 has an r or s with a leading zero octet: sign until one comes."""
    key = p256()
    for index in itertools.count():
        token = mint(claims(sub=str(index)), key)
        signature = read_jws(token).signature
        assert len(signature) == 64
        assert verifies(token, anchor(key))
        if 0 in (signature[0], signature[32]):
            break


@pytest.mark.parametrize("key", [P384, P521, K256], ids=lambda key: key.curve.name)
@pytest.mark.parametrize("sign", [es256_raw, es256_der])
@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
def test_no_curve_but_p256_verifies(
    key: ec.EllipticCurvePrivateKey, sign: Any, algorithm: str
) -> None:
    token = mint(claims(), header={"alg": algorithm}, sign=sign(key))

    assert not verifies(token, anchor(key))


@pytest.mark.parametrize(
    ("header", "sign"),
    [
        (RS256, es256_raw(p256())),
        (RS256, es256_der(p256())),
        (ES256, rs256(rsa_key())),
    ],
)
def test_the_algorithm_and_the_kind_of_key_go_together(header: Any, sign: Sign) -> None:
    token = mint(claims(), header=header, sign=sign)

    assert not verifies(token, anchor(rsa_key()), anchor(p256()))


# Anchors


@pytest.mark.parametrize("key", [rsa_key(), p256()], ids=["RSA", "P-256"])
@pytest.mark.parametrize(
    ("not_before", "not_after", "expected"),
    [
        (NOW, NOW, True),
        (NOW - 1, NOW + 1, True),
        (NOW + 1, NOW + DAY, False),
        (NOW - DAY, NOW - 1, False),
        (NOW, NOW + DAY, True),
        (NOW - DAY, NOW, True),
        (NOW + 1, NOW - 1, False),
    ],
)
def test_an_anchor_verifies_from_its_first_second_to_its_last(
    key: PrivateKey,
    not_before: int,
    not_after: int,
    expected: bool,  # noqa: FBT001 - a column of the table
) -> None:
    one = anchor(key, not_before=not_before, not_after=not_after)

    assert one.valid(NOW) is expected
    assert verifies(mint(claims(), key), one) is expected


def anchors_of_all_kinds() -> list[Anchor]:
    keys: list[PrivateKey] = [rsa_key(), rsa_key("stranger"), p256(), p256(1002), P384, K256]
    return [anchor(key, f"CN={index}") for index, key in enumerate(keys)]


@pytest.mark.parametrize(
    ("key", "expected"),
    [(rsa_key(), "CN=0"), (rsa_key("stranger"), "CN=1"), (p256(), "CN=2"), (p256(1002), "CN=3")],
)
def test_each_of_several_anchors_verifies_its_own_tokens(key: Any, expected: str) -> None:
    for anchors in (anchors_of_all_kinds(), anchors_of_all_kinds()[::-1]):
        found = verified_by(read_jws(mint(claims(), key)), anchors, NOW)

        assert found is not None
        assert found.subject == expected


def test_a_renewed_certificate_of_the_same_key_takes_over_from_the_old_one() -> None:
    old = anchor(rsa_key(), "CN=old", not_after=NOW)
    new = anchor(rsa_key(), "CN=new", not_before=NOW)
    jws = read_jws(mint(claims()))

    assert verified_by(jws, [old, new], NOW - 1) == old
    assert verified_by(jws, [old, new], NOW) == old
    assert verified_by(jws, [old, new], NOW + 1) == new


def test_without_anchors_nothing_verifies() -> None:
    assert not verifies(mint(claims()))


def test_an_expired_anchor_does_not_keep_others_from_verifying() -> None:
    expired = anchor(rsa_key(), not_after=NOW - 1)
    early = anchor(rsa_key(), not_before=NOW + 1)

    assert verifies(mint(claims(), p256()), expired, early, anchor(p256()))
    assert not verifies(mint(claims()), expired, early, anchor(p256()))


def test_a_public_exponent_of_three_is_verified_strictly() -> None:
    """A cube root of a sloppy padding block is no signature (CVE-2006-4339)."""
    key = rsa.generate_private_key(3, 2048)
    forged = b"\0\1\xff\xff\xff\xff\xff\xff\xff\xff\0" + bytes.fromhex(
        "3031300d060960864801650304020105000420"
    )

    def sign(data: bytes) -> bytes:
        block = (forged + hashlib.sha256(data).digest()).ljust(256, b"\0")
        low, high, target = 0, 1 << 700, int.from_bytes(block, "big")
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if middle**3 < target else (low, middle)
        assert (low**3).to_bytes(256, "big").startswith(block[: len(forged) + 32])
        return low.to_bytes(256, "big")

    assert not verifies(mint(claims(), key, sign=sign), anchor(key))
