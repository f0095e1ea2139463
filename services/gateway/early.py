"""Recognizes plain PKIOperations in a connection's first bytes, without an HTTP parser. Pure."""

import re
from typing import Final

from services.gateway.routes import Target, operation_of, query_values, target_of

_REQUEST_LINE: Final = re.compile(rb"(?:GET|POST) (/[!\"$-~]*) HTTP/1\.[01]")
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 s5.6.2
_PATH_BYTES: Final = 256
_PARAMETERS: Final = 8
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


def _length(fields: list[bytes]) -> int | None:
    """Return the body length that the header fields declare, or None if it is not unambiguous."""
    lengths = []
    for field in fields:
        name, colon, value = field.partition(b":")
        if not colon or not _NAME.fullmatch(name):
            return None
        match name.lower():
            case b"content-length":
                lengths.append(_LENGTH.fullmatch(value))
            case b"transfer-encoding" | b"upgrade" | b"expect":
                return None
    if not lengths:
        return 0
    return int(lengths[0][1]) if len(lengths) == 1 and lengths[0] else None
