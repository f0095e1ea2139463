"""Distinguished names as text, escaped so that no value looks like another part (RFC 4514). Pure.

Parts are written in the order of the encoding, separated by ", ", which RFC 4514 readers accept.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from shared.text.printable import HIDDEN

# RFC 4514 s2.4: these anywhere, a blank or # at the beginning, a blank at the end.
_SPECIAL: Final = re.compile(r'[\\"+,;<>]|\A[ #]| \Z')
_PART: Final = re.compile(r"((?:[^\\,]|\\.)*)(?:, ?|\Z)", re.DOTALL)
_PAIRS: Final = re.compile(r"((?:\\[0-9A-Fa-f]{2})+)|\\(.)", re.DOTALL)


def write_dn(parts: Iterable[tuple[str, str]]) -> str:
    """Return (type, value) pairs as text: "CN=device, O=Lab"."""
    return ", ".join(f"{kind}={escaped(value)}" for kind, value in parts)


def escaped(value: str) -> str:
    """Return an attribute's value escaped for a name; hidden characters become hex pairs."""
    written = _SPECIAL.sub(r"\\\g<0>", value) if value else value
    return HIDDEN.sub(_as_bytes, written)


def _as_bytes(found: re.Match[str]) -> str:
    return "".join(f"\\{byte:02X}" for byte in found[0].encode("utf-8", "surrogatepass"))


def read_dn(text: str) -> Iterator[tuple[str, str]]:
    """Yield the (type, value) pairs of text that `write_dn` wrote."""
    place = 0
    while place < len(text):
        found = _PART.match(text, place)
        if found is None:  # a lone backslash at the end, which `write_dn` never writes
            return
        place = found.end()
        kind, _, value = found[1].partition("=")
        yield kind, _PAIRS.sub(_meant, value)


def _meant(found: re.Match[str]) -> str:
    if found[1] is None:
        return found[2]
    octets = bytes.fromhex(found[1].replace("\\", ""))
    try:
        return octets.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return octets.decode("utf-8", "replace")
