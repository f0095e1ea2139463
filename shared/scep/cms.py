"""Parts common to CMS structures: content types, octet strings, DER or BER (RFC 5652)."""

from collections.abc import Callable
from typing import Final, TypeVar

from shared.scep import ber
from shared.scep.asn1 import (
    CONSTRUCTED_0,
    OCTET_STRING,
    OID,
    SEQUENCE,
    Der,
    object_identifier,
    tlv,
)
from shared.scep.errors import FailInfo, ScepError

DATA: Final = object_identifier("1.2.840.113549.1.7.1")
SIGNED_DATA: Final = object_identifier("1.2.840.113549.1.7.2")
ENVELOPED_DATA: Final = object_identifier("1.2.840.113549.1.7.3")
AUTH_ENVELOPED_DATA: Final = object_identifier("1.2.840.113549.1.9.16.1.23")
_SEGMENTS: Final = 0x24
_T = TypeVar("_T")


def read_der_or_ber(data: bytes, read: Callable[[Der], _T]) -> _T:
    """Apply `read` to `data` as strict DER or, if that fails, as BER converted to DER.

    badAlg is raised without a second try. CR and LF after the message are ignored: some clients
    append them.
    """
    try:
        return _read_all(data, read)
    except ScepError as refused:
        if refused.fail_info is FailInfo.BAD_ALG:
            raise
        return _read_all(ber.normalise(data), read)


def _read_all(data: bytes, read: Callable[[Der], _T]) -> _T:
    der = Der(data)
    value = read(der)
    if der.rest().strip(b"\r\n"):
        raise ScepError("bytes after the message")
    return value


def any_content_info(der: Der) -> tuple[bytes, Der]:
    """Return (contentType, cursor over the content) of a ContentInfo."""
    info = der.enter(SEQUENCE)
    return info.element(OID), info.enter(CONSTRUCTED_0)


def content_info(der: Der, content_type: bytes) -> Der:
    """Return a cursor over the content of a ContentInfo, which must have this type."""
    found, content = any_content_info(der)
    if found != content_type:
        raise ScepError("unexpected content type")
    return content


def write_content_info(content_type: bytes, content: bytes) -> bytes:
    """Encode a ContentInfo."""
    return tlv(SEQUENCE, content_type, tlv(CONSTRUCTED_0, content))


def octets(der: Der) -> bytes:
    """Consume an OCTET STRING, possibly in segments, and return its contents."""
    if der.next_is(_SEGMENTS):
        return segments(der.enter(_SEGMENTS))
    return der.value(OCTET_STRING)


def segments(der: Der) -> bytes:
    """Return the joined segments of a constructed OCTET STRING."""
    parts = []
    while der.more():
        parts.append(der.value(OCTET_STRING))
    return b"".join(parts)
