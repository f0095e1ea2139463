"""A CA's files as operators give them."""

from collections.abc import Callable
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from shared.config.ca_files import read_ca
from shared.config.keys import read_certificates
from shared.config.load import SettingsError
from tests.support import pki

VECTORS = Path(__file__).parents[3] / "vectors" / "cas"
KEYS = [ec.derive_private_key(100 + i, ec.SECP256R1()) for i in range(4)]
SIGNS = ("key_cert_sign", "crl_sign")
Files = tuple[Path, Path]
Given = Callable[[str, str], Files]


@pytest.fixture
def vector(tmp_path: Path) -> Given:
    """A certificate and a key of the recorded files, the key for its owner alone."""

    def copy(certificate: str, key: str) -> Files:
        own = tmp_path / key
        own.write_bytes((VECTORS / key).read_bytes())
        own.chmod(0o600)
        return VECTORS / certificate, own

    return copy


def made(number: int, above: int, **options: Any) -> x509.Certificate:
    """CA number so-and-so, signed by the one above it."""
    values = {"usage": SIGNS, "ca": True} | options
    return pki.make_certificate(
        KEYS[number].public_key(), KEYS[above],
        subject=f"CA {number}", issuer=f"CA {above}", **values,
    )  # fmt: skip


CHAIN = (made(0, 1), made(1, 2), made(2, 3), made(3, 3))


def files(directory: Path, *certificates: x509.Certificate, key: int = 0) -> Files:
    cert_path = pki.write_certificate(directory / "ca.pem", *certificates)
    return cert_path, pki.write_key(directory / "ca.key", KEYS[key])


def refused(cert_path: Path, key_path: Path, chain_path: Path | None = None) -> str:
    with pytest.raises(SettingsError) as error:
        read_ca(cert_path, key_path, chain_path)
    return str(error.value)


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        ("nosign.pem", "nosign.key", "without keyCertSign"),
        ("nocrl.pem", "nocrl.key", "without cRLSign"),
        ("encrypted.pem", "encrypted.key", "the key is encrypted"),
    ],
)
def test_a_ca_that_will_not_do_is_refused_with_the_reason(
    vector: Given, certificate: str, key: str, said: str
) -> None:
    cert_path, key_path = vector(certificate, key)
    complaint = refused(cert_path, key_path)

    assert said in complaint
    assert str(key_path if "key is" in said else cert_path) in complaint


def test_a_chain_out_of_order_is_sorted(vector: Given) -> None:
    cert_path, key_path = vector("order-bad.pem", "order.key")
    chain, _ = read_ca(cert_path, key_path)

    assert set(chain) == set(read_certificates(cert_path))
    for lower, upper in pairwise(chain):
        lower.verify_directly_issued_by(upper)


@pytest.mark.parametrize("order", list(permutations(range(4))), ids=repr)
def test_a_chain_in_any_order_is_sorted(tmp_path: Path, order: tuple[int, ...]) -> None:
    paths = files(tmp_path, *(CHAIN[i] for i in order))

    assert read_ca(*paths)[0] == CHAIN


def test_certificates_given_twice_count_once(tmp_path: Path) -> None:
    assert read_ca(*files(tmp_path, *CHAIN, *CHAIN))[0] == CHAIN


@pytest.mark.parametrize(
    ("certificate", "said"),
    [
        (made(0, 0, ca=None), "has no BasicConstraints"),
        (made(0, 0, ca=False), "CA:FALSE"),
        (made(0, 0, usage=("key_cert_sign",)), "without cRLSign"),
        (made(0, 0, usage=("crl_sign",)), "without keyCertSign"),
        (made(0, 0, usage=("digital_signature",)), "without keyCertSign"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_certificate_that_may_not_sign_is_refused(
    tmp_path: Path, certificate: x509.Certificate, said: str
) -> None:
    complaint = refused(*files(tmp_path, certificate))

    assert said in complaint
    assert '"CN=CA 0"' in complaint


def test_a_ca_without_key_usages_may_sign_everything(tmp_path: Path) -> None:
    own = made(0, 0, usage=None)

    assert read_ca(*files(tmp_path, own))[0] == (own,)


def test_the_key_says_which_certificate_is_the_cas(tmp_path: Path) -> None:
    assert "is not the key of" in refused(*files(tmp_path, CHAIN[0], key=1))
    assert '"CN=CA 0" is not in the chain from "CN=CA 1" to its root' in refused(
        *files(tmp_path, *CHAIN, key=1)
    )


def test_a_gap_in_the_chain_is_named(tmp_path: Path) -> None:
    complaint = refused(*files(tmp_path, CHAIN[0], CHAIN[1], CHAIN[3]))

    assert '"CN=CA 3" is not in the chain from "CN=CA 0" to its root' in complaint


def test_what_has_nothing_to_do_with_the_ca_is_named(tmp_path: Path) -> None:
    namesake = pki.make_certificate(
        KEYS[3].public_key(), KEYS[3], subject="CA 1", issuer="CA 1", usage=SIGNS, ca=True
    )

    assert "CN=CA 1" in refused(*files(tmp_path, CHAIN[0], namesake))


def test_the_chain_may_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    above = pki.write_certificate(tmp_path / "chain.pem", *reversed(CHAIN[1:]))

    assert read_ca(*files(tmp_path, CHAIN[0]), above)[0] == CHAIN


def test_a_root_beside_a_chain_that_is_for_another_ca_stands_alone(tmp_path: Path) -> None:
    """An issuer has one chain file for its CAs, and the next one may be a root."""
    above = pki.write_certificate(tmp_path / "chain.pem", *CHAIN[1:3])

    assert read_ca(*files(tmp_path, CHAIN[3], key=3), above)[0] == (CHAIN[3],)
    assert str(above) in refused(*files(tmp_path, made(0, 3)), above)


def test_any_encrypted_key_is_refused_as_such(tmp_path: Path) -> None:
    cert_path, key_path = files(tmp_path, CHAIN[0])
    encrypted = KEYS[0].private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"secret")
    )
    key_path.write_bytes(encrypted)

    assert "the key is encrypted" in refused(cert_path, key_path)
