"""Renews RA certificates while the system runs, under the key and the names that they have.

An RA certificate is due when two thirds of its life are over. The new one goes to the log, where
gateways find it by its key; the old one stays valid beside it until it ends. Which certificates are
renewed says the configuration (`ra_cert_path`), so nobody can have another one renewed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
from cryptography import x509

from services.issuer.connectors.connector import RaAuthority, ServiceCa
from services.issuer.settings import Settings
from shared.bus.core import Bus
from shared.bus.series import Entry, Series, signing
from shared.log.events.certificates import ServiceCertificateIssued
from shared.log.events.enrollment import CertificateTemplate, TemplateExtension
from shared.log.streams import CERTS
from shared.log.subjects import ra_renewed, serial_token
from shared.runtime.live import Live
from shared.runtime.periodic import every
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
        """Renew each RA certificate that is due."""
        for issuer, connector in self.live.current.issuers.items():
            if (authority := connector.ras) is None:
                continue
            for der in authority.ra_certificates:
                await self._look_at(issuer, authority, der)

    async def _look_at(self, issuer: str, authority: RaAuthority, der: bytes) -> None:
        place = partial(ra_renewed, spki_sha256(read_certificate(der).spki))
        trusted = self.live.current.trusted_issuers
        series = Series(self.bus, CERTS, place("*"), ServiceCertificateIssued, trusted, "ra")
        newest = await series.newest()
        current = _later(der, newest)
        ca = next((ca for ca in authority.active if _issued(ca, current)), None)
        now = int(self.clock())
        template = _template(issuer, ca, current, now) if ca is not None else None
        if ca is None or template is None:
            return
        certificate = ca.issue(template, f"ra.{issuer}.{template.not_before}")
        serial = serial_token(read_certificate(certificate).serial)
        event = ServiceCertificateIssued(
            issuer=issuer,
            serial=serial,
            ca_spki_sha256=ca.pin,
            purpose="ra",
            certificate=certificate,
        )
        written = signing(place, event, self.live.current.signer)
        if await series.append(newest, written) is not None:
            _log.info("ra_renewed", issuer=issuer, serial=serial, not_after=template.not_after)


def _later(der: bytes, newest: Entry[ServiceCertificateIssued] | None) -> bytes:
    """Return the configured certificate or the newest on the log, whichever ends later."""
    if newest is None:
        return der
    found = (der, newest.event.certificate)
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
