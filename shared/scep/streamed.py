"""CMS in BER as streaming writers emit it: indefinite lengths, segmented content (X.690 s8)."""

from typing import Final

from shared.scep.asn1 import CONSTRUCTED_0, CONTEXT_0, OCTET_STRING, OID, SEQUENCE, Der, tlv

SEGMENT: Final = 1000  # bytes, as in OpenSSL's CMS writer and Bouncy Castle's generators
_SEGMENTED: Final = 0x24
_CONTENT: Final = 2  # encapContentInfo of a SignedData, encryptedContentInfo of an EnvelopedData


def streamed(der: bytes) -> bytes:
    """Convert a SignedData, EnvelopedData or AuthEnvelopedData from DER to BER.

    Signed attributes and certificates stay DER, so signatures still verify.
    """
    info = Der(der).enter(SEQUENCE)
    content_type = info.element(OID)
    parts = _elements(info.enter(CONSTRUCTED_0).enter(SEQUENCE))
    parts[_CONTENT] = _content(parts[_CONTENT])
    body = indefinite(SEQUENCE, *parts)
    return indefinite(SEQUENCE, content_type, indefinite(CONSTRUCTED_0, body))


def _content(der: bytes) -> bytes:
    *parts, content = _elements(Der(der).enter(SEQUENCE))
    return indefinite(SEQUENCE, *parts, _segmented(Der(content)))


def _segmented(content: Der) -> bytes:
    """Segment an envelope's [0] IMPLICIT or a SignedData's [0] EXPLICIT OCTET STRING."""
    if content.next_is(CONTEXT_0):
        return indefinite(CONSTRUCTED_0, *_segments(content.value(CONTEXT_0)))
    data = content.enter(CONSTRUCTED_0).value(OCTET_STRING)
    return indefinite(CONSTRUCTED_0, indefinite(_SEGMENTED, *_segments(data)))


def _segments(data: bytes) -> list[bytes]:
    starts = range(0, len(data), SEGMENT)
    return [tlv(OCTET_STRING, data[start : start + SEGMENT]) for start in starts]


def _elements(der: Der) -> list[bytes]:
    found = []
    while der.more():
        found.append(der.element())
    return found


def indefinite(tag: int, *parts: bytes) -> bytes:
    """Encode a constructed element with end-of-contents octets (X.690 s8.1.3.6)."""
    return bytes((tag, 0x80)) + b"".join(parts) + b"\0\0"
