"""Encodes OCSP responses and the certificates of their signers. Pure (RFC 6960, RFC 5019).

A response is signed before anyone asks, so it repeats no nonce (RFC 9654 allows that). There is one
for each hash algorithm of CertIDs, since a client looks for the CertID that it sent, and many read
no response about more than one.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from asn1crypto import ocsp
from asn1crypto.x509 import Certificate

from shared.log.events.commands import RevocationReason
from shared.log.events.enrollment import CertificateTemplate, TemplateExtension
from shared.scep.asn1 import (
    BIT_STRING,
    CONTEXT_0,
    NULL,
    OCTET_STRING,
    SEQUENCE,
    SET,
    UTF8_STRING,
    object_identifier,
    tlv,
)
from shared.x509.cert_ids import CaId
from shared.x509.key_ids import public_key_id

_REASONS: Final = {
    RevocationReason.KEY_COMPROMISE: "key_compromise",
    RevocationReason.AFFILIATION_CHANGED: "affiliation_changed",
    RevocationReason.SUPERSEDED: "superseded",
    RevocationReason.CESSATION_OF_OPERATION: "cessation_of_operation",
    RevocationReason.CERTIFICATE_HOLD: "certificate_hold",
    RevocationReason.PRIVILEGE_WITHDRAWN: "privilege_withdrawn",
}
_COMMON_NAME: Final = object_identifier("2.5.4.3")
_OCSP_SIGNING: Final = object_identifier("1.3.6.1.5.5.7.3.9")
_DIGITAL_SIGNATURE: Final = b"\x07\x80"  # seven unused bits


@dataclass(frozen=True, slots=True)
class Revoked:
    """Since when (Unix seconds) a certificate is revoked or on hold, and why."""

    at: int
    reason: RevocationReason


@dataclass(frozen=True, slots=True)
class Answer:
    """What a response tells of one certificate: `revoked` is None while it is good.

    `serial` is an INTEGER's contents, the times are Unix seconds.
    """

    serial: bytes
    revoked: Revoked | None
    this_update: int
    next_update: int


def tbs_response(answer: Answer, ca: CaId, responder_spki: bytes) -> bytes:
    """Encode the ResponseData about a certificate of a CA."""
    number = int.from_bytes(answer.serial, "big", signed=True)
    data = ocsp.ResponseData(
        {
            "responder_id": ocsp.ResponderId("by_key", public_key_id(responder_spki)),
            "produced_at": _time(answer.this_update),
            "responses": [_single(answer, ca, number)],
        }
    )
    encoded: bytes = data.dump()
    return encoded


def _single(answer: Answer, ca: CaId, serial: int) -> dict[str, object]:
    return {
        "cert_id": {
            "hash_algorithm": {"algorithm": ca.algorithm},
            "issuer_name_hash": ca.name_hash,
            "issuer_key_hash": ca.key_hash,
            "serial_number": serial,
        },
        "cert_status": _status(answer.revoked),
        "this_update": _time(answer.this_update),
        "next_update": _time(answer.next_update),
    }


def _status(revoked: Revoked | None) -> ocsp.CertStatus:
    if revoked is None:
        return ocsp.CertStatus("good", ocsp.StatusGood())
    info: dict[str, object] = {"revocation_time": _time(revoked.at)}
    if reason := _REASONS.get(revoked.reason):
        info["revocation_reason"] = reason
    return ocsp.CertStatus("revoked", ocsp.RevokedInfo(info))


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def response(tbs: bytes, signature: bytes, signer: bytes) -> bytes:
    """Encode the OCSPResponse around a signed ResponseData; `signer` is its certificate (DER)."""
    basic = ocsp.BasicOCSPResponse(
        {
            "tbs_response_data": ocsp.ResponseData.load(tbs),
            "signature_algorithm": {"algorithm": "sha256_ecdsa"},
            "signature": signature,
            "certs": [Certificate.load(signer)],
        }
    )
    whole = ocsp.OCSPResponse(
        {
            "response_status": "successful",
            "response_bytes": {"response_type": "basic_ocsp_response", "response": basic},
        }
    )
    encoded: bytes = whole.dump()
    return encoded


def signer_template(
    issuer: str, pin: str, ca_key_id: bytes, spki: bytes, validity: tuple[int, int]
) -> CertificateTemplate:
    """Return the template of a response signer's certificate; `validity` is in Unix seconds.

    Nobody is to ask for its status (id-pkix-ocsp-nocheck), so it lives for days only.
    """
    name = tlv(SEQUENCE, _COMMON_NAME, tlv(UTF8_STRING, f"OCSP {issuer}".encode()))
    key_id = tlv(OCTET_STRING, public_key_id(spki))
    return CertificateTemplate(
        issuer=issuer,
        ca_spki_sha256=pin,
        subject=tlv(SEQUENCE, tlv(SET, name)),
        spki=spki,
        not_before=validity[0],
        not_after=validity[1],
        extensions=(
            _extension("2.5.29.35", tlv(SEQUENCE, tlv(CONTEXT_0, ca_key_id))),
            _extension("2.5.29.14", key_id),
            _extension("2.5.29.15", tlv(BIT_STRING, _DIGITAL_SIGNATURE), critical=True),
            _extension("2.5.29.37", tlv(SEQUENCE, _OCSP_SIGNING)),
            _extension("1.3.6.1.5.5.7.48.1.5", NULL),
        ),
    )


def _extension(oid: str, value: bytes, *, critical: bool = False) -> TemplateExtension:
    return TemplateExtension(oid=oid, critical=critical, value=value)
