"""Settings that a reload replaces while a service runs."""

from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S")


@dataclass
class Live(Generic[S]):
    """The settings in effect. Everyone who holds this object sees a reload at once.

    Read `current` once for one piece of work: what is read later may be newer.
    """

    current: S
