"""Subjects with named parts: formatting, wildcards and parsing. Pure.

The address `ops.revoke.{issuer}.{serial}.{attempt}.ordered` stands for one subject per issuer,
serial number and attempt. A part is never empty and contains no dot.
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

    `writers` may append. `consumers` receive each message through a durable consumer of the role.
    `readers` may read single subjects; the roles that may read a whole stream are listed with the
    stream (shared/bus/grants.py). If the address has a field `{role}` or `{replica}`, a writer may
    write only where its own name is. No stream stores a hint: its `stream` is "".
    """

    address: str
    events: tuple[type[EventPayload], ...]
    stream: str
    writers: tuple[Role, ...]
    consumers: tuple[Role, ...] = ()
    readers: tuple[Role, ...] = ()
    _pattern: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Compile the pattern that parses subjects."""
        text = r"\.".join(map(_pattern_of, self.address.split(".")))
        object.__setattr__(self, "_pattern", re.compile(text))

    def kept_by(self, stream: str) -> dict[str, str] | None:
        """Return the parts in a stream's name (`{shard}`); None if another stream stores it."""
        found = re.fullmatch(_pattern_of(self.stream), stream)
        return found.groupdict() if found is not None else None

    def fields(self) -> tuple[str, ...]:
        """Return the names of the parts, in order."""
        return tuple(_FIELD.findall(self.address))

    def subject(self, **fields: str | int) -> str:
        """Return the subject with these parts; raise `KeyError` if one is missing."""
        return self.address.format_map(fields)

    def wildcard(self, **fields: str | int) -> str:
        """Return the wildcard of all subjects with these parts, with `*` for the other tokens."""
        tokens = (self._token(token, fields) for token in self.address.split("."))
        return ".".join(tokens)

    @staticmethod
    def _token(token: str, fields: Mapping[str, str | int]) -> str:
        names = _FIELD.findall(token)
        return token.format_map(fields) if all(name in fields for name in names) else "*"

    def match(self, subject: str) -> dict[str, str] | None:
        """Return the parts of a subject, or None if it is not a subject of this channel."""
        found = self._pattern.fullmatch(subject)
        return found.groupdict() if found is not None else None


@dataclass(frozen=True, slots=True)
class Match:
    """A subject's channel, and its parts by name."""

    channel: Channel
    fields: Mapping[str, str]


class Channels:
    """All channels of the log, with lookup by subject."""

    def __init__(self, rows: Iterable[Channel]) -> None:
        """Index the rows, keeping their order; no subject may belong to two of them."""
        self.rows = tuple(rows)
        self._by_ends: dict[tuple[str, str], list[Channel]] = {}
        for row in self.rows:
            tokens = row.address.split(".")
            self._by_ends.setdefault((tokens[0], _fixed(tokens[-1])), []).append(row)

    def match(self, subject: str) -> Match | None:
        """Return the channel and parts of a subject, or None if no channel has it."""
        first, _, rest = subject.partition(".")
        for last in (rest.rpartition(".")[2], ""):
            for channel in self._by_ends.get((first, last), ()):
                fields = channel.match(subject)
                if fields is not None:
                    return Match(channel, fields)
        return None


def _pattern_of(token: str) -> str:
    """Return a regular expression for one token; several parts in it are separated by dashes."""
    parts = _FIELD.split(token)
    part = "[^.]+" if len(parts) <= 3 else "[^.-]+"  # noqa: PLR2004 - before, name, behind
    return "".join(
        f"(?P<{text}>{part})" if number % 2 else re.escape(text)
        for number, text in enumerate(parts)
    )


def _fixed(token: str) -> str:
    """Return a token of an address, or "" if it has a named part."""
    return "" if "{" in token else token
