"""RSA keys that nobody may certify: small exponents, and keys as a broken library made them."""

import math
import random

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from shared.x509.weak_keys import weak_rsa
from tests.support.weak_keys import roca_modulus

F4 = 65537


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_key_of_the_broken_library_is_found(seed: int) -> None:
    assert "ROCA" in weak_rsa(roca_modulus(seed), F4)
    assert "ROCA" in weak_rsa(roca_modulus(seed), F4, legacy=True)


def test_a_key_that_differs_from_one_in_one_prime_is_not() -> None:
    """Not by chance: the smallest prime whose powers of 65537 are not all residues is 11."""
    modulus = roca_modulus(1)
    others = math.prod(n for n in range(2, 168) if n != 11 and all(n % d for d in range(2, n)))
    residues = {weak_rsa(modulus + factor * others * 2, F4) == "" for factor in range(1, 12)}

    assert residues == {True, False}


def test_keys_made_otherwise_are_none(subtests: pytest.Subtests) -> None:
    for bits in (1024, 2048):
        numbers = rsa.generate_private_key(F4, bits).public_key().public_numbers()
        with subtests.test(bits=bits):
            assert weak_rsa(numbers.n, numbers.e) == ""


@pytest.mark.parametrize(
    ("exponent", "modern", "legacy"),
    [
        (1, False, False),
        (2, False, False),
        (3, False, True),
        (17, False, True),
        (65535, False, True),
        (65536, False, False),
        (F4, True, True),
        (F4 + 2, True, True),
        (2**256 + 1, True, True),
    ],
)
def test_small_and_even_exponents_are_refused(
    exponent: int,
    modern: bool,  # noqa: FBT001
    legacy: bool,  # noqa: FBT001
) -> None:
    modulus = random.Random(3).getrandbits(2048) | 1 | 1 << 2047

    assert (weak_rsa(modulus, exponent) == "") is modern
    assert (weak_rsa(modulus, exponent, legacy=True) == "") is legacy


@given(st.integers(0, 2**2048), st.integers(0, 2**2048), st.booleans())
def test_any_numbers_get_an_answer(modulus: int, exponent: int, legacy: bool) -> None:  # noqa: FBT001
    found = weak_rsa(modulus, exponent, legacy=legacy)

    assert len(found) < 200
    if modulus % 2 == 0 or exponent % 2 == 0:
        assert found
