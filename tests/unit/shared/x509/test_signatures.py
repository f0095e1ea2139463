from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from shared.scep.errors import ScepError
from shared.x509.signatures import is_issued_by, is_signed_by
from tests.support import pki
from tests.support.messages import (
    HASHES,
    NULL,
    SEQ,
    Identity,
    certificate,
    name,
    oid,
    rsa_sign,
    tlv,
)
from tests.support.signing import PKCS1_OIDS, ec_device, every_way
from tests.unit.shared.scep.revocations import crl

CA_KEY = ec.derive_private_key(5, ec.SECP256R1())
LEAF_KEY = ec.derive_private_key(7, ec.SECP256R1()).public_key()
CA_NAME = pki.name("Test CA").public_bytes()
LEAF = pki.der(pki.make_certificate(LEAF_KEY, CA_KEY))
TBS = x509.load_der_x509_certificate(LEAF).tbs_certificate_bytes


def issued(der: bytes, name: bytes = CA_NAME, key: Any = None) -> bool:
    return is_issued_by(der, name, key or CA_KEY.public_key())


def test_a_certificate_of_the_ca_is_known(rsa_key: rsa.RSAPrivateKey) -> None:
    of_rsa = pki.der(pki.make_certificate(LEAF_KEY, rsa_key))

    assert issued(LEAF)
    assert issued(of_rsa, key=rsa_key.public_key())


def test_another_key_or_name_did_not_issue_it(rsa_key: rsa.RSAPrivateKey) -> None:
    assert not issued(LEAF, key=LEAF_KEY)
    assert not issued(LEAF, key=rsa_key.public_key())
    assert not issued(LEAF, pki.name("Other CA").public_bytes())
    assert not issued(LEAF, b"")


def test_it_agrees_with_another_library() -> None:
    root = pki.make_root(CA_KEY)
    x509.load_der_x509_certificate(LEAF).verify_directly_issued_by(root)

    assert issued(LEAF, root.subject.public_bytes())


@given(st.integers(0, 8 * len(TBS) - 1))
def test_not_one_signed_bit_may_change(bit: int) -> None:
    changed = bytearray(LEAF)
    changed[LEAF.index(TBS) + bit // 8] ^= 1 << bit % 8

    assert not issued(bytes(changed))


@pytest.mark.parametrize("der", [b"", tlv(SEQ), LEAF[:-1], LEAF + b"\0", tlv(SEQ, LEAF)])
def test_what_is_no_certificate_was_issued_by_nobody(der: bytes) -> None:
    assert not issued(der)


@given(st.binary(max_size=80))
def test_any_bytes_are_answered(data: bytes) -> None:
    assert issued(data) is False


def pss(digest: str, salt: int) -> padding.PSS:
    return padding.PSS(padding.MGF1(HASHES[digest][1]), salt)


def signed_by(ca: Identity, digest: str, how: padding.PSS | None = None) -> bytes:
    builder = certificate("leaf", LEAF_KEY, ca, 5)
    made = builder.sign(ca.key, HASHES[digest][1], rsa_padding=how)
    return made.public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("salt", [-1, 0, 20, 64], ids=["PKCS#1", "no salt", "20", "64"])
def test_certificate_and_crl_of_every_rsa_scheme_are_the_cas(
    ra: Identity, device: Identity, digest: str, salt: int
) -> None:
    """As another library signs them."""
    how = pss(digest, salt) if salt >= 0 else None
    for made in (signed_by(ra, digest, how), crl(ra, 5, 6, digest=HASHES[digest][1], pss=how)):
        assert is_signed_by(made, ra.key.public_key())
        assert not is_signed_by(made, device.key.public_key())
    assert is_issued_by(signed_by(ra, digest, how), ra.certificate.subject, ra.key.public_key())


@pytest.mark.parametrize("curve", ["P-256", "P-384", "P-521"])
@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
def test_crl_of_an_ec_ca_is_its_own(curve: str, digest: str) -> None:
    ca = ec_device(curve)
    made = crl(ca, 5, digest=HASHES[digest][1])
    other = ec.derive_private_key(9, ca.key.curve)
    assert is_signed_by(made, ca.key.public_key())
    assert not is_signed_by(made, other.public_key())


@pytest.mark.parametrize("how", [None, pss("sha256", 32)], ids=["PKCS#1", "PSS"])
def test_not_one_octet_of_a_crl_or_its_signature_may_change(
    ra: Identity, how: padding.PSS | None
) -> None:
    good = crl(ra, 5, 6, pss=how)
    parsed = x509.load_der_x509_crl(good)
    end = good.index(parsed.tbs_certlist_bytes) + len(parsed.tbs_certlist_bytes)
    places = [*range(end), *range(len(good) - 256, len(good))]
    for at in places:
        changed = bytearray(good)
        changed[at] ^= 1 << at % 8
        try:
            assert not is_signed_by(bytes(changed), ra.key.public_key()), at
        except ScepError:
            continue


def test_signature_that_is_not_whole_octets_is_none(ra: Identity) -> None:
    """As with CSRs: the BIT STRING's unused bits are part of it."""
    good = crl(ra, 5)
    at = len(good) - 257
    assert good[at] == 0
    changed = good[:at] + b"\x01" + good[at + 1 :]
    with pytest.raises(ScepError):
        is_signed_by(changed, ra.key.public_key())


@pytest.mark.parametrize("digest", PKCS1_OIDS)
def test_md5_is_no_signature_of_a_ca(ra: Identity, digest: str) -> None:
    """Collisions of it have made false CAs; SHA-1 stands for old chains."""
    body = tlv(SEQ, name(), tlv(4, b"anything"))
    algorithm = tlv(SEQ, oid(PKCS1_OIDS[digest]), NULL)
    made = tlv(SEQ, body, algorithm, tlv(3, b"\0", rsa_sign(ra.key, digest)(body)))
    assert is_signed_by(made, ra.key.public_key()) is (digest != "md5")


def test_any_way_to_sign_is_known(ra: Identity) -> None:
    body = tlv(SEQ, tlv(4, b"anything"))
    for what, way in every_way(ra).items():
        if not what.startswith("PSS") and not what.endswith("named"):
            continue  # rsaEncryption and ecPublicKey name no digest
        made = tlv(SEQ, body, way.algorithm, tlv(3, b"\0", way.sign(body)))
        assert is_signed_by(made, way.by.key.public_key()) is ("md5" not in what), what


@pytest.mark.parametrize("der", [b"", tlv(SEQ), LEAF[:-1], LEAF + b"\0", tlv(SEQ, LEAF)])
def test_what_is_nothing_signed_is_refused_or_nobodys(der: bytes) -> None:
    with pytest.raises(ScepError):
        is_signed_by(der, CA_KEY.public_key())


def test_algorithm_of_another_kind_of_key_is_refused(ra: Identity) -> None:
    with pytest.raises(ScepError):
        is_signed_by(LEAF, ra.key.public_key())
    with pytest.raises(ScepError):
        is_signed_by(crl(ra), CA_KEY.public_key())


@given(st.binary(max_size=80))
def test_any_bytes_are_signed_by_nobody_or_refused(data: bytes) -> None:
    try:
        assert not is_signed_by(data, CA_KEY.public_key())
    except ScepError:
        return
