"""Recognizes plain requests in the bytes of a connection, without an HTTP parser. Pure."""

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from services.gateway.routes import (
    Target,
    decode_base64,
    ocsp_of,
    operation_of,
    query_values,
    target_of,
)
from shared.limits import OCSP_REQUEST_BYTES

_REQUEST_LINE: Final = re.compile(rb"(?:GET|POST) (/[!\"$-~]*) HTTP/1\.[01]")
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 s5.6.2
_PATH_BYTES: Final = 256
_PARAMETERS: Final = 8
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_LENGTH: Final = re.compile(rb"[ \t]*([0-9]{1,9})[ \t]*")


def read_target(received: bytes, default: str | None) -> Target | None:
    """Return the target of a complete PKIOperation.

    Return None for everything else: other requests, an incomplete one, one followed by more bytes,
    and anything that needs a real parser (chunked bodies, escapes in the path).
    """
    head, end, body = received.partition(b"\r\n\r\n")
    request_line, *fields = head.split(b"\r\n")
    line = _REQUEST_LINE.fullmatch(request_line)
    if not end or line is None or _length(fields) != len(body):
        return None
    path, _, query = line[1].partition(b"?")
    if b"%" in path or len(path) > _PATH_BYTES or query.count(b"&") >= _PARAMETERS:
        return None
    if operation_of(query_values(query)) != "PKIOperation":
        return None
    return target_of(path.decode("ascii"), default)


def read_ocsp(received: bytes) -> tuple[str, bytes] | None:
    """Return (issuer, request as DER) of a complete OCSP request on a connection that stays open.

    Return None for everything else, as `read_target`, and for conditional requests.
    """
    head, end, body = received.partition(b"\r\n\r\n")
    request_line, *fields = head.split(b"\r\n")
    line = _REQUEST_LINE.fullmatch(request_line)
    if not end or line is None or len(received) > 4 * OCSP_REQUEST_BYTES:
        return None
    if not request_line.endswith(b"1.1") or _length(fields) != len(body) or _is_special(fields):
        return None
    found = ocsp_of(line[1].decode("ascii"))
    if found is None or b"?" in line[1]:
        return None
    issuer, encoded = found
    if request_line.startswith(b"POST"):
        return (issuer, body) if not encoded else None
    der = decode_base64(unquote_to_bytes(encoded))
    return (issuer, der) if der and not body else None


def _is_special(fields: list[bytes]) -> bool:
    """Return whether a request is conditional, or says what becomes of its connection."""
    for field in fields:
        name, _, value = field.partition(b":")
        match name.lower():
            case b"connection" if value.strip().lower() != b"keep-alive":
                return True
            case b"if-none-match" | b"if-modified-since":
                return True
    return False


def _length(fields: list[bytes]) -> int | None:
    """Return the body length that the header fields declare, or None if it is not unambiguous."""
    lengths = []
    for field in fields:
        name, colon, value = field.partition(b":")
        if not colon or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            return None
        match name.lower():
            case b"content-length":
                lengths.append(_LENGTH.fullmatch(value))
            case b"transfer-encoding" | b"upgrade" | b"expect":
                return None
    if not lengths:
        return 0
    return int(lengths[0][1]) if len(lengths) == 1 and lengths[0] else None
