"""Keeps Graph's answers that allow a device, for a minute: one device may ask several times."""

from dataclasses import dataclass, field
from typing import Final

from services.validator.compliance import Choice, Compliance, DeviceIds

SECONDS: Final = 60.0
_MOST: Final = 4096


@dataclass
class AllowedDevices:
    """Answers by device, each until a time (Unix seconds). Nothing else than a yes is kept."""

    _kept: dict[DeviceIds, tuple[Compliance, float]] = field(default_factory=dict)

    def get(self, ids: DeviceIds, now: float) -> Compliance | None:
        """Return an answer that is not older than SECONDS, None if there is none."""
        found, until = self._kept.get(ids, (None, 0.0))
        return found if now < until <= now + SECONDS else None

    def keep(self, ids: DeviceIds, found: Compliance, now: float) -> None:
        """Keep an answer if it allows the device."""
        if found.choice is not Choice.ALLOW:
            return
        self._kept.pop(ids, None)
        while len(self._kept) >= _MOST:
            del self._kept[next(iter(self._kept))]  # the oldest
        self._kept[ids] = found, now + SECONDS
