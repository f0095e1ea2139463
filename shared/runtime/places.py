"""Places: how many of a kind may wait at once for somebody outside."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from shared.limits import PROFILE_PLACES


@dataclass
class Places:
    """How many requests may wait for one service outside at once.

    One that answers slowly must not fill a worker with waiting requests: others share it.
    """

    most: int = PROFILE_PLACES
    _taken: int = 0

    @contextmanager
    def taken(self) -> Iterator[bool]:
        """Take a place for the length of a block; False where none is free."""
        free = self._taken < self.most
        self._taken += free
        try:
            yield free
        finally:
            self._taken -= free
