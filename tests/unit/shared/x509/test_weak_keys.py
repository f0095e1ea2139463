"""RSA keys that nobody may certify: small exponents, and keys as a broken library made them."""

import math
import random

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from shared.x509.weak_keys import _has_close_primes, weak_rsa
from tests.support.weak_keys import close_modulus, roca_modulus, sound_modulus

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


@pytest.mark.slow
@pytest.mark.parametrize("distance", [0, 2, 10**6, 2**500])
def test_primes_close_to_each_other_are_found(distance: int) -> None:
    """As a library made them that took the next prime (CVE-2022-26320)."""
    assert "close" in weak_rsa(close_modulus(distance), F4)


@pytest.mark.slow
def test_primes_far_enough_apart_are_not() -> None:
    """100 rounds find a difference up to about 2^517 in 2048 bits; random primes have 2^1020."""
    assert weak_rsa(close_modulus(2**530), F4) == ""


@pytest.mark.parametrize("factor", [3, 5, 7, 743, 751])
def test_a_small_factor_is_found(factor: int) -> None:
    assert "factor" in weak_rsa(sound_modulus(2040) * factor, F4)


@pytest.mark.parametrize("factor", [757, 761, 65537])
def test_a_larger_factor_is_not(factor: int) -> None:
    """NIST SP 800-89 s5.3.3 and the Baseline Requirements look for those below 752."""
    assert weak_rsa(sound_modulus(2040) * factor, F4) == ""


def test_a_modulus_that_repeats_a_byte_is_found() -> None:
    sound = sound_modulus(2048).to_bytes(256, "big")
    for repeated, said in ((15, ""), (16, "repeats"), (100, "repeats")):
        for byte in (b"\x00", b"\x5a", b"\xff"):
            made = int.from_bytes(sound[:64] + byte * repeated + sound[64 + repeated :], "big")
            problem = weak_rsa(made, F4)
            assert said in problem
            assert said or "repeats" not in problem


def test_a_modulus_with_few_or_many_ones_is_found() -> None:
    """A vanity key, whose lower half is as it should be, is none of these."""
    rng = random.Random(5)
    for kept in (lambda: rng.random() < 0.35, lambda: rng.random() < 0.65):
        bits = "1" + "".join("1" if kept() else "0" for _ in range(2046)) + "1"
        modulus = int(bits, 2)
        while math.gcd(modulus, math.prod(range(3, 752, 2))) > 1:
            modulus += 2
        assert "not random" in weak_rsa(modulus, F4)
    vanity = (0x5533 << 2032) | sound_modulus(2048) % (1 << 1024) | 1
    assert "not random" not in weak_rsa(vanity, F4)


@given(st.integers(2**40, 2**80), st.integers(0, 99))
def test_each_of_100_rounds_is_tried(root: int, rounds: int) -> None:
    """A modulus a^2 - b^2 with b that the last, or an earlier, round reaches."""
    b = math.isqrt(2 * root * rounds)
    modulus = root**2 - b**2

    assert root - math.isqrt(modulus) <= 100
    assert _has_close_primes(modulus)


@pytest.mark.slow
def test_no_sound_key_is_refused() -> None:
    for seed in range(2000):
        assert weak_rsa(sound_modulus(2048, seed), F4) == ""


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
    modulus = sound_modulus(2048)

    assert (weak_rsa(modulus, exponent) == "") is modern
    assert (weak_rsa(modulus, exponent, legacy=True) == "") is legacy


@given(st.integers(0, 2**2048), st.integers(0, 2**2048), st.booleans())
def test_any_numbers_get_an_answer(modulus: int, exponent: int, legacy: bool) -> None:  # noqa: FBT001
    found = weak_rsa(modulus, exponent, legacy=legacy)

    assert len(found) < 200
    if modulus % 2 == 0 or exponent % 2 == 0:
        assert found
