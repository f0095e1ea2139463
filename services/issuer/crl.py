"""Encodes and reads certificate revocation lists. Pure (RFC 5280 s5)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from shared.log.events.commands import RevocationReason
from shared.scep.asn1 import (
    BIT_STRING,
    CONSTRUCTED_0,
    CONTEXT_0,
    INTEGER,
    OCTET_STRING,
    SEQUENCE,
    Der,
    integer,
    object_identifier,
    tlv,
)
from shared.scep.errors import ScepError
from shared.scep.times import write_time

_VERSION_2: Final = integer(1)
_CRL_NUMBER: Final = object_identifier("2.5.29.20")
_REASON_CODE: Final = object_identifier("2.5.29.21")
_ISSUING_DISTRIBUTION_POINT: Final = object_identifier("2.5.29.28")
_AUTHORITY_KEY_ID: Final = object_identifier("2.5.29.35")
_ENUMERATED: Final = 0x0A
_TRUE: Final = b"\x01\x01\xff"
_URI: Final = 0x86
_LONG_FORM: Final = 0x80
_CODES: Final = {
    RevocationReason.UNSPECIFIED: 0,
    RevocationReason.KEY_COMPROMISE: 1,
    RevocationReason.AFFILIATION_CHANGED: 3,
    RevocationReason.SUPERSEDED: 4,
    RevocationReason.CESSATION_OF_OPERATION: 5,
    RevocationReason.CERTIFICATE_HOLD: 6,
    RevocationReason.REMOVE_FROM_CRL: 8,  # never written: complete CRLs leave such entries out
    RevocationReason.PRIVILEGE_WITHDRAWN: 9,
}
# Encoded entries by serial number (an INTEGER's contents). They are neither decoded nor encoded
# again from one CRL to the next: with 100 000 entries that took seconds at each revocation.
Entries: TypeAlias = dict[bytes, bytes]


@dataclass(frozen=True, slots=True, order=True)
class RevokedEntry:
    """A revoked certificate: serial (an INTEGER's contents), since when (Unix seconds), and why."""

    serial: bytes
    revoked_at: int
    reason: RevocationReason


@dataclass(frozen=True, slots=True)
class CrlHead:
    """A CRL's number and times (Unix seconds)."""

    number: int
    this_update: int
    next_update: int


def tbs_crl(
    head: CrlHead,
    issuer_name: bytes,
    algorithm: bytes,
    key_id: bytes,
    entries: Mapping[bytes, bytes],
    points: Sequence[str] = (),
) -> bytes:
    """Encode the TBSCertList; entries are sorted by serial number.

    `points` are the URLs of a partition: the CRL lists only certificates that name one of them.
    """
    extensions = [
        _extension(_AUTHORITY_KEY_ID, tlv(SEQUENCE, tlv(CONTEXT_0, key_id))),
        _extension(_CRL_NUMBER, integer(head.number)),
    ]
    if points:
        point = _issuing_distribution_point(points)
        extensions.append(_extension(_ISSUING_DISTRIBUTION_POINT, point, critical=True))
    return tlv(
        SEQUENCE,
        _VERSION_2,
        algorithm,
        issuer_name,
        write_time(head.this_update),
        write_time(head.next_update),
        *([tlv(SEQUENCE, *map(entries.__getitem__, sorted(entries)))] if entries else []),
        tlv(CONSTRUCTED_0, tlv(SEQUENCE, *extensions)),
    )


def _issuing_distribution_point(points: Sequence[str]) -> bytes:
    """Encode the URLs as the full name of a distribution point (RFC 5280 s5.2.5)."""
    names = tlv(CONSTRUCTED_0, *(tlv(_URI, url.encode("ascii")) for url in points))
    return tlv(SEQUENCE, tlv(CONSTRUCTED_0, names))


def write_entry(entry: RevokedEntry) -> bytes:
    """Encode one entry."""
    parts = [tlv(INTEGER, entry.serial), write_time(entry.revoked_at)]
    if code := _CODES[entry.reason]:  # RFC 5280 s5.3.1: `unspecified` is left out
        parts.append(tlv(SEQUENCE, _extension(_REASON_CODE, tlv(_ENUMERATED, bytes((code,))))))
    return tlv(SEQUENCE, *parts)


def _extension(oid: bytes, value: bytes, *, critical: bool = False) -> bytes:
    return tlv(SEQUENCE, oid, _TRUE if critical else b"", tlv(OCTET_STRING, value))


def crl(tbs: bytes, algorithm: bytes, signature: bytes) -> bytes:
    """Encode the CertificateList around a signed TBSCertList."""
    return tlv(SEQUENCE, tbs, algorithm, tlv(BIT_STRING, b"\0", signature))


def read_entries(der: bytes) -> Entries:
    """Return the entries of a CRL that `tbs_crl` wrote; raises `ScepError` if it does not parse."""
    body = Der(der).enter(SEQUENCE).enter(SEQUENCE)
    body.value(INTEGER)
    body.element(SEQUENCE)  # signature
    body.element(SEQUENCE)  # issuer
    body.any()  # thisUpdate
    body.any()  # nextUpdate
    if not body.next_is(SEQUENCE):
        return {}
    listed = body.enter(SEQUENCE)
    return _split(listed.buf, listed.pos, listed.end)


def _split(buf: bytes, pos: int, end: int) -> Entries:
    """Return the entries in `buf[pos:end]`. Each is shorter than 128 bytes.

    A cursor (`Der`) for each of them would take most of a second for 100 000.
    """
    entries: Entries = {}
    while pos < end:
        if end - pos <= 4 or buf[pos] != SEQUENCE or buf[pos + 2] != INTEGER:  # noqa: PLR2004
            raise ScepError("not an entry of a CRL")
        length, size = buf[pos + 1], buf[pos + 3]
        stop, last = pos + 2 + length, pos + 4 + size
        if length >= _LONG_FORM or size >= _LONG_FORM or not size or last > stop or stop > end:
            raise ScepError("an entry of a CRL has a wrong length")
        entries[buf[pos + 4 : last]] = buf[pos:stop]
        pos = stop
    return entries
