"""What CMS structures share: content types, octet strings, DER or BER, RSA keys (RFC 5652)."""

from collections.abc import Callable
from functools import lru_cache
from typing import Final, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

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
_SEGMENTS: Final = 0x24
_MIN_RSA_BITS: Final = 1024
_MAX_RSA_BITS: Final = 8192
_T = TypeVar("_T")


def read_der_or_ber(data: bytes, read: Callable[[Der], _T]) -> _T:
    """What `read` makes of `data`; where strict DER is refused, of its BER made DER.

    CR and LF after the message are ignored: some clients append them.
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


def content_info(der: Der, content_type: bytes) -> Der:
    """Enter the content of a ContentInfo of this type."""
    info = der.enter(SEQUENCE)
    if info.element(OID) != content_type:
        raise ScepError("unexpected content type")
    return info.enter(CONSTRUCTED_0)


def write_content_info(content_type: bytes, content: bytes) -> bytes:
    """A ContentInfo."""
    return tlv(SEQUENCE, content_type, tlv(CONSTRUCTED_0, content))


def octets(der: Der) -> bytes:
    """An OCTET STRING, also one in segments."""
    if der.next_is(_SEGMENTS):
        return segments(der.enter(_SEGMENTS))
    return der.value(OCTET_STRING)


def segments(der: Der) -> bytes:
    """The joined segments of a constructed OCTET STRING."""
    parts = []
    while der.more():
        parts.append(der.value(OCTET_STRING))
    return b"".join(parts)


@lru_cache(maxsize=64)
def rsa_public_key(spki: bytes) -> rsa.RSAPublicKey:
    """The RSA key of a SubjectPublicKeyInfo; anything else is badAlg: no reply could reach it."""
    try:
        key = load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm):
        raise ScepError("unreadable public key", FailInfo.BAD_ALG) from None
    if not isinstance(key, rsa.RSAPublicKey):
        raise ScepError("key is not RSA", FailInfo.BAD_ALG)
    if not _MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS:
        raise ScepError("RSA key is too short or too long", FailInfo.BAD_ALG)
    return key
