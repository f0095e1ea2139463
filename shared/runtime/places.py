"""Limits on how many requests may wait at once for an external service."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from shared.limits import PROFILE_PLACES


@dataclass
class Places:
    """A limit of `most` requests that may wait for one external service at once.

    A slow service must not fill a worker that others share with waiting requests.
    """

    most: int = PROFILE_PLACES
    _taken: int = 0

    @contextmanager
    def taken(self) -> Iterator[bool]:
        """Take a place for the duration of a block; yield False if none is free."""
        free = self._taken < self.most
        self._taken += free
        try:
            yield free
        finally:
            self._taken -= free
