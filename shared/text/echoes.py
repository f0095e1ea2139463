"""Detection of secrets in another party's text, in any common escape or encoding. Pure.

Theory of operation. A service that refuses a request may quote it, whole or in part, as HTML, JSON,
percent-encoding, base64 or hex. Replacing each spelling of a secret fails at the first spelling
that nobody thought of. So the text is decoded, step by step and in every order, and each form is
searched for any part of a secret that is long enough to help a guess. If there is one, the caller
withholds the whole text: a record without a sentence is better than half a password.
"""

import base64
import html
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final
from urllib.parse import unquote, unquote_plus

from shared.text.printable import HIDDEN

_PART: Final = 8  # characters; shorter parts occur in a sentence by chance
_SHORTEST_PART: Final = 4
_LONGEST: Final = 4096  # characters of a secret
_DEPTH: Final = 4
_MOST_FORMS: Final = 512
_BLANKS: Final = re.compile(r"\s+")
_ESCAPE: Final = re.compile(
    r"\\(?:u\{?(?P<code>[0-9A-Fa-f]{2,6})\}?|[xX](?P<byte>[0-9A-Fa-f]{2})|(?P<self>.))", re.DOTALL
)
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{6,}")
_HEX: Final = re.compile(r"[0-9A-Fa-f]{8,}")
_SEPARATED_HEX: Final = re.compile(r"[0-9A-Fa-f]{2}(?:[:\s-][0-9A-Fa-f]{2}){3,}")
_SEPARATOR: Final = re.compile(r"[:\s-]")
_MAX_CODE: Final = 0x10FFFF


def echoes(text: str, secrets: Iterable[str]) -> bool:
    """Return whether `text` contains one of the secrets, or a part of one, in any form.

    A part is eight consecutive characters, or half of a shorter secret, but at least four. Case,
    whitespace and hidden characters are ignored. Input that would take too much work counts as an
    echo: a text with too many forms, or a secret that is too long.
    """
    sought = {each for each in secrets if each.strip()}
    if not sought:
        return False
    forms = _forms(text)
    if forms is None or any(len(each) > _LONGEST for each in sought):
        return True
    found = list(map(_folded, forms))
    spellings = {_folded(form) for each in sought for form in _spellings(each)} - {""}
    return any(_share_part(found, secret) for secret in spellings)


def _spellings(secret: str) -> Iterator[str]:
    """Yield the secret, and the results of unescaping it once."""
    yield secret
    for decode in _ESCAPES:
        yield decode(secret)


def _share_part(texts: Iterable[str], secret: str) -> bool:
    length = min(_PART, max(_SHORTEST_PART, (len(secret) + 1) // 2), len(secret))
    parts = set(_parts(secret, length))
    return any(part in parts for text in texts for part in _parts(text, length))


def _parts(text: str, length: int) -> Iterator[str]:
    """Yield every part of this length."""
    return (text[start : start + length] for start in range(len(text) - length + 1))


def _folded(text: str) -> str:
    """Return the text normalized for comparison: case-folded, NFKC, without whitespace."""
    shown = HIDDEN.sub("", _BLANKS.sub("", text))
    return _BLANKS.sub("", unicodedata.normalize("NFKC", shown).casefold())


def _forms(text: str) -> set[str] | None:
    """Return the text and everything that decoding makes of it, or None if that is too much."""
    known = layer = {text}
    for _ in range(_DEPTH):
        layer = {decode(form) for form in layer for decode in _DECODERS} - known
        known = known | layer
        if len(known) > _MOST_FORMS:
            return None
    return known


def _unescaped(text: str) -> str:
    r"""Undo \u002b, \u{2b}, \x2b and \/ ; join the two halves of surrogate pairs."""
    found = _ESCAPE.sub(_character, text)
    return found.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _character(found: re.Match[str]) -> str:
    digits = found["code"] or found["byte"]
    if not digits:
        return found["self"]
    # JSON's escapes have four digits: unless in braces, further ones belong to the next character.
    braced = found[0].endswith("}")
    code, rest = (digits, "") if braced or found["byte"] else (digits[:4], digits[4:])
    number = int(code, 16)
    return (chr(number) if number <= _MAX_CODE else found[0]) + rest


def _base64(text: str, start: int) -> str:
    """Decode each run of base64 characters from index `start` on: a path may precede it."""
    return _BASE64.sub(lambda run: run[0][:start] + _from_base64(run[0][start:]), text)


def _from_base64(word: str) -> str:
    whole = word[: len(word) // 4 * 4].replace("-", "+").replace("_", "/")
    rest = word[len(whole) :]
    padded = whole if len(rest) < 2 else f"{whole}{rest}{'=' * (4 - len(rest))}"  # noqa: PLR2004
    return base64.b64decode(padded.replace("-", "+").replace("_", "/")).decode("utf-8", "replace")


def _hex(text: str, start: int) -> str:
    return _HEX.sub(lambda run: run[0][:start] + _from_hex(run[0][start:]), text)


def _separated_hex(text: str) -> str:
    return _SEPARATED_HEX.sub(lambda run: _from_hex(_SEPARATOR.sub("", run[0])), text)


def _from_hex(digits: str) -> str:
    return bytes.fromhex(digits[: len(digits) // 2 * 2]).decode("utf-8", "replace")


_ESCAPES: Final[tuple[Callable[[str], str], ...]] = (
    html.unescape,
    unquote,
    unquote_plus,
    _unescaped,
)
_DECODERS: Final[tuple[Callable[[str], str], ...]] = (
    *_ESCAPES,
    *(partial(_base64, start=start) for start in range(4)),
    *(partial(_hex, start=start) for start in range(2)),
    _separated_hex,
)
