"""The index of certificates: the attempt of a serial number, and the certificates of a key."""

import asyncio
from dataclasses import dataclass

import structlog

from services.issuer.connectors.connector import Order
from services.issuer.outcomes import record_of
from shared.bus.core import Bus, BusUnavailableError
from shared.bus.log import Log, read_authentic
from shared.log.envelope import EventSigner, Trusted
from shared.log.events.certificates import CertificateRecorded
from shared.log.events.enrollment import EnrollmentApproved
from shared.log.streams import CERTS
from shared.log.subjects import certificate_issued, key_issued

_log = structlog.get_logger()


@dataclass(frozen=True)
class SerialRecords:
    """Appends and reads the records of serial numbers in the CERTS stream."""

    bus: Bus
    signer: EventSigner
    trusted: Trusted

    async def add(
        self, order: Order, verdict: EnrollmentApproved, serial: bytes, times: tuple[int, int]
    ) -> CertificateRecorded:
        """Record a certificate that exists, or is about to, under its serial number and its key.

        `times` is when its validity begins and ends, in Unix seconds.
        """
        record = record_of(order.enrollment, verdict, serial, times)
        places = (
            certificate_issued(verdict.template.issuer, record.serial),
            key_issued(record.spki_sha256, verdict.template.issuer, record.serial),
        )
        await asyncio.gather(*(self._append(place, record) for place in places))
        return record

    async def _append(self, subject: str, record: CertificateRecorded) -> None:
        if not await Log(self.bus, self.signer).append(subject, record):
            _log.info("serial_already_recorded", serial=record.serial)

    async def holder(self, issuer: str, serial: str, *, recorded: bool = False) -> str:
        """Return the attempt on record under a serial number, "" without an authentic record.

        With `recorded` the record is known to exist: `BusUnavailableError` if it is not readable.
        """
        stored = await self.bus.get_last_or_leader(CERTS, certificate_issued(issuer, serial))
        if stored is None and recorded:
            raise BusUnavailableError("the record of the certificate is not readable yet")
        if stored is None:
            return ""
        record = read_authentic(CertificateRecorded, stored, self.trusted, "certificate")
        return record.enrollment if record is not None else ""
