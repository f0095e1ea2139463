"""Finds RSA moduli that share a prime with another one, by Bernstein's batch GCD. Pure.

Keys made with too few random bits share primes, and then anybody can factor them: the greatest
common divisor of two moduli is the prime. For all pairs at once: P is the product of all moduli and
S the sum of P / N over each modulus N, in which all terms but one are multiples of N. So S mod N is
P / N mod N, and gcd(N, S mod N) is not 1 if N shares a prime with any other. Products and sums are
computed up a tree, and S is reduced down the same tree.

Numbers of millions of digits are multiplied and divided as `Decimal`s: that module has number
theoretic transforms and Newton division, which Python's integers do not have. A tree holds
`_BATCH` moduli at most, which bounds the memory; the product of each other batch is reduced down
the same tree.
"""

import decimal
import math
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final

_BATCH: Final = 16384
_EXACT: Final = decimal.Context(
    prec=decimal.MAX_PREC,
    Emax=decimal.MAX_EMAX,
    Emin=decimal.MIN_EMIN,
    traps=[decimal.Inexact, decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow],
)


def shared_primes(moduli: Iterable[int], batch: int = _BATCH) -> dict[int, int]:
    """Return the moduli that share a factor with another one, each with that factor.

    A modulus that occurs twice is one key in two certificates and counts once. The factor is the
    modulus itself if each of its primes is in another one.
    """
    distinct = list(dict.fromkeys(moduli))
    batches = [distinct[start : start + batch] for start in range(0, len(distinct), batch)]
    products = [_Tree(each).product for each in batches] if len(batches) > 1 else [Decimal(1)]
    found: dict[int, int] = {}
    for number, each in enumerate(batches):
        tree = _Tree(each)
        rests = [tree.remainders(tree.sum())]
        rests += [tree.remainders(p) for other, p in enumerate(products) if other != number]
        for modulus, *rest in zip(each, *rests, strict=True):
            factor = math.lcm(*(math.gcd(modulus, r) for r in rest))
            if factor > 1:
                found[modulus] = factor
    return found


class _Tree:
    """The products of moduli in pairs, of these products in pairs, and so on."""

    def __init__(self, moduli: Sequence[int]) -> None:
        self.levels = [[Decimal(each) for each in moduli]]
        while len(self.levels[-1]) > 1:
            level = self.levels[-1]
            pairs = [_EXACT.multiply(*level[i : i + 2]) for i in range(0, len(level) - 1, 2)]
            self.levels.append(pairs + level[len(pairs) * 2 :])

    @property
    def product(self) -> Decimal:
        return self.levels[-1][0]

    def sum(self) -> Decimal:
        """Return the sum of the product without each of the moduli in turn."""
        sums = [Decimal(1)] * len(self.levels[0])
        for level in self.levels[:-1]:
            pairs = [
                _EXACT.add(
                    _EXACT.multiply(sums[i], level[i + 1]), _EXACT.multiply(sums[i + 1], level[i])
                )
                for i in range(0, len(level) - 1, 2)
            ]
            sums = pairs + sums[len(pairs) * 2 :]
        return sums[0]

    def remainders(self, number: Decimal) -> list[int]:
        """Return a number modulo each of the moduli."""
        rests = [_EXACT.remainder(number, self.product)]
        for level in reversed(self.levels[:-1]):
            rests = [_EXACT.remainder(rests[i // 2], each) for i, each in enumerate(level)]
        return list(map(int, rests))
