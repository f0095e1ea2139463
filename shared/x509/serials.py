"""Serial numbers as people and services write them. Pure."""

import re
from typing import Final

_HEX: Final = re.compile("[0-9a-f]{1,64}")


def read_serial(text: str) -> str | None:
    """Return a serial number as the log writes it: an INTEGER's contents in hex.

    `text` is hex, also with 0x, colons or blanks, in any case. None for anything else.
    """
    digits = text.strip().lower().removeprefix("0x").replace(":", "").replace(" ", "")
    if not _HEX.fullmatch(digits):
        return None
    number = int(digits, 16)
    return number.to_bytes(number.bit_length() // 8 + 1, "big").hex()
