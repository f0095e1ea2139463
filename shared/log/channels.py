"""Subjects with named parts: written, turned into wildcards and read back. Pure.

The address `ops.revoke.{issuer}.{serial}.{attempt}.ordered` is one subject for each issuer, serial
number and attempt. A part is never empty and holds no dot.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from shared.log.events.base import EventPayload
from shared.log.roles import Role

_FIELD: Final = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True, eq=False)
class Channel:
    """One kind of subject: what may be recorded there, by whom, and who acts on it.

    `writers` may append. `consumers` are handed each message, in a durable consumer of the role.
    `readers` may read a single subject; the roles that may read everything of a stream stand with
    the stream (shared/bus/topology.py). With a field `{role}` or `{replica}` in the address, a
    writer may write where its own name stands. A hint is kept by no stream: its `stream` is "".
    """

    address: str
    events: tuple[type[EventPayload], ...]
    stream: str
    writers: tuple[Role, ...]
    consumers: tuple[Role, ...] = ()
    readers: tuple[Role, ...] = ()
    _pattern: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Prepare to read subjects."""
        text = r"\.".join(map(_pattern_of, self.address.split(".")))
        object.__setattr__(self, "_pattern", re.compile(text))

    def kept_by(self, stream: str) -> dict[str, str] | None:
        """Return the parts that a stream's name gives (`{shard}`); None for another stream."""
        found = re.fullmatch(_pattern_of(self.stream), stream)
        return found.groupdict() if found is not None else None

    def fields(self) -> tuple[str, ...]:
        """Return the names of the parts, in order."""
        return tuple(_FIELD.findall(self.address))

    def subject(self, **fields: str | int) -> str:
        """Return the subject with all of these parts; `KeyError` where one is missing."""
        return self.address.format_map(fields)

    def wildcard(self, **fields: str | int) -> str:
        """Return the pattern of all subjects with these parts, whatever the others are."""
        tokens = (self._token(token, fields) for token in self.address.split("."))
        return ".".join(tokens)

    @staticmethod
    def _token(token: str, fields: Mapping[str, str | int]) -> str:
        names = _FIELD.findall(token)
        return token.format_map(fields) if all(name in fields for name in names) else "*"

    def match(self, subject: str) -> dict[str, str] | None:
        """Return the parts of a subject; None where it is no subject of this channel."""
        found = self._pattern.fullmatch(subject)
        return found.groupdict() if found is not None else None


@dataclass(frozen=True, slots=True)
class Match:
    """A subject's channel, and its parts by name."""

    channel: Channel
    fields: Mapping[str, str]


class Channels:
    """All channels of a log, to find the one that a subject belongs to."""

    def __init__(self, rows: Iterable[Channel]) -> None:
        """Keep the rows in their order; no subject may belong to two of them."""
        self.rows = tuple(rows)
        self._by_ends: dict[tuple[str, str], list[Channel]] = {}
        for row in self.rows:
            tokens = row.address.split(".")
            self._by_ends.setdefault((tokens[0], _fixed(tokens[-1])), []).append(row)

    def match(self, subject: str) -> Match | None:
        """Return the channel and parts of a subject; None for one that is not ours."""
        first, _, rest = subject.partition(".")
        for last in (rest.rpartition(".")[2], ""):
            for channel in self._by_ends.get((first, last), ()):
                fields = channel.match(subject)
                if fields is not None:
                    return Match(channel, fields)
        return None


def _pattern_of(token: str) -> str:
    """Return a regular expression for one token; of several parts in it each ends at a dash."""
    parts = _FIELD.split(token)
    part = "[^.]+" if len(parts) <= 3 else "[^.-]+"  # noqa: PLR2004 - before, name, behind
    return "".join(
        f"(?P<{text}>{part})" if number % 2 else re.escape(text)
        for number, text in enumerate(parts)
    )


def _fixed(token: str) -> str:
    """Return a token of an address if it has no named part, else nothing."""
    return "" if "{" in token else token
