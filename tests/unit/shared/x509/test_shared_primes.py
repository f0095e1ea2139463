"""Shared primes are found, in one batch and across batches, and nothing else is."""

import math
import random
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.x509.shared_primes import shared_primes

PRIMES = [n for n in range(1009, 1400) if all(n % d for d in range(2, 38))]


def by_pairs(moduli: list[int]) -> set[int]:
    """Those that share a factor with another one, by comparing all with all."""
    pairs = [(a, b) for a, b in combinations(set(moduli), 2) if math.gcd(a, b) > 1]
    return {each for pair in pairs for each in pair}


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 100])
@given(data=st.data())
def test_exactly_those_that_share_a_prime_are_found(data: st.DataObject, batch: int) -> None:
    pairs = st.lists(st.sampled_from(PRIMES), min_size=2, max_size=2, unique=True)
    moduli = [math.prod(pair) for pair in data.draw(st.lists(pairs, max_size=20))]
    found = shared_primes(moduli, batch)

    assert found.keys() == by_pairs(moduli)
    assert all(factor > 1 and n % factor == 0 for n, factor in found.items())


def test_a_shared_prime_of_real_size_is_told() -> None:
    chance = random.Random(7)
    p, q, r = (chance.getrandbits(1024) | 1 << 1023 | 1 for _ in range(3))
    while not math.gcd(p, q) == math.gcd(p, r) == math.gcd(q, r) == 1:
        q, r = q + 2, r + 4

    assert shared_primes([p * q, p * r]) == {p * q: p, p * r: p}
    assert shared_primes([p * q, p * q]) == {}
    assert shared_primes([p * q]) == {}
    assert shared_primes([]) == {}


def test_a_key_whose_primes_are_both_elsewhere_is_found_whole() -> None:
    p, q, r, s = PRIMES[:4]
    found = shared_primes([p * q, p * r, q * s])

    assert found == {p * q: p * q, p * r: p, q * s: q}
