"""Names and serial numbers as the search index has them, and as people write them. Pure."""

import re
import unicodedata
from typing import Final

_SERIAL: Final = re.compile(
    r"(?:0x)?([0-9a-f]{1,64}|[0-9a-f]{1,2}:|[0-9a-f]{1,2}(?::[0-9a-f]{1,2})+:?)"
)
_SIGNED: Final = 8  # INTEGERs are signed: from this first digit on, a zero octet precedes


def folded(name: str) -> str:
    """Return a name as the index holds it: NFC, in lower case, without surrounding whitespace."""
    text = name.encode("utf-8", "backslashreplace").decode()  # a lone surrogate cannot be encoded
    composed = unicodedata.normalize("NFC", text).strip()
    return unicodedata.normalize("NFC", composed.lower())


def spellings(search: str) -> tuple[str, ...]:
    """Return the prefixes of index entries that a search matches.

    The index holds a serial number as the contents of an INTEGER in hex; people write it with
    colons, with 0x, or without the leading zeros.
    """
    name = folded(search)
    found = _SERIAL.fullmatch(name)
    if not name or found is None:
        return (name,) if name else ()
    *whole, last = found[1].split(":")
    # Whole octets have two digits; the last one may not be typed completely.
    digits = "".join(octet.zfill(2) for octet in whole) + last
    ways = [name, digits]
    if not whole and len(digits) % 2:
        ways.append(f"0{digits}")
    ways += [f"00{way}" for way in (*ways[1:], "") if way and int(way[0], 16) >= _SIGNED]
    return tuple(dict.fromkeys(ways))
