"""Which certificates a notice is about, and what it says. Pure."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from services.audit.query.life import RenewalWindows
from shared.ca.validity import renewable_from

# After a longer outage of the receiver, certificates that expired before get no notice any more.
_EXPIRED_SECONDS: Final = 7 * 86400
Place = tuple[int, str, str]


@dataclass(frozen=True, slots=True)
class Period:
    """A time before the end of certificates: `seconds`, and the next shorter one's seconds."""

    seconds: int
    shorter: int

    def start(self, place: Place, now: int) -> Place:
        """Return the place (end, issuer, serial) after which certificates still need a notice.

        `place` is the last one that got it. What is left to a shorter period is left out; so a
        certificate with little time left gets one notice when notices begin.
        """
        return max(place, (now + self.shorter, "", ""))


def periods(before: Sequence[int]) -> Iterator[Period]:
    """Yield the periods of these times before the end (s), the shortest first."""
    ascending = sorted(set(before))
    for shorter, seconds in pairwise([-_EXPIRED_SECONDS, *ascending]):
        yield Period(seconds, shorter)


def notice(
    certificates: Sequence[Mapping[str, Any]], period: Period, windows: RenewalWindows, now: int
) -> dict[str, Any]:
    """Return the body of a notice about certificates (rows of the table).

    Its `id` follows from the certificates and the period, so that a repetition is recognized.
    """
    digest = hashlib.sha256(str(period.seconds).encode())
    for row in certificates:
        digest.update(f" {row['issuer']} {row['serial']}".encode())
    return {
        "event": "expiring",
        "id": digest.hexdigest()[:32],
        "days": period.seconds / 86400,
        "certificates": [_described(row, windows, now) for row in certificates],
    }


def _described(row: Mapping[str, Any], windows: RenewalWindows, now: int) -> dict[str, Any]:
    begin, end, profile = row["not_before"] or 0, row["not_after"], row["profile"]
    window = windows.windows.get(profile or "")
    return {
        "issuer": row["issuer"],
        "serial": row["serial"],
        "profile": profile,
        "subject": row["subject"],
        "enrollment": row["enrollment"],
        "not_before": begin,
        "not_after": end,
        "renewable_from": renewable_from(begin, end, window),
        "should_have_renewed": windows.should_have_renewed(profile, begin, end, now),
    }
