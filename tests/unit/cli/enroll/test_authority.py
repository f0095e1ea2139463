from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cli.enroll.authority import (
    Authority,
    UntrustedError,
    check_pin,
    issued_by,
    read_authority,
)
from shared.scep.cacert import write_ca_certs
from tests.support import pki

OTHER_KEY = ec.derive_private_key(21, ec.SECP256R1())
SIGN = ("digital_signature",)
DECRYPT = ("key_encipherment",)


def sent(*certificates: x509.Certificate) -> bytes:
    return write_ca_certs([pki.der(c) for c in certificates])[1]


@pytest.fixture
def root(ec_key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    return pki.make_root(ec_key)


@pytest.fixture
def make_ra(ec_key: ec.EllipticCurvePrivateKey, rsa_key: rsa.RSAPrivateKey) -> Any:
    """Makes RA certificates of the root for one RSA key."""

    def make(*usage: str, key: Any = None, by: Any = None, issuer: str = "Test CA") -> Any:
        return pki.make_certificate(
            key or rsa_key.public_key(),
            by or ec_key,
            subject="RA",
            usage=usage or None,
            issuer=issuer,
        )

    return make


# Sorting


def test_a_split_ra_is_told_apart_by_its_usages(root: x509.Certificate, make_ra: Any) -> None:
    signs, decrypts = make_ra(*SIGN), make_ra(*DECRYPT)
    for order in ((signs, decrypts, root), (root, decrypts, signs)):
        found = read_authority(sent(*order))
        assert found.ca == root
        assert found.recipient.der == pki.der(decrypts)
        assert found.signers == (pki.der(signs),)


def test_one_ra_may_do_both(root: x509.Certificate, make_ra: Any) -> None:
    for both in (make_ra(*SIGN, *DECRYPT), make_ra()):
        found = read_authority(sent(both, root))
        assert found.recipient.der == pki.der(both)
        assert found.signers == (pki.der(both),)


def test_a_lone_ca_is_its_own_ra(rsa_key: rsa.RSAPrivateKey) -> None:
    only = pki.make_root(rsa_key)
    found = read_authority(sent(only))

    assert (found.ca, found.recipient.der, found.signers) == (only, pki.der(only), (pki.der(only),))


def test_of_a_chain_the_ca_that_issued_the_ra_is_the_ca(
    root: x509.Certificate, make_ra: Any
) -> None:
    above = pki.make_root(OTHER_KEY, "Above")
    sub = pki.make_certificate(
        root.public_key(),
        OTHER_KEY,
        subject="Test CA",
        issuer="Above",
        usage=("key_cert_sign",),
        ca=True,
    )
    found = read_authority(sent(make_ra(*SIGN, *DECRYPT), above, sub))

    assert found.ca == sub
    assert set(found.chain) == {sub, above}


def test_without_a_ca_nothing_is_believed(make_ra: Any) -> None:
    with pytest.raises(UntrustedError, match="no CA certificate"):
        read_authority(sent(make_ra(*SIGN), make_ra(*DECRYPT)))


def test_an_ra_of_another_ca_is_not_believed(root: x509.Certificate, make_ra: Any) -> None:
    foreign = make_ra(*DECRYPT, by=OTHER_KEY)

    with pytest.raises(UntrustedError, match="an RA certificate that its CA did not issue"):
        read_authority(sent(make_ra(*SIGN), foreign, root))


def test_an_ra_that_only_claims_its_issuer_is_not_believed(
    root: x509.Certificate, make_ra: Any
) -> None:
    with pytest.raises(UntrustedError, match="an RA certificate that its CA did not issue"):
        read_authority(sent(make_ra(*SIGN, *DECRYPT, by=OTHER_KEY), root))


def test_without_a_certificate_that_can_receive_there_is_no_request(
    root: x509.Certificate, make_ra: Any
) -> None:
    for lacking in (make_ra(*SIGN), make_ra(*SIGN, *DECRYPT, key=OTHER_KEY.public_key())):
        with pytest.raises(UntrustedError, match="no certificate to encrypt requests to"):
            read_authority(sent(lacking, root))


def test_a_ca_that_nobody_vouches_for_is_not_kept(root: x509.Certificate, make_ra: Any) -> None:
    """Whoever sits between could add one; the chain is written where devices look for trust."""
    stranger = pki.make_root(OTHER_KEY, "Stranger CA")
    for order in (
        (make_ra(*SIGN, *DECRYPT), root, stranger),
        (make_ra(*SIGN, *DECRYPT), stranger, root),
    ):
        try:
            found = read_authority(sent(*order))
        except UntrustedError:
            continue
        assert stranger not in found.chain
        assert not issued_by(found, stranger)


# Pins


@pytest.fixture
def authority(root: x509.Certificate, make_ra: Any) -> Authority:
    return read_authority(sent(make_ra(*SIGN, *DECRYPT), root))


def test_without_a_pin_the_ca_is_not_pinned(authority: Authority) -> None:
    assert check_pin(authority, None, None) is False


def test_the_ca_itself_pins(authority: Authority, root: x509.Certificate) -> None:
    assert check_pin(authority, root, None) is True


def test_a_root_pins_the_cas_that_it_issued(make_ra: Any, root: x509.Certificate) -> None:
    above = pki.make_root(OTHER_KEY, "Above")
    sub = pki.make_certificate(
        root.public_key(),
        OTHER_KEY,
        subject="Test CA",
        issuer="Above",
        usage=("key_cert_sign",),
        ca=True,
    )
    found = read_authority(sent(make_ra(*SIGN, *DECRYPT), sub))

    assert check_pin(found, above, None) is True


def test_another_ca_is_refused_even_of_the_same_name(authority: Authority) -> None:
    with pytest.raises(UntrustedError, match="neither the one in --ca-file nor issued by it"):
        check_pin(authority, pki.make_root(OTHER_KEY), None)


def test_a_fingerprint_pins_in_any_spelling(authority: Authority, root: x509.Certificate) -> None:
    plain = root.fingerprint(hashes.SHA256()).hex()
    colons = ":".join(plain[i : i + 2] for i in range(0, 64, 2)).upper()

    for spelling in (plain, plain.upper(), colons, colons.replace(":", " ")):
        assert check_pin(authority, None, spelling) is True


@pytest.mark.parametrize("fingerprint", ["", "00" * 32, "00", "not hex"])
def test_another_fingerprint_is_refused_with_the_true_one(
    authority: Authority, fingerprint: str
) -> None:
    with pytest.raises(UntrustedError, match=authority.fingerprint):
        check_pin(authority, None, fingerprint)


def test_part_of_a_fingerprint_pins_nothing(authority: Authority) -> None:
    with pytest.raises(UntrustedError):
        check_pin(authority, None, authority.fingerprint[:40])


def test_a_certificate_of_the_ca_is_known_by_its_signature(
    authority: Authority, make_ra: Any
) -> None:
    assert issued_by(authority, make_ra(*SIGN))
    assert not issued_by(authority, make_ra(*SIGN, by=OTHER_KEY))
