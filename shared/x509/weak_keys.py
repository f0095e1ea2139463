"""RSA keys that are known to be weak, whatever their size. Pure, in bounded time.

* Keys that Infineon's library made on smart cards and TPMs before 2017 can be factored (ROCA,
  CVE-2017-15361). Modulo each of the first primes, both factors of such a modulus are powers of
  65537, and so is the modulus itself. Of keys made otherwise, about one in 2^27 looks the same.
* Primes close to each other are found by Fermat's method (CVE-2022-26320), which the CA/Browser
  Forum requires 100 rounds of (BR s6.1.1.3).
* A modulus with a small factor is no product of two large primes (NIST SP 800-89 s5.3.3).
* A modulus that repeats one byte 16 times, or with too few or too many ones, was not made from
  random numbers. These two are badkeys' checks `pattern` and `rsabias` (https://badkeys.info).

Weak keys that only lists or other keys reveal: `blocked_keys` and `shared_primes`.
"""

import math
from typing import Final

_GENERATOR: Final = 65537
_LEAST_EXPONENT: Final = 65537  # NIST SP 800-56B rev. 2, s6.2; CA/Browser Forum BR s6.1.6
_LARGEST_PRIME: Final = 167  # the largest that the keys of every size have in common
_FACTORS_BELOW: Final = 752
_ROUNDS: Final = 100
_NO_DIFFERENCE: Final = bytes(15)
_LEAST_BITS: Final = 2000  # below, the share of ones varies too much by chance
_BIAS: Final = 0.1  # of random moduli of 2048 bits, about one in 10^19 is that far from one half


def weak_rsa(modulus: int, exponent: int, *, legacy: bool = False) -> str:
    """Return why an RSA public key must not be certified, "" if nothing is known against it.

    With `legacy`, small exponents such as 3 and 17 are tolerated.
    """
    if exponent % 2 == 0 or exponent < (3 if legacy else _LEAST_EXPONENT):
        return f"the RSA exponent {min(exponent, 10**9)} is too small or even"
    if exponent >= modulus or modulus % 2 == 0:
        return "the RSA modulus and exponent do not make a key"
    return next((problem for has, problem in _WEAKNESSES if has(modulus)), "")


def _has_small_factor(modulus: int) -> bool:
    return math.gcd(modulus, _PRODUCT) > 1


def _is_roca(modulus: int) -> bool:
    return all(modulus % prime in powers for prime, powers in _POWERS)


def _repeats(modulus: int) -> bool:
    """Return whether 16 bytes in a row are equal: each is the one before it."""
    differences = modulus ^ modulus >> 8
    return _NO_DIFFERENCE in differences.to_bytes((modulus.bit_length() + 7) // 8, "big")


def _is_biased(modulus: int) -> bool:
    """Return whether the share of ones is far from one half, in the lower half too.

    In the upper half alone it may be by choice: a vanity key begins with a text.
    """
    size = modulus.bit_length()
    lower = modulus & (1 << size // 2) - 1
    return size > _LEAST_BITS and _leans(modulus, size) and _leans(lower, size // 2)


def _leans(number: int, size: int) -> bool:
    return abs(number.bit_count() / size - 0.5) > _BIAS


def _has_close_primes(modulus: int) -> bool:
    """Look for a square a^2 - modulus, whose root is half the difference of the primes.

    a begins at the modulus's root. A square is one modulo every number, which excludes all but one
    round in 1500 before any large number is computed.
    """
    root = math.isqrt(modulus)
    if root * root == modulus:
        return True
    first, possible = root + 1, (1 << _ROUNDS) - 1
    first_residue, residue = first % _FILTER, modulus % _FILTER
    for number, masks in _SQUARES:
        possible &= masks[first_residue % number][residue % number]
    while possible:
        each = (possible & -possible).bit_length() - 1
        possible &= possible - 1
        square = (first + each) ** 2 - modulus
        if math.isqrt(square) ** 2 == square:
            return True
    return False


def _primes(last: int) -> list[int]:
    return [n for n in range(3, last + 1) if all(n % divisor for divisor in range(2, n))]


def _powers(prime: int) -> frozenset[int]:
    """Return the powers of the generator modulo a prime."""
    return frozenset(pow(_GENERATOR, exponent, prime) for exponent in range(prime - 1))


def _masks(number: int) -> list[list[int]]:
    """Return, by the residues of a and of a modulus, the rounds that may give a square, as bits."""
    squares = {root * root % number for root in range(number)}
    repeated = sum(1 << shift for shift in range(0, _ROUNDS, number))
    return [
        [
            repeated * sum(1 << k for k in range(number) if ((a + k) ** 2 - n) % number in squares)
            for n in range(number)
        ]
        for a in range(number)
    ]


_PRODUCT: Final = math.prod(_primes(_FACTORS_BELOW))
# Those that most moduli fail first.
_POWERS: Final = sorted(
    ((prime, _powers(prime)) for prime in _primes(_LARGEST_PRIME)),
    key=lambda each: len(each[1]) / each[0],
)
_SQUARES: Final = [(number, _masks(number)) for number in (16, *_primes(31))]
_FILTER: Final = math.prod(number for number, _ in _SQUARES)
_WEAKNESSES: Final = (
    (_is_roca, "the RSA key was made by a library whose keys can be factored (ROCA)"),
    (_repeats, "the RSA modulus repeats one byte: it was not made from random numbers"),
    (_is_biased, "the bits of the RSA modulus are not random"),
    (_has_small_factor, f"the RSA modulus has a factor below {_FACTORS_BELOW}"),
    (_has_close_primes, "the RSA key's primes are too close to each other: it can be factored"),
)
