"""Carries out revocation commands: records the status, tells the CA, has the CRLs published.

Operators may revoke any certificate. A validator may withdraw those that its connection's service
is notified of, and only while they are not revoked.
"""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import structlog

from services.issuer.connectors.connector import Connector, RevocationRefusedError
from services.issuer.crl_keeper import CrlKeeper
from services.issuer.responder import Responder
from services.issuer.settings import Settings
from services.issuer.status import Change, Unchanged, next_status
from shared.bus.core import Bus, BusUnavailableError
from shared.bus.log import Log, read_authentic, read_stage
from shared.bus.series import Series, signing
from shared.limits import shortened
from shared.log.envelope import Stored
from shared.log.events.certificates import (
    CertificateRecorded,
    CertificateStatus,
    CertificateStatusChanged,
    KeyCompromised,
)
from shared.log.events.commands import (
    CommandAnswered,
    RevocationOrdered,
    RevocationReason,
    WithdrawalOrdered,
)
from shared.log.events.enrollment import CertificateIssued
from shared.log.stages import Stage
from shared.log.streams import CERTS, enroll_stream
from shared.log.subjects import (
    certificate_issued,
    certificate_status,
    key_compromised,
    parse_prefix,
    revocation_answer,
    revocation_command,
    withdrawal_command,
)
from shared.observe.logs import log_failure
from shared.runtime.live import Live
from shared.runtime.worker import DeferredError
from shared.text.printable import visible

_log = structlog.get_logger()
_E = TypeVar("_E")
Command = RevocationOrdered | WithdrawalOrdered
_WORDS: Final = dict.fromkeys(RevocationReason, "revoked") | {
    RevocationReason.CERTIFICATE_HOLD: "on hold",
    RevocationReason.REMOVE_FROM_CRL: "released",
}


def is_withdrawal(subject: str) -> bool:
    """Return whether a command's subject is that of a validator's withdrawal."""
    return subject.startswith("ops.withdraw.")


def _is_final(current: CertificateStatusChanged | None) -> bool:
    """Return whether a certificate is revoked for good, for whatever reason."""
    held = CertificateStatus.HELD
    return current is not None and current.revoked and current.status is not held


@dataclass
class RevocationConsumer:
    """Carries out operators' revocation commands; every step may run twice."""

    bus: Bus
    live: Live[Settings]
    keeper: CrlKeeper
    responder: Responder

    async def handle(self, stored: Stored) -> None:
        """Revoke the certificate, publish the CRL, and append the answer."""
        command = self._command(stored)
        if command is None:
            return
        done, detail = await self._revoke(stored, command)
        answer = CommandAnswered(request_sha256=stored.sha256(), done=done, detail=detail)
        await self._append(revocation_answer(stored.subject), answer)

    async def give_up(self, stored: Stored) -> bool:
        """Answer a command that kills its worker; handle one for an external CA again instead.

        Returns whether it was handled.
        """
        if self._is_external(stored):
            await self.handle(stored)
            return True
        detail = "the command failed"
        answer = CommandAnswered(request_sha256=stored.sha256(), done=False, detail=detail)
        await self._append(revocation_answer(stored.subject), answer)
        return False

    def _command(self, stored: Stored) -> Command | None:
        """Return a command by whoever may give it on its subject, None if it is forged."""
        settings = self.live.current
        if is_withdrawal(stored.subject):
            return read_authentic(WithdrawalOrdered, stored, settings.validators, "command")
        return read_authentic(RevocationOrdered, stored, settings.operators, "command")

    def _is_external(self, stored: Stored) -> bool:
        """Return whether a command is about a certificate of an external CA."""
        command = self._command(stored)
        if command is None:
            return False
        connector = self.live.current.issuers.get(command.issuer)
        return connector is not None and connector.lease > 0

    async def _revoke(self, stored: Stored, command: Command) -> tuple[bool, str]:
        record = await self._commanded(stored, command)
        if isinstance(record, str):
            return False, record
        connector = self.live.current.issuers.get(command.issuer)
        if connector is None or connector.pinned(record.ca_spki_sha256) is None:
            return False, "this issuer does not have the certificate's CA"
        change = await self._record(stored, command, record)
        if isinstance(change, Unchanged) and not change.done:
            return False, change.detail
        if connector.lease > 0 and (refused := await self._at_ca(stored, command, connector)):
            return False, refused
        number = await self._published(command.issuer, connector, record.ca_spki_sha256)
        detail = _WORDS[command.reason] + (f"; on CRL number {number}" if number else "")
        if not await self.responder.try_publish(command.issuer, command.serial):
            if isinstance(command, WithdrawalOrdered):  # done means that CRL and OCSP say so
                raise DeferredError(stored.subject)
            detail += "; its OCSP response could not be signed: see the issuer's log"
        return True, detail

    async def _commanded(self, stored: Stored, command: Command) -> CertificateRecorded | str:
        """Return the record of the certificate to revoke, or why the command does not apply."""
        place = withdrawal_command if is_withdrawal(stored.subject) else revocation_command
        if stored.subject != place(command.issuer, command.serial, command.attempt):
            return "the command is for another certificate"
        record = await self._recorded(command)
        if isinstance(record, str) or isinstance(command, RevocationOrdered):
            return record
        if command.reason is not RevocationReason.CESSATION_OF_OPERATION:
            return "a withdrawal can only be for cessationOfOperation"
        issued = await self._issued(command)
        if issued is None or issued.confirmed_by != command.operator:
            return "the connection is not notified of this certificate"
        return record

    async def _recorded(self, command: Command) -> CertificateRecorded | str:
        """Return the certificate's record, or why there is none."""
        place = certificate_issued(command.issuer, command.serial)
        stored = await self.bus.get_last_or_leader(CERTS, place)
        if stored is None:
            return "no such certificate"
        trusted = self.live.current.trusted_issuers
        record = read_authentic(CertificateRecorded, stored, trusted, "certificate")
        return record or "the certificate's record is forged"

    async def _at_ca(self, stored: Stored, command: Command, connector: Connector) -> str:
        """Set the certificate's newest status at an external CA; return why the CA refused, or "".

        The log's status is sent, not this command's: a later command may have been carried out
        before.
        """
        series = self._series(
            CertificateStatusChanged, certificate_status(command.issuer, command.serial, "*")
        )
        newest = await series.newest()
        if newest is None:
            raise BusUnavailableError("the status of the certificate is not readable yet")
        status = newest.event
        reason = status.reason if status.revoked else RevocationReason.REMOVE_FROM_CRL
        pin, certificate = status.ca_spki_sha256, await self._certificate(command)
        try:
            async with asyncio.timeout(connector.lease):
                await connector.revoke(command.serial, pin, reason, certificate)
        except RevocationRefusedError as error:
            return shortened(f"recorded, but refused by the CA: {visible(str(error))}")
        except Exception as error:
            # The log says revoked: retry until the CA does too, however long that takes.
            log_failure("revocation_failed", error, issuer=command.issuer, serial=command.serial)
            raise DeferredError(stored.subject) from error
        return ""

    async def _certificate(self, command: Command) -> bytes:
        """Return the certificate (DER) that a serial number was issued under, b"" without one."""
        issued = await self._issued(command)
        return issued.certificate if issued is not None else b""

    async def _issued(self, command: Command) -> CertificateIssued | None:
        """Return the outcome with the certificate of a serial number, None without one."""
        record = await self._recorded(command)
        try:
            enrollment = parse_prefix(record.enrollment if not isinstance(record, str) else "")
        except ValueError:
            return None
        stream, subject = enroll_stream(enrollment.shard), enrollment.subject(Stage.OUTCOME)
        stored = await self.bus.get_last_or_leader(stream, subject)
        trusted = self.live.current.trusted_issuers
        issued = read_stage(stored, trusted, Stage.OUTCOME) if stored is not None else None
        if not isinstance(issued, CertificateIssued) or issued.serial != command.serial:
            return None
        return issued

    async def _published(self, issuer: str, connector: Connector, pin: str) -> int:
        """Publish the CRL with the change; return its number, 0 if the CA publishes its own."""
        authority = connector.crls
        ca = next((ca for ca in authority.active if ca.pin == pin), None) if authority else None
        if authority is None or ca is None:
            return 0
        return await self.keeper.publish(issuer, authority, ca)

    async def _record(
        self, stored: Stored, command: Command, record: CertificateRecorded
    ) -> Change | Unchanged:
        """Record the status; mark a compromised key first, so it is never revoked yet usable."""
        if command.reason is RevocationReason.KEY_COMPROMISE:
            await self._mark(stored, command, record.spki_sha256)
        place = partial(certificate_status, command.issuer, command.serial)
        series = self._series(CertificateStatusChanged, place("*"))
        while True:
            newest = await series.newest()
            at = stored.seconds
            current = newest.event if newest else None
            if isinstance(command, WithdrawalOrdered) and _is_final(current):
                return Unchanged(True, "already revoked")
            change = next_status(current, command.reason, stored.sequence, at)
            if isinstance(change, Unchanged):
                return change
            event = CertificateStatusChanged(
                request_sha256=stored.sha256(),
                serial=command.serial,
                ca_spki_sha256=record.ca_spki_sha256,
                status=change.status,
                reason=change.reason,
                revoked_at=change.revoked_at,
                operator=command.operator,
                command=stored.sequence,
                not_after=record.not_after,
                spki_sha256=record.spki_sha256,
            )
            written = signing(place, event, self.live.current.signer)
            if await series.append(newest, written) is not None:
                return change

    async def _mark(self, stored: Stored, command: Command, key: str) -> None:
        """Mark a key as compromised; one signed mark is enough, whichever issuer signed it."""
        place = partial(key_compromised, key)
        series = self._series(KeyCompromised, place("*"))
        event = KeyCompromised(request_sha256=stored.sha256(), serial=command.serial)
        if await series.newest() is None:
            await series.append(None, signing(place, event, self.live.current.signer))

    def _series(self, kind: type[_E], wildcard: str) -> Series[_E]:
        trusted = self.live.current.trusted_issuers
        return Series(self.bus, CERTS, wildcard, kind, trusted, "certificate")

    async def _append(self, subject: str, event: CommandAnswered) -> None:
        if not await Log(self.bus, self.live.current.signer).append(subject, event):
            _log.info("already_recorded", subject=subject)
