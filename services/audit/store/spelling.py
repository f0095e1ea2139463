"""How names and serial numbers stand in the index, and how people write them. Pure."""

import re
import unicodedata
from typing import Final

_SERIAL: Final = re.compile(
    r"(?:0x)?([0-9a-f]{1,64}|[0-9a-f]{1,2}:|[0-9a-f]{1,2}(?::[0-9a-f]{1,2})+:?)"
)
_SIGNED: Final = 8  # a first digit from here on has a zero octet before it: INTEGERs are signed


def folded(name: str) -> str:
    """Return a name as the index holds it: composed (NFC), in lower case, without outer blanks."""
    told = name.encode("utf-8", "backslashreplace").decode()  # half a surrogate pair is no text
    composed = unicodedata.normalize("NFC", told).strip()
    return unicodedata.normalize("NFC", composed.lower())


def spellings(search: str) -> tuple[str, ...]:
    """Return what an index entry may begin with if it is what was searched for.

    Serial numbers stand there as the contents of an INTEGER in hex; people write them with
    colons, with 0x, and without the zeros at the beginning.
    """
    name = folded(search)
    found = _SERIAL.fullmatch(name)
    if not name or found is None:
        return (name,) if name else ()
    *whole, last = found[1].split(":")
    # Whole octets have two digits; the last may be about to be typed.
    digits = "".join(octet.zfill(2) for octet in whole) + last
    ways = [name, digits]
    if not whole and len(digits) % 2:
        ways.append(f"0{digits}")
    ways += [f"00{way}" for way in (*ways[1:], "") if way and int(way[0], 16) >= _SIGNED]
    return tuple(dict.fromkeys(ways))
