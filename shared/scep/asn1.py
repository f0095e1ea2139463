"""Strict DER: a cursor for reading and functions for writing (X.690 s8, s10)."""

from functools import lru_cache
from typing import Final

from shared.limits import OID_BYTES
from shared.scep.errors import ScepError

INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
OID: Final = 0x06
UTF8_STRING: Final = 0x0C
PRINTABLE_STRING: Final = 0x13
T61_STRING: Final = 0x14
IA5_STRING: Final = 0x16
UNIVERSAL_STRING: Final = 0x1C
BMP_STRING: Final = 0x1E
SEQUENCE: Final = 0x30
SET: Final = 0x31
CONTEXT_0: Final = 0x80
CONSTRUCTED_0: Final = 0xA0
NULL: Final = b"\x05\x00"

_PRINTABLE: Final = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 '()+,-./:=?"
)
_STRING_CODECS: Final = {
    UTF8_STRING: "utf-8",
    PRINTABLE_STRING: "utf-8",
    T61_STRING: "latin-1",
    IA5_STRING: "utf-8",
    UNIVERSAL_STRING: "utf-32-be",
    BMP_STRING: "utf-16-be",
}
_LONG_FORM: Final = 0x80
_HIGH_TAG: Final = 0x1F
_MAX_LENGTH_BYTES: Final = 4
_MAX_ARC_BITS: Final = 128  # a UUID under 2.25 (X.667) is the longest in use


class Der:
    """A cursor over strict DER: definite, minimal lengths and single-byte tags only.

    Every method raises `ScepError` if the bytes are not what it expects.
    """

    __slots__ = ("buf", "end", "pos")

    def __init__(self, buf: bytes, pos: int = 0, end: int | None = None) -> None:
        """Start at `buf[pos]` and read nothing at or beyond `end`."""
        self.buf = buf
        self.pos = pos
        self.end = len(buf) if end is None else end

    def header(self) -> tuple[int, int, int]:
        """Return (tag, start, stop of the contents) of the next element without consuming it."""
        buf, pos = self.buf, self.pos
        if pos + 2 > self.end:
            raise ScepError("element cut short")
        tag, length, start = buf[pos], buf[pos + 1], pos + 2
        if tag & _HIGH_TAG == _HIGH_TAG:
            raise ScepError("multi-byte tag")
        if length >= _LONG_FORM:
            count = length & 0x7F
            if not 0 < count <= _MAX_LENGTH_BYTES:
                raise ScepError("indefinite or oversized length")
            start += count
            length = int.from_bytes(buf[pos + 2 : start], "big")
            if length < _LONG_FORM or length >> 8 * (count - 1) == 0:
                raise ScepError("length not minimal")
        if start + length > self.end:
            raise ScepError("length beyond its container")
        return tag, start, start + length

    def more(self) -> bool:
        """Return whether an element follows."""
        return self.pos < self.end

    def next_is(self, tag: int) -> bool:
        """Return whether the next element has this tag."""
        return self.pos < self.end and self.buf[self.pos] == tag

    def enter(self, tag: int) -> "Der":
        """Consume an element with this tag and return a cursor over its contents."""
        found, start, stop = self.header()
        if found != tag:
            raise ScepError("unexpected tag")
        self.pos = stop
        return Der(self.buf, start, stop)

    def value(self, tag: int) -> bytes:
        """Consume an element with this tag and return its contents."""
        found, start, stop = self.header()
        if found != tag:
            raise ScepError("unexpected tag")
        self.pos = stop
        return self.buf[start:stop]

    def any(self) -> tuple[int, bytes]:
        """Consume any element and return (tag, contents)."""
        tag, start, stop = self.header()
        self.pos = stop
        return tag, self.buf[start:stop]

    def element(self, tag: int | None = None) -> bytes:
        """Consume an element, of this tag if given, and return it with its header."""
        first = self.pos
        found, _, stop = self.header()
        if tag is not None and found != tag:
            raise ScepError("unexpected tag")
        self.pos = stop
        return self.buf[first:stop]

    def skip_if(self, tag: int) -> bool:
        """Consume the next element if it has this tag; return whether it did."""
        if not self.next_is(tag):
            return False
        self.pos = self.header()[2]
        return True

    def rest(self) -> bytes:
        """Consume and return all remaining bytes."""
        first, self.pos = self.pos, self.end
        return self.buf[first : self.end]

    def finish(self) -> None:
        """Raise `ScepError` if any bytes remain."""
        if self.pos != self.end:
            raise ScepError("bytes after the last element")


def tlv(tag: int, *parts: bytes) -> bytes:
    """Encode a DER element from the parts of its contents."""
    body = b"".join(parts)
    size = len(body)
    if size < _LONG_FORM:
        return bytes((tag, size)) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, _LONG_FORM | len(length))) + length + body


def integer(value: int) -> bytes:
    """Encode a non-negative INTEGER."""
    return tlv(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


@lru_cache(maxsize=256)
def object_identifier(dotted: str) -> bytes:
    """Encode an OBJECT IDENTIFIER from its dotted form."""
    first, second, *arcs = (int(arc) for arc in dotted.split("."))
    body = bytearray()
    for arc in (first * 40 + second, *arcs):
        septets = [arc & 0x7F]
        while arc := arc >> 7:
            septets.append(0x80 | (arc & 0x7F))
        body += bytes(reversed(septets))
    return tlv(OID, bytes(body))


@lru_cache(maxsize=256)
def dotted(contents: bytes) -> str:
    """Return an OBJECT IDENTIFIER's contents in dotted form; `ScepError` if they are malformed."""
    if len(contents) > OID_BYTES:
        raise ScepError(f"object identifier of more than {OID_BYTES} bytes")
    arcs: list[int] = []
    arc = 0
    for octet in contents:
        arc = arc << 7 | octet & 0x7F
        if arc >> _MAX_ARC_BITS:
            raise ScepError("object identifier arc is too long")
        if not octet & 0x80:
            arcs.append(arc)
            arc = 0
    if not arcs or contents[-1] & 0x80:
        raise ScepError("bad object identifier")
    root = min(arcs[0] // 40, 2)
    return ".".join(map(str, (root, arcs[0] - 40 * root, *arcs[1:])))


def set_of(*elements: bytes) -> bytes:
    """Encode a DER SET OF, its elements sorted by their encodings (X.690 s11.6)."""
    return tlv(SET, *sorted(elements))


def is_printable(text: bytes) -> bool:
    """Return whether these bytes are all in PrintableString's alphabet (X.680 s41.4)."""
    return _PRINTABLE.issuperset(text)


def text(tag: int, contents: bytes) -> str:
    """Decode a character string of any X.520 type; invalid bytes are replaced, never refused."""
    return contents.decode(_STRING_CODECS.get(tag, "latin-1"), "replace")


def is_string(tag: int) -> bool:
    """Return whether the tag is a character string type that devices send."""
    return tag in _STRING_CODECS
