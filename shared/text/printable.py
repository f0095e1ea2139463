"""Untrusted text made safe to display: control and hidden characters are escaped. Pure.

A name, a reason or a header that another party chose is printed through `visible`, in every
command and on every page. Code that escapes by another rule (names, by RFC 4514) uses `HIDDEN`.
"""

import re
from typing import Final

# Controls (C0, DEL, C1), directional formatting, line and paragraph separators, zero-width spaces
# and other format characters, fillers, byte order marks, annotations and tags that no font shows,
# and surrogate halves. Joiners (U+200C, U+200D) and variation selectors are not included, because
# they are part of words in some scripts.
HIDDEN: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff]"
)


def visible(text: str) -> str:
    """Return `text` on one line, with hidden characters replaced by escapes of their codes."""
    return HIDDEN.sub(_written, text)


def _written(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code <= 0xFF:  # noqa: PLR2004 - two digits
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004
