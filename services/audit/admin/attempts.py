"""How often one address may fail to sign in."""

import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final

_FAILURES: Final = 10
_SECONDS: Final = 60.0
_ADDRESSES: Final = 10_000


@dataclass
class Attempts:
    """Failures of the last minute by address, of the last so many addresses."""

    _failed: OrderedDict[str, deque[float]] = field(default_factory=OrderedDict)

    def wait(self, address: str, now: float) -> int:
        """Whole seconds until this address may try again, 0 for at once; `now` in seconds."""
        failed = self._failed.get(address)
        if failed is None:
            return 0
        while failed and failed[0] <= now - _SECONDS:
            failed.popleft()
        return math.ceil(failed[0] + _SECONDS - now) if len(failed) >= _FAILURES else 0

    def failed(self, address: str, now: float) -> None:
        """Count a failure; where there are too many addresses the oldest is forgotten."""
        self._failed.setdefault(address, deque(maxlen=_FAILURES)).append(now)
        self._failed.move_to_end(address)
        if len(self._failed) > _ADDRESSES:
            self._failed.popitem(last=False)

    def forgive(self, address: str) -> None:
        """The last attempt was none: it did not fail."""
        failed = self._failed.get(address)
        if failed:
            failed.pop()
