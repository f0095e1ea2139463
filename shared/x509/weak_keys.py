"""RSA keys that are known to be weak, whatever their size. Pure.

Keys that Infineon's library made on smart cards and TPMs before 2017 can be factored (ROCA,
CVE-2017-15361). Modulo each of the first primes, both factors of such a modulus are powers of
65537, and so is the modulus itself. Of keys made otherwise, about one in 2^27 looks the same.
"""

from typing import Final

_GENERATOR: Final = 65537
_LEAST_EXPONENT: Final = 65537  # NIST SP 800-56B rev. 2, s6.2; CA/Browser Forum BR s6.1.6
_LARGEST_PRIME: Final = 167  # the largest that the keys of every size have in common


def weak_rsa(modulus: int, exponent: int, *, legacy: bool = False) -> str:
    """Return why an RSA public key must not be certified, "" if nothing is known against it.

    With `legacy`, small exponents such as 3 and 17 are tolerated.
    """
    if exponent % 2 == 0 or exponent < (3 if legacy else _LEAST_EXPONENT):
        return f"the RSA exponent {min(exponent, 10**9)} is too small or even"
    if exponent >= modulus or modulus % 2 == 0:
        return "the RSA modulus and exponent do not make a key"
    if all(modulus % prime in powers for prime, powers in _POWERS):
        return "the RSA key was made by a library whose keys can be factored (ROCA)"
    return ""


def _primes(last: int) -> list[int]:
    return [n for n in range(3, last + 1) if all(n % divisor for divisor in range(2, n))]


def _powers(prime: int) -> frozenset[int]:
    """Return the powers of the generator modulo a prime."""
    return frozenset(pow(_GENERATOR, exponent, prime) for exponent in range(prime - 1))


# Those that most moduli fail first.
_POWERS: Final = sorted(
    ((prime, _powers(prime)) for prime in _primes(_LARGEST_PRIME)),
    key=lambda each: len(each[1]) / each[0],
)
