"""Renews RA certificates while the system runs, under the key and the names that they have.

An RA certificate is due when two thirds of its life are over. The new one goes to the log, where
gateways find it by its key; the old one stays valid beside it until it ends.

The certificates to renew are in the files of `ra_cert_path`, which gateways may write. So a
certificate that was issued to a device is never renewed, nor one with a usage that an RA does not
have: whoever takes a gateway must not have certificates renewed that validators would refuse.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
from cryptography import x509

from services.issuer.connectors.connector import RaAuthority, ServiceCa
from services.issuer.service_certificates import issue_for_service
from services.issuer.settings import Settings
from shared.bus.core import Bus
from shared.bus.series import Series, signing
from shared.log.events.certificates import ServiceCertificateIssued
from shared.log.events.enrollment import CertificateTemplate, TemplateExtension
from shared.log.streams import CERTS
from shared.log.subjects import certificate_issued, ra_renewed, serial_token
from shared.runtime.live import Live
from shared.runtime.periodic import every, one_by_one
from shared.scep.asn1 import CONTEXT_0, SEQUENCE, tlv
from shared.scep.certificate import Certificate, read_certificate
from shared.scep.schemes import public_key
from shared.x509.key_ids import public_key_id, spki_sha256
from shared.x509.signatures import is_issued_by

_log = structlog.get_logger()
_LOOK_SECONDS: Final = 600.0
_RETRY_SECONDS: Final = 5.0
_BACKDATED: Final = 60
_AUTHORITY_KEY_ID: Final = "2.5.29.35"
# cmcCA, cmcRA, cmcArchive, Microsoft's enrollment agent, emailProtection and any usage.
_RA_USAGES: Final = frozenset(
    {
        "1.3.6.1.5.5.7.3.27",
        "1.3.6.1.5.5.7.3.28",
        "1.3.6.1.5.5.7.3.29",
        "1.3.6.1.4.1.311.20.2.1",
        "1.3.6.1.5.5.7.3.4",
        "2.5.29.37.0",
    }
)
_LEAST_GAIN: Final = 86400  # a CA that ends soon renews nothing by less than a day


@dataclass
class RaRenewer:
    """Renews the RA certificates of all issuers. `clock` returns Unix seconds."""

    bus: Bus
    live: Live[Settings]
    clock: Callable[[], float]

    async def run(self) -> None:
        """Look after the RA certificates, forever."""
        await every(_LOOK_SECONDS, self.look, name="ra_renewal", retry=_RETRY_SECONDS)

    async def look(self) -> None:
        """Renew each RA certificate that is due; one that fails does not stop the others."""
        wanted = [
            (issuer, authority, der)
            for issuer, connector in self.live.current.issuers.items()
            if (authority := connector.ras) is not None
            for der in authority.ra_certificates
        ]
        await one_by_one(wanted, self._look_at)

    async def _look_at(self, wanted: tuple[str, RaAuthority, bytes]) -> None:
        issuer, authority, der = wanted
        if problem := await self._problem(issuer, der):
            _log.error("ra_not_renewed", issuer=issuer, detail=problem)
            return
        place = partial(ra_renewed, issuer, spki_sha256(read_certificate(der).spki))
        trusted = self.live.current.trusted_issuers
        series = Series(self.bus, CERTS, place("*"), ServiceCertificateIssued, trusted, "ra")
        newest = await series.newest()
        current = _later(der, newest.event if newest is not None else None)
        ca = next((ca for ca in authority.active if _issued(ca, current)), None)
        now = int(self.clock())
        template = _template(issuer, ca, current, now) if ca is not None else None
        if ca is None or template is None:
            return
        event = issue_for_service(ca, template, f"ra.{issuer}.{template.not_before}", "ra")
        written = signing(place, event, self.live.current.signer)
        if await series.append(newest, written) is not None:
            _log.info(
                "ra_renewed", issuer=issuer, serial=event.serial, not_after=template.not_after
            )

    async def _problem(self, issuer: str, der: bytes) -> str:
        """Return why a certificate is not an RA's, "" if it may be one."""
        if others := _other_usages(der):
            return f"it has the extended key usages {', '.join(others)}"
        serial = serial_token(read_certificate(der).serial)
        stored = await self.bus.get_last_or_leader(CERTS, certificate_issued(issuer, serial))
        return "it was issued to a device" if stored is not None else ""


def _other_usages(der: bytes) -> list[str]:
    """Return the extended key usages of a certificate that an RA does not have."""
    certificate = x509.load_der_x509_certificate(der)
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return []
    return [each.dotted_string for each in usages if each.dotted_string not in _RA_USAGES]


def _later(der: bytes, renewed: ServiceCertificateIssued | None) -> bytes:
    """Return the configured certificate or the one on the log, whichever ends later."""
    if renewed is None or renewed.purpose != "ra":
        return der
    if read_certificate(renewed.certificate).spki != read_certificate(der).spki:
        return der
    found = (der, renewed.certificate)
    return max(found, key=lambda each: x509.load_der_x509_certificate(each).not_valid_after_utc)


def _issued(ca: ServiceCa, der: bytes) -> bool:
    parsed = read_certificate(ca.chain[0])
    return is_issued_by(der, parsed.subject, public_key(parsed.spki))


def _template(issuer: str, ca: ServiceCa, der: bytes, now: int) -> CertificateTemplate | None:
    """Return the template of the next certificate, None while this one is not due.

    It has the names, usages and other extensions of this one, and lives as long, or until its CA
    ends.
    """
    old = x509.load_der_x509_certificate(der)
    begin = int(old.not_valid_before_utc.timestamp())
    end = int(old.not_valid_after_utc.timestamp())
    next_end = min(now + end - begin, ca.ceilings.ca_not_after)
    if now < begin + (end - begin) * 2 // 3 or next_end < max(now, end) + _LEAST_GAIN:
        return None
    parsed = read_certificate(der)
    return CertificateTemplate(
        issuer=issuer,
        ca_spki_sha256=ca.pin,
        subject=parsed.subject,
        spki=parsed.spki,
        not_before=max(now - _BACKDATED, ca.ceilings.ca_not_before),
        not_after=next_end,
        extensions=tuple(_extensions(old, read_certificate(ca.chain[0]))),
    )


def _extensions(old: x509.Certificate, ca: Certificate) -> list[TemplateExtension]:
    key_id = tlv(SEQUENCE, tlv(CONTEXT_0, ca.key_id or public_key_id(ca.spki)))
    kept = [
        TemplateExtension(
            oid=each.oid.dotted_string, critical=each.critical, value=each.value.public_bytes()
        )
        for each in old.extensions
        if each.oid.dotted_string != _AUTHORITY_KEY_ID
    ]
    return [TemplateExtension(oid=_AUTHORITY_KEY_ID, critical=False, value=key_id), *kept]
