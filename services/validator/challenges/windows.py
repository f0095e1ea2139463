"""Gate 8: limits the enrollments of one device within a day. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from shared.log.events.state import CountedEnrollment
from shared.log.subjects import EnrollmentId, parse_prefix, same_csr

WINDOW_SECONDS: Final = 86400

Entries = tuple[CountedEnrollment, ...]


@dataclass(frozen=True, slots=True)
class Counted:
    """The enrollment has a place; `entries` is the window with it, to be stored if `changed`."""

    entries: Entries
    changed: bool


@dataclass(frozen=True, slots=True)
class Full:
    """No place is free; `entries` are the other enrollments, some of which may have failed."""

    entries: Entries


def count(
    window: Sequence[CountedEnrollment],
    enrollment: EnrollmentId,
    now: int,
    limit: int,
    failed: Collection[str] = (),
) -> Counted | Full:
    """Give an enrollment a place in its device's window; `now` in Unix seconds.

    An enrollment takes one place, however often it is delivered or retried, and so does a CSR,
    whoever signs its messages. `failed` names entries that are known to have ended without a
    certificate: they do not count.
    """
    mine = CountedEnrollment(enrollment=enrollment.prefix(), at=now)
    if any(entry.enrollment == mine.enrollment for entry in window):
        return Counted(tuple(window), changed=False)
    alive = [
        entry
        for entry in window
        if entry.at > now - WINDOW_SECONDS and entry.enrollment not in failed
    ]
    if any(is_others(entry, enrollment) for entry in alive):
        return Counted(tuple(window), changed=False)
    others = tuple(entry for entry in alive if not _same(entry, enrollment))
    if len(others) < limit or len(others) < len(alive):  # an earlier attempt had a place
        return Counted((*others, mine), changed=True)
    return Full(others)


def is_others(entry: CountedEnrollment, enrollment: EnrollmentId) -> bool:
    """Return whether an entry is for the same CSR in a message that another key signed."""
    other = parse_prefix(entry.enrollment)
    return same_csr(other, enrollment) and not _same(entry, enrollment)


def _same(entry: CountedEnrollment, enrollment: EnrollmentId) -> bool:
    """Return whether an entry is an attempt of the same enrollment."""
    return parse_prefix(entry.enrollment).at(enrollment.attempt) == enrollment
