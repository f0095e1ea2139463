"""Counts of the certificates that expire or should have been renewed, measured in the database."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from services.audit.query.certificates import count_expiring, count_not_renewed
from services.audit.query.inventory import renewal_windows
from services.audit.store.engine import Engine
from shared.config.sections import Configuration
from shared.observe.metrics import CERTIFICATES_EXPIRING, CERTIFICATES_NOT_RENEWED
from shared.runtime.periodic import every

# Counting takes seconds if a million devices never renew but enroll again.
_SECONDS: Final = 300.0
_FIRST_SECONDS: Final = 10.0
_DAYS: Final = (1, 7, 30)
_OTHER: Final = "other"  # profiles that are not configured any more


@dataclass
class ExpiryGauges:
    """Sets the gauges; `clock` returns the log's time in Unix seconds."""

    engine: Engine
    configuration: Callable[[], Configuration]
    clock: Callable[[], float]

    async def run(self) -> None:
        """Measure every few minutes, forever."""
        await every(_SECONDS, self.look, name="expiry", delay=_FIRST_SECONDS, retry=_FIRST_SECONDS)

    async def look(self) -> None:
        """Measure once. If that fails, there are no values: old ones would look healthy."""
        try:
            now, configuration = int(self.clock()), await asyncio.to_thread(self.configuration)
            expiring, late = await asyncio.to_thread(self._count, configuration, now)
        except Exception:
            _forget()
            raise
        _forget()
        profiles = configuration.profiles.keys()
        for place, days in enumerate(_DAYS):
            counts = {profile: found[place] for profile, found in expiring.items()}
            for profile, count in _by_label(counts, profiles).items():
                CERTIFICATES_EXPIRING.labels(profile, str(days)).set(count)
        for profile, count in _by_label(late, profiles).items():
            CERTIFICATES_NOT_RENEWED.labels(profile).set(count)

    def _count(
        self, configuration: Configuration, now: int
    ) -> tuple[dict[str, list[int]], dict[str, int]]:
        with self.engine.connect() as connection:
            late = count_not_renewed(connection, renewal_windows(configuration), now)
            return count_expiring(connection, now, _DAYS), late


def _forget() -> None:
    CERTIFICATES_EXPIRING.clear()
    CERTIFICATES_NOT_RENEWED.clear()


def _by_label(counts: Mapping[str, int], profiles: Collection[str]) -> dict[str, int]:
    """Return the counts of all configured profiles, and the sum of all others if there are any."""
    found = {profile: counts.get(profile, 0) for profile in profiles}
    if rest := sum(count for profile, count in counts.items() if profile not in found):
        found[_OTHER] = rest
    return found
