"""Convert BER replies to definite lengths for asn1crypto, without the codec under test.

Go's CMS writers emit constructed strings of definite length, which asn1crypto rejects.
"""

_CONSTRUCTED = 0x20
_OCTETS, _SEGMENTED = 0x04, 0x24
_SEQUENCE, _OID, _CONTEXT_0 = 0x30, 0x06, 0x80


def definite(data: bytes) -> bytes:
    """Return the one element in `data` as DER; `ValueError` or `IndexError` if it is malformed."""
    der, end = _element(data, 0)
    if end != len(data):
        raise ValueError("bytes after the reply")
    return der


def _element(data: bytes, pos: int) -> tuple[bytes, int]:
    tag, start, stop = _header(data, pos)
    if not tag & _CONSTRUCTED:
        if stop is None or stop > len(data):
            raise ValueError("cut short")
        return _tlv(tag, data[start:stop]), stop
    children, end = _children(data, start, stop)
    if tag == _SEGMENTED:
        return _tlv(_OCTETS, b"".join(_contents(child) for child in children)), end
    if tag == _SEQUENCE and _is_encrypted_content_info(children):
        children[2] = _tlv(_CONTEXT_0, _joined(_contents(children[2])))
    return _tlv(tag, b"".join(children)), end


def _header(data: bytes, pos: int) -> tuple[int, int, int | None]:
    """Return (tag, start, stop) of an element; `stop` is None for an indefinite length."""
    tag, first, start = data[pos], data[pos + 1], pos + 2
    if first == 0x80:
        return tag, start, None
    if first < 0x80:
        return tag, start, start + first
    size = start + (first & 0x7F)
    return tag, size, size + int.from_bytes(data[start:size], "big")


def _children(data: bytes, pos: int, stop: int | None) -> tuple[list[bytes], int]:
    children = []
    while (data[pos : pos + 2] != b"\0\0") if stop is None else pos < stop:
        child, pos = _element(data, pos)
        children.append(child)
    if stop is not None and pos != stop:
        raise ValueError("element beyond its container")
    return children, pos + 2 if stop is None else pos


def _is_encrypted_content_info(children: list[bytes]) -> bool:
    """Return whether they are an OID, an AlgorithmIdentifier, and [0] around OCTET STRINGs.

    See RFC 5652 s6.1.
    """
    return (
        [child[0] for child in children] == [_OID, _SEQUENCE, _CONTEXT_0 | _CONSTRUCTED]
        and _contents(children[2])[:1] == bytes((_OCTETS,))
        # The [0] of an EncapsulatedContentInfo follows its OID directly; this one does not.
    )


def _joined(elements: bytes) -> bytes:
    parts, pos = [], 0
    while pos < len(elements):
        element, pos = _element(elements, pos)
        parts.append(_contents(element))
    return b"".join(parts)


def _contents(der: bytes) -> bytes:
    return der[_header(der, 0)[1] :]


def _tlv(tag: int, body: bytes) -> bytes:
    size = len(body)
    if size < 0x80:
        return bytes((tag, size)) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + body
