"""Encodes and reads certificate revocation lists. Pure (RFC 5280 s5)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from shared.log.events.commands import RevocationReason
from shared.scep.asn1 import (
    BIT_STRING,
    CONSTRUCTED_0,
    CONTEXT_0,
    INTEGER,
    OCTET_STRING,
    OID,
    SEQUENCE,
    Der,
    integer,
    object_identifier,
    tlv,
)
from shared.scep.times import read_time, write_time

_VERSION_2: Final = integer(1)
_CRL_NUMBER: Final = object_identifier("2.5.29.20")
_REASON_CODE: Final = object_identifier("2.5.29.21")
_AUTHORITY_KEY_ID: Final = object_identifier("2.5.29.35")
_ENUMERATED: Final = 0x0A
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
_REASONS: Final = {code: reason for reason, code in _CODES.items()}


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
    entries: Iterable[RevokedEntry],
) -> bytes:
    """Encode the TBSCertList; entries are sorted by serial number."""
    listed = [_entry(entry) for entry in sorted(entries)]
    extensions = tlv(
        SEQUENCE,
        _extension(_AUTHORITY_KEY_ID, tlv(SEQUENCE, tlv(CONTEXT_0, key_id))),
        _extension(_CRL_NUMBER, integer(head.number)),
    )
    return tlv(
        SEQUENCE,
        _VERSION_2,
        algorithm,
        issuer_name,
        write_time(head.this_update),
        write_time(head.next_update),
        *([tlv(SEQUENCE, *listed)] if listed else []),
        tlv(CONSTRUCTED_0, extensions),
    )


def _entry(entry: RevokedEntry) -> bytes:
    parts = [tlv(INTEGER, entry.serial), write_time(entry.revoked_at)]
    if code := _CODES[entry.reason]:  # RFC 5280 s5.3.1: `unspecified` is left out
        parts.append(tlv(SEQUENCE, _extension(_REASON_CODE, tlv(_ENUMERATED, bytes((code,))))))
    return tlv(SEQUENCE, *parts)


def _extension(oid: bytes, value: bytes) -> bytes:
    return tlv(SEQUENCE, oid, tlv(OCTET_STRING, value))


def crl(tbs: bytes, algorithm: bytes, signature: bytes) -> bytes:
    """Encode the CertificateList around a signed TBSCertList."""
    return tlv(SEQUENCE, tbs, algorithm, tlv(BIT_STRING, b"\0", signature))


def read_entries(der: bytes) -> list[RevokedEntry]:
    """Return the entries of a CRL that `tbs_crl` wrote; raises `ScepError` if it does not parse."""
    body = Der(der).enter(SEQUENCE).enter(SEQUENCE)
    body.value(INTEGER)
    body.element(SEQUENCE)  # signature
    body.element(SEQUENCE)  # issuer
    body.any()  # thisUpdate
    body.any()  # nextUpdate
    entries: list[RevokedEntry] = []
    if body.next_is(SEQUENCE):
        listed = body.enter(SEQUENCE)
        while listed.more():
            entries.append(_read_entry(listed.enter(SEQUENCE)))
    return entries


def _read_entry(entry: Der) -> RevokedEntry:
    serial, revoked_at = entry.value(INTEGER), read_time(*entry.any())
    reason = RevocationReason.UNSPECIFIED
    if entry.more():
        extension = entry.enter(SEQUENCE).enter(SEQUENCE)
        extension.element(OID)
        code = Der(extension.value(OCTET_STRING)).value(_ENUMERATED)
        reason = _REASONS.get(int.from_bytes(code, "big"), reason)
    return RevokedEntry(serial, revoked_at, reason)
