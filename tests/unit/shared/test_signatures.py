from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from shared.signatures import is_issued_by
from tests.unit import pki
from tests.unit.shared.scep.messages import SEQ, tlv

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
