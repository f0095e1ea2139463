"""Settings that a reload replaces while a service runs."""

from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S")


@dataclass
class Live(Generic[S]):
    """The settings in effect. Everyone who holds this object sees a reload at once.

    What is read after an await may be newer: keep what must fit together in a variable.
    """

    current: S
