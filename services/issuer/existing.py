"""The certificate that a key already has, as the answer to another request with that key."""

from dataclasses import dataclass

import msgspec

from shared.bus.core import Bus
from shared.bus.log import read_stage, report_forgery
from shared.log.enrollment import confirms
from shared.log.envelope import Trusted, UnreadableEventError, authenticate, authenticate_as
from shared.log.events.certificates import CertificateRecorded
from shared.log.events.enrollment import (
    CertificateIssued,
    EnrollmentApproved,
)
from shared.log.stages import Stage
from shared.log.streams import CERTS, enroll_stream
from shared.log.subjects import EnrollmentId, certificate_issued, parse_prefix
from shared.scep.certificate import read_certificate


class OutcomeMissingError(Exception):
    """Raised if the key's certificate is recorded and its enrollment has not ended yet."""


@dataclass(frozen=True, slots=True)
class Existing:
    """Reads the certificates that verdicts name instead of new ones."""

    bus: Bus
    issuers: Trusted
    validators: Trusted

    async def read(self, verdict: EnrollmentApproved) -> CertificateIssued | None:
        """Return the certificate that the key already has on the log; None if there will be none.

        One that is recorded but not issued is about to be, even after a kill in between, and one
        that is withheld is about to be confirmed or not: `OutcomeMissingError`.
        """
        template = verdict.template
        place = certificate_issued(template.issuer, verdict.existing)
        recorded = await self.bus.get_last_or_leader(CERTS, place)
        if recorded is None:
            return None
        try:
            record = authenticate_as(CertificateRecorded, recorded, self.issuers)
            enrollment = parse_prefix(record.enrollment)
            stream, subject = enroll_stream(enrollment.shard), enrollment.subject(Stage.OUTCOME)
            ended = await self.bus.get_last_or_leader(stream, subject)
            if ended is None:
                raise OutcomeMissingError(record.enrollment)
            issued = authenticate(ended, self.issuers, Stage.OUTCOME)
        except UnreadableEventError as error:
            report_forgery(Stage.OUTCOME, verdict.existing, error)
            return None
        if not isinstance(issued, CertificateIssued):
            return None  # its serial number was recorded, but it was not issued
        if read_certificate(issued.certificate).spki != template.spki:
            return None
        # The verdict may be another verifier's, or of a profile that withholds nothing any more.
        is_given = not issued.withheld or verdict.withheld
        if not is_given and not await self._is_confirmed(enrollment, issued):
            return None
        # Its OCSP response is as old as its issuance: the status may have changed since.
        return msgspec.structs.replace(
            issued,
            request_sha256=verdict.request_sha256,
            ocsp=b"",
            ocsp_until=0,
            confirmed_by=verdict.confirmed_by,
            withheld=verdict.withheld,
        )

    async def _is_confirmed(self, enrollment: EnrollmentId, issued: CertificateIssued) -> bool:
        """Return whether a certificate that was withheld may be given out."""
        place, stream = enrollment.subject(Stage.CONFIRMATION), enroll_stream(enrollment.shard)
        stored = await self.bus.get_last_or_leader(stream, place)
        if stored is None:
            raise OutcomeMissingError(enrollment.prefix())
        request = issued.request_sha256
        event = read_stage(stored, self.validators, Stage.CONFIRMATION, request)
        return confirms(event, issued)
