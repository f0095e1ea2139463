r"""Patterns that subjects and subjectAltNames must match, as the configuration writes them. Pure.

`*` stands for any characters, also none, and the rest for itself. There are no regular expressions:
some take exponential time on names that an attacker chooses, and an unescaped dot or a forgotten
anchor allows more than it seems to. A pattern always matches the whole name, in linear time.

`*` never stands for an asterisk, since a wildcard name stands for many hosts; `\*` does (and `\\`
for a backslash). It also stops where a name of its kind has parts of different authority: at "@" in
mail addresses and user principal names, at "/", "?", "#" and "@" in URIs.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from shared.x509.names import SHORT_NAMES

_KINDS: Final = ("dns", "rfc822", "uri", "ip", "upn", "other")
_STOPS: Final = {"rfc822": "@", "upn": "@", "uri": "/?#@"}
_TOKEN: Final = re.compile(r"\\[\\*]|[^\\]", re.DOTALL)
_OID: Final = re.compile(r"[0-2](\.[0-9]+)+")


@dataclass(frozen=True, slots=True)
class Pattern:
    """The literal parts between the asterisks, and the characters that no asterisk stands for."""

    kind: str
    parts: tuple[str, ...]
    stops: str

    def matches(self, kind: str, value: str) -> bool:
        """Return whether a name of this kind matches completely."""
        return kind == self.kind and self._fits(_folded(kind, value))

    def _fits(self, value: str) -> bool:
        """Match each part at its first place, which is enough if all asterisks are alike."""
        first, *rest = self.parts
        if not rest:
            return value == first
        *inner, last = rest
        if not value.startswith(first):
            return False
        place = len(first)
        for part in inner:
            found = value.find(part, place)
            if found < 0 or not self._spans(value[place:found]):
                return False
            place = found + len(part)
        end = len(value) - len(last)
        return place <= end and value.endswith(last) and self._spans(value[place:end])

    def _spans(self, text: str) -> bool:
        """Return whether an asterisk may stand for this text."""
        return not any(stop in text for stop in self.stops)


@dataclass(frozen=True, slots=True)
class NetworkPattern:
    """A network in which an address must be."""

    network: IPv4Network | IPv6Network
    kind: str = "ip"

    def matches(self, kind: str, value: str) -> bool:
        """Return whether a name of this kind is an address in the network."""
        return kind == "ip" and ip_address(value) in self.network


SanPattern = Pattern | NetworkPattern


def read_subject_pattern(text: str) -> Pattern:
    """Read "TYPE=PATTERN" for an attribute of the subject; ValueError says what is wrong."""
    kind, _, pattern = text.partition("=")
    kind = SHORT_NAMES.get(kind, kind)
    if kind not in SHORT_NAMES.values() and not _OID.fullmatch(kind):
        raise ValueError(f'not an attribute and a pattern, such as "CN=device-*": "{text}"')
    return _pattern(kind, pattern)


def read_san_pattern(text: str) -> SanPattern:
    """Read "KIND:PATTERN" or "ip:NETWORK" for a subjectAltName; ValueError says what is wrong."""
    kind, _, pattern = text.partition(":")
    if kind not in _KINDS:
        raise ValueError(f'not a kind and a pattern, such as "dns:*.corp.example": "{text}"')
    if kind != "ip":
        return _pattern(kind, pattern)
    try:
        return NetworkPattern(ip_network(pattern))
    except ValueError:
        raise ValueError(f'not an address or a network: "{pattern}"') from None


def unmatched(
    names: Sequence[tuple[str, str]], patterns: Sequence[SanPattern]
) -> tuple[str, str] | None:
    """Return the first (kind, value) that matches no pattern; without patterns, any name may be."""
    if not patterns:
        return None
    return next((n for n in names if not any(p.matches(*n) for p in patterns)), None)


def _pattern(kind: str, text: str) -> Pattern:
    tokens = _TOKEN.findall(text)
    if "".join(tokens) != text or not text or not text.isprintable():
        raise ValueError(rf'not a pattern: empty, or a \ before neither * nor \: "{text}"')
    parts = [""]
    for each in tokens:
        if each == "*":
            parts.append("")
        else:
            parts[-1] += each[-1]
    if "" in parts[1:-1]:
        raise ValueError(f'not a pattern: two asterisks in a row: "{text}"')
    if kind == "dns" and not text.isascii():
        raise ValueError(f'not a pattern of host names, which are ASCII: "{text}"')
    return Pattern(kind, _folded_parts(kind, parts), _STOPS.get(kind, "") + "*")


def _folded(kind: str, value: str) -> str:
    """Lower the part of a name that ignores case: host names, domains, user principal names."""
    if kind in ("dns", "upn"):
        return value.lower()
    if kind == "rfc822":
        local, at, domain = value.rpartition("@")
        return local + at + domain.lower()
    return value


def _folded_parts(kind: str, parts: list[str]) -> tuple[str, ...]:
    """Fold the parts of a pattern as the names that they are compared with."""
    return tuple(_folded(kind, "\0".join(parts)).split("\0"))
