"""BER to DER: bounded conversion of what streaming CMS writers emit (X.690 s8)."""

from typing import Final

from shared.scep.asn1 import tlv
from shared.scep.errors import ScepError

MAX_DEPTH: Final = 16
_CONSTRUCTED: Final = 0x20
_OCTET_STRING: Final = 0x04
_CONSTRUCTED_OCTET_STRING: Final = 0x24
_INDEFINITE: Final = -1
_MAX_LENGTH_BYTES: Final = 4


def normalise(data: bytes) -> bytes:
    """Convert the single BER element in `data` to DER; only CR and LF may follow it.

    Parts that are DER already keep their bytes, so signatures over them still verify. Takes linear
    time. Raises `ScepError` for malformed input or more than `MAX_DEPTH` levels.
    """
    der, end = _element(data, 0, len(data), 0)
    if data[end:].strip(b"\r\n"):
        raise ScepError("bytes after the message")
    return der


def _length(data: bytes, pos: int, end: int) -> tuple[int, int]:
    """Return (length or _INDEFINITE, start of contents) of the element whose tag is at `pos`."""
    if pos + 2 > end:
        raise ScepError("element cut short")
    if data[pos] & 0x1F == 0x1F:  # noqa: PLR2004 - the escape of X.690 s8.1.2.4
        raise ScepError("multi-byte tag")
    first, start = data[pos + 1], pos + 2
    if first < 0x80:  # noqa: PLR2004 - the short form of X.690 s8.1.3.4
        return first, start
    count = first & 0x7F
    if count == 0:
        return _INDEFINITE, start
    if start + count > end or count > _MAX_LENGTH_BYTES:
        raise ScepError("oversized length")
    return int.from_bytes(data[start : start + count], "big"), start + count


def _element(data: bytes, pos: int, end: int, depth: int) -> tuple[bytes, int]:
    """Return (DER, position after it) of the element at `pos`."""
    if depth > MAX_DEPTH:
        raise ScepError("nested too deeply")
    tag = data[pos] if pos < end else 0
    length, start = _length(data, pos, end)
    stop = end if length == _INDEFINITE else start + length
    if stop > end:
        raise ScepError("length beyond its container")
    if not tag & _CONSTRUCTED:
        if length == _INDEFINITE:
            raise ScepError("indefinite length of a primitive element")
        return tlv(tag, data[start:stop]), stop
    children, after = _children(data, start, stop, depth + 1, until_eoc=length == _INDEFINITE)
    if tag == _CONSTRUCTED_OCTET_STRING:
        return tlv(_OCTET_STRING, *(_segment(child) for child in children)), after
    return tlv(tag, *children), after


def _children(
    data: bytes, pos: int, stop: int, depth: int, *, until_eoc: bool
) -> tuple[list[bytes], int]:
    """Return (DER of each child, position after them and any end-of-contents octets)."""
    children: list[bytes] = []
    while True:
        if until_eoc and data[pos : min(pos + 2, stop)] == b"\0\0":
            return children, pos + 2
        if pos >= stop:
            if until_eoc:
                raise ScepError("end of contents missing")
            return children, pos
        child, pos = _element(data, pos, stop, depth)
        children.append(child)


def _segment(child: bytes) -> bytes:
    """Return the contents of one segment (DER) of a constructed OCTET STRING."""
    if child[0] != _OCTET_STRING:
        raise ScepError("segment is not an OCTET STRING")
    return child[2 + (child[1] & 0x7F if child[1] & 0x80 else 0) :]
