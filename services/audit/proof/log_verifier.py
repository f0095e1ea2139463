"""Verification of a log's events: signatures, order, issued certificates. Pure."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shared.log.catalog import CHANNELS, STAGES
from shared.log.channels import Channel
from shared.log.enrollment import TERMINAL, State, evolve
from shared.log.envelope import (
    Stored,
    Trusted,
    UnreadableEventError,
    authenticate,
    authenticate_any,
    decode,
)
from shared.log.events.base import EventPayload
from shared.log.events.enrollment import CertificateIssued, EnrollmentApproved, EnrollmentRequested
from shared.log.roles import Role
from shared.log.stages import Stage
from shared.log.subjects import EnrollmentId, parse_subject, transaction_token
from shared.scep.algorithms import AlgorithmPolicy
from shared.scep.certificate import read_certificate
from shared.scep.errors import ScepError
from shared.scep.pkimessage import PkiMessage, read_message, verify
from shared.scep.schemes import public_key
from shared.x509.signatures import is_issued_by

# Validators enforce what a profile allows; here it only matters that the device signed it.
_ANY_ALGORITHM = AlgorithmPolicy(legacy=True)


class DiscrepancyError(Exception):
    """Raised for an event that is not what it claims to be; the message says why."""


@dataclass(frozen=True)
class Keys:
    """Trusted keys: event keys by role, and the CA certificates (DER) of each issuer."""

    validators: Trusted
    issuers: Trusted
    operators: Trusted
    authorities: Mapping[str, Sequence[bytes]]


@dataclass(slots=True)
class _Open:
    """An enrollment that has not ended: the digest of its request and its state.

    `spki` and `issuer` are those that were approved.
    """

    request_sha256: str
    state: State = State.REQUESTED
    spki: bytes = b""
    issuer: str = ""


@dataclass
class LogVerifier:
    """Checks the events of a log one after another, each stream in its order."""

    keys: Keys
    _open: dict[str, _Open] = field(default_factory=dict)

    def examine(self, stored: Stored) -> str:
        """Return what is wrong with an event; "" if nothing is."""
        try:
            if stored.subject.startswith("enroll."):
                self._enrollment(stored)
            elif not stored.subject.startswith("dead."):
                self._other(stored)
        except (DiscrepancyError, UnreadableEventError) as error:
            return str(error)
        except ScepError as error:
            return error.detail
        except ValueError:
            return "unknown subject"
        return ""

    def lacks(self, subject: str) -> bool:
        """Return whether the event on a subject continues an enrollment whose begin is unknown."""
        try:
            enrollment, stage = parse_subject(subject)
        except ValueError:
            return False
        return stage is not Stage.REQUEST and enrollment.prefix() not in self._open

    def unfinished(self) -> list[str]:
        """Return the subject prefixes of the enrollments that have not ended, sorted."""
        return sorted(self._open)

    def _enrollment(self, stored: Stored) -> None:
        enrollment, stage = parse_subject(stored.subject)
        prefix = enrollment.prefix()
        if stage is Stage.REQUEST:
            _check_request(enrollment, stored)
            self._open[prefix] = _Open(stored.sha256())
            return
        begun = self._open.get(prefix)
        if begun is None:
            raise DiscrepancyError("no open enrollment for this event")
        event = authenticate(stored, self._trusted(STAGES[stage]), stage, begun.request_sha256)
        self._check_step(begun, event)
        if begun.state in TERMINAL:
            del self._open[prefix]

    def _trusted(self, channel: Channel) -> Trusted:
        """Return the keys of the one role that may write there."""
        keys = {
            Role.VALIDATOR: self.keys.validators,
            Role.ISSUER: self.keys.issuers,
            Role.AUDIT: self.keys.operators,
        }
        return keys.get(channel.writers[0], {})

    def _check_step(self, begun: _Open, event: EventPayload) -> None:
        """Check that the state allows the step, and that a certificate is what was approved."""
        try:
            begun.state = evolve(begun.state, event)
        except ValueError as error:
            raise DiscrepancyError(f"out of order: {error}") from None
        if isinstance(event, EnrollmentApproved):
            begun.spki, begun.issuer = event.template.spki, event.template.issuer
        if isinstance(event, CertificateIssued):
            self._check_certificate(begun, event)

    def _check_certificate(self, begun: _Open, event: CertificateIssued) -> None:
        certificate = read_certificate(event.certificate)
        if certificate.spki != begun.spki:
            raise DiscrepancyError("certificate key is not the approved key")
        for authority in self.keys.authorities.get(begun.issuer, ()):
            ca = read_certificate(authority)
            if is_issued_by(event.certificate, ca.subject, public_key(ca.spki)):
                return
        raise DiscrepancyError("certificate is not signed by a CA of the issuer")

    def _other(self, stored: Stored) -> None:
        """Check what is not of an enrollment: records of certificates, commands, their answers."""
        at = CHANNELS.match(stored.subject)
        if at is None or Role.AUDIT not in at.channel.consumers:
            raise DiscrepancyError("unknown subject")
        if type(decode(stored.payload, stored.headers)) not in at.channel.events:
            raise DiscrepancyError("event type does not belong on the subject")
        authenticate_any(stored, self._trusted(at.channel))


def _check_request(enrollment: EnrollmentId, stored: Stored) -> None:
    """Check the device's own signature, and that the event describes its message correctly."""
    event = decode(stored.payload, stored.headers)
    if not isinstance(event, EnrollmentRequested):
        raise DiscrepancyError("event type does not belong to the stage")
    message = read_message(event.pki_message)
    verify(message, _ANY_ALGORITHM)
    if _transaction(enrollment, message) != enrollment.transaction:
        raise DiscrepancyError("recorded under another transaction's subject")
    if hashlib.sha256(message.signer.der).hexdigest() != event.signer_sha256:
        raise DiscrepancyError("signer does not match the message")
    if message.transaction_id.text() != event.transaction_id:
        raise DiscrepancyError("transactionID does not match the message")
    if int(message.message_type) != event.message_type:
        raise DiscrepancyError("messageType does not match the message")


def _transaction(enrollment: EnrollmentId, message: PkiMessage) -> str:
    return transaction_token(enrollment.profile, message.transaction_id.value, message.signer.spki)
