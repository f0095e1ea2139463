"""RSA numbers with known weaknesses, made as the broken programs made them."""

import math
import random
from functools import cache

_BITS = 1024  # of a prime
_WITNESSES = 8


@cache
def roca_modulus(seed: int) -> int:
    """A modulus as Infineon's library made it: of primes k * M + (65537^a mod M)."""
    rng = random.Random(seed)
    return _prime(rng) * _prime(rng)


@cache
def sound_modulus(bits: int, seed: int = 0) -> int:
    """A number of so many bits against which nothing is known; it need not be two primes."""
    rng = random.Random(seed)
    while True:
        found = rng.getrandbits(bits) | 1 | 1 << bits - 1
        if all(found % prime for prime in range(3, 1000, 2)):
            return found


@cache
def close_modulus(distance: int, seed: int = 0) -> int:
    """A modulus of primes some `distance` apart, as the generator takes the next one."""
    rng = random.Random(seed)
    first = _next_prime(rng.getrandbits(_BITS) | 1 | 3 << (_BITS - 2), rng)
    return first * (_next_prime(first + distance, rng) if distance else first)


def _next_prime(number: int, rng: random.Random) -> int:
    number |= 1
    while not _is_prime(number, rng):
        number += 2
    return number


def _prime(rng: random.Random) -> int:
    product = math.prod(n for n in range(2, 168) if all(n % divisor for divisor in range(2, n)))
    while True:
        power = pow(65537, rng.getrandbits(64), product)
        factor = rng.randrange(3 * 2 ** (_BITS - 2) // product, 2**_BITS // product)
        if _is_prime(found := factor * product + power, rng):
            return found


def _is_prime(number: int, rng: random.Random) -> bool:
    """By Miller and Rabin."""
    if any(number % prime == 0 for prime in range(3, 1000, 2)):
        return False
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for _ in range(_WITNESSES):
        value = pow(rng.randrange(2, number - 1), odd, number)
        if value in (1, number - 1):
            continue
        for _ in range(twos - 1):
            value = value * value % number
            if value == number - 1:
                break
        else:
            return False
    return True
