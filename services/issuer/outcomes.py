"""The events by which an issuer ends an enrollment and records a certificate. Pure."""

from services.issuer.ceilings import names_sha256, sid_of
from services.issuer.connectors.connector import Order
from shared.log.envelope import Stored
from shared.log.events.certificates import CertificateRecorded
from shared.log.events.enrollment import CertificateIssued, EnrollmentApproved, IssuanceFailed
from shared.log.reasons import FAIL_INFO, Reason
from shared.log.subjects import parse_subject, serial_token
from shared.x509.key_ids import spki_sha256
from shared.x509.names import name_text


def record_of(
    attempt: str, verdict: EnrollmentApproved, serial: bytes, times: tuple[int, int]
) -> CertificateRecorded:
    """Return the record of a certificate; `times` is when it begins and ends, in Unix seconds."""
    template, renews = verdict.template, verdict.renews
    return CertificateRecorded(
        request_sha256=verdict.request_sha256,
        enrollment=attempt,
        spki_sha256=spki_sha256(template.spki),
        subject=name_text(template.subject),
        not_before=times[0],
        not_after=times[1],
        serial=serial_token(serial),
        ca_spki_sha256=template.ca_spki_sha256,
        names_sha256=names_sha256(template),
        renews=renews.serial if renews else "",
        key_uses=renews.key_uses if renews else 0,
        sid=sid_of(template),
    )


def order_of(stored: Stored, verdict: EnrollmentApproved) -> Order:
    """Return the order of a stored verdict, without the CSR."""
    return Order(parse_subject(stored.subject)[0].prefix(), verdict.template, stored.sha256())


def issuance(
    verdict: EnrollmentApproved, serial: bytes, not_after: int, der: bytes
) -> CertificateIssued:
    """Return the outcome with a certificate (DER)."""
    return CertificateIssued(
        request_sha256=verdict.request_sha256,
        issuer=verdict.template.issuer,
        serial=serial_token(serial),
        certificate=der,
        not_after=not_after,
        confirmed_by=verdict.confirmed_by,
        withheld=verdict.withheld,
    )


def failure(verdict: EnrollmentApproved, reason: Reason, detail: str) -> IssuanceFailed:
    """Return the outcome without one."""
    return IssuanceFailed(
        request_sha256=verdict.request_sha256,
        reason=reason,
        fail_info=FAIL_INFO[reason],
        detail=detail,
    )
