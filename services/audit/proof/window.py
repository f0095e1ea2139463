"""Selection of the events of a replay or an export. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from services.audit.record.event_row import DecodedMessage
from shared.log.envelope import NANOSECONDS
from shared.log.events.certificates import CertificateRecorded
from shared.log.subjects import parse_prefix

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Window:
    """A profile (None for all), and times in Unix nanoseconds (None for no limit).

    `since` is included, `until` is not.
    """

    profile: str | None = None
    since: int | None = None
    until: int | None = None

    def holds(self, found: DecodedMessage) -> bool:
        """Return whether the event is selected."""
        time = found.stored.time
        if self.since is not None and time < self.since:
            return False
        if self.until is not None and time >= self.until:
            return False
        return self.profile is None or profile_of(found) == self.profile


def moment(text: str | None) -> int | None:
    """Return an RFC 3339 time in Unix nanoseconds; without an offset it is UTC.

    Raises `ValueError` for anything else; its message shows the format.
    """
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text}: write a time as 2026-01-31T12:00:00Z") from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    since = found - _EPOCH  # integers: a float cannot hold nanoseconds since 1970
    return (since.days * 86400 + since.seconds) * NANOSECONDS + since.microseconds * 1000


def profile_of(found: DecodedMessage) -> str | None:
    """Return the profile that an event is about; None if it is about none."""
    tokens = found.stored.subject.split(".")
    if tokens[0] == "enroll":
        return tokens[2]
    if tokens[:2] in (["ops", "reload"], ["ops", "ra"], ["ops", "challenge"]):
        return tokens[2]
    if isinstance(found.event, CertificateRecorded):
        try:
            return parse_prefix(found.event.enrollment).profile
        except ValueError:
            return None
    return None
