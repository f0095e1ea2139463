"""Certificates that a CA makes for the services themselves, and the events that record them."""

from services.issuer.connectors.connector import ServiceCa
from shared.log.events.certificates import ServiceCertificateIssued
from shared.log.events.enrollment import CertificateTemplate
from shared.log.subjects import serial_token
from shared.scep.certificate import read_certificate


def issue_for_service(
    ca: ServiceCa, template: CertificateTemplate, name: str, purpose: str
) -> ServiceCertificateIssued:
    """Sign a certificate for a service and return its event, which is still to be appended.

    `name` goes into the serial number; see `ServiceCa.issue`.
    """
    certificate = ca.issue(template, name)
    return ServiceCertificateIssued(
        issuer=template.issuer,
        serial=serial_token(read_certificate(certificate).serial),
        ca_spki_sha256=ca.pin,
        purpose=purpose,
        certificate=certificate,
    )
