"""Carries out revocation commands, and publishes CRLs after them and before others expire."""

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

import structlog

from services.issuer.connectors.connector import (
    Connector,
    CrlAuthority,
    CrlSigner,
    RevocationRefusedError,
)
from services.issuer.crl import CrlHead, RevokedEntry, read_entries
from services.issuer.responder import Responder
from services.issuer.settings import Settings
from services.issuer.status import Change, Unchanged, next_status
from shared.bus.core import Bus, BusUnavailableError
from shared.bus.log import Log, append_first, read_authentic, read_stage
from shared.bus.series import Series, SeriesTooLongError, signing
from shared.ca.crls import CHUNK_BYTES, newest_head, read_crl
from shared.limits import shortened
from shared.log.envelope import Message, Stored, UnreadableEventError, authenticate_as
from shared.log.events.certificates import (
    CertificateRecorded,
    CertificateStatusChanged,
    CrlPublished,
    KeyCompromised,
)
from shared.log.events.commands import CommandAnswered, RevocationOrdered, RevocationReason
from shared.log.events.enrollment import CertificateIssued
from shared.log.stages import Stage
from shared.log.streams import CERTS, enroll_stream
from shared.log.subjects import (
    certificate_issued,
    certificate_status,
    crl_chunk,
    crl_head,
    key_compromised,
    parse_prefix,
    revocation_answer,
    revocation_command,
)
from shared.observe.logs import log_failure
from shared.runtime.live import Live
from shared.runtime.periodic import every
from shared.runtime.worker import DeferredError
from shared.text.printable import visible

_log = structlog.get_logger()
_LOOK_SECONDS = 60.0
_RETRY_SECONDS = 2.0
# After so many forged heads in a row, use a random CRL number, which nobody can have occupied.
_NEXT_NUMBERS: Final = 16
_RANDOM_BITS: Final = 32
_E = TypeVar("_E")
_WORDS: Final = dict.fromkeys(RevocationReason, "revoked") | {
    RevocationReason.CERTIFICATE_HOLD: "on hold",
    RevocationReason.REMOVE_FROM_CRL: "released",
}


@dataclass
class CrlKeeper:
    """Keeps every CA's CRL complete and fresh, together with the keepers of other issuers.

    A CRL contains the previous one and all revocations on the log since. The keeper that appends
    the head with a number first has published it; the others read that head and continue from it.
    `clock` returns Unix seconds.
    """

    bus: Bus
    live: Live[Settings]
    clock: Callable[[], float]
    _asked: asyncio.Event = field(default_factory=asyncio.Event)

    def look_now(self) -> None:
        """Check now instead of after the usual pause: there may be a new CA."""
        self._asked.set()

    async def run(self) -> None:
        """Check every CRL periodically; a CA without one gets its first."""
        await every(_LOOK_SECONDS, self.look, name="crl", wake=self._asked, retry=_RETRY_SECONDS)

    async def look(self) -> None:
        """Publish each CRL that is missing or past half of its validity."""
        for issuer, connector in self.live.current.issuers.items():
            authority = connector.crls
            if authority is None:
                continue
            for ca in authority.active:
                head, _ = await self._newest(issuer, ca)
                if head is None or self.clock() > (head.this_update + head.next_update) / 2:
                    await self.publish(issuer, authority, ca)

    async def publish(self, issuer: str, authority: CrlAuthority, ca: CrlSigner) -> int:
        """Publish a CRL that contains every revocation on the log; return its number."""
        skipped = taken = 0
        first = False
        while True:
            head, number = await self._newest(issuer, ca)
            entries = {entry.serial: entry for entry in await self._entries(head, ca)}
            position = await self._apply(issuer, ca, head.position if head else 0, entries)
            if first and head is not None and position == head.position:
                return head.number
            now = int(self.clock())
            number += skipped
            about = CrlHead(number, now, now + authority.crl_validity)
            der = ca.sign_crl(about, entries.values())
            if await self._append(issuer, ca, about, der, position):
                _log.info("crl_published", issuer=issuer, number=number, entries=len(entries))
                if head is not None:
                    return number
                # Another issuer may have published a first CRL too; the later may hold less: check.
                first, skipped = True, 0
                continue
            if (await self._newest(issuer, ca))[0] == head:
                # No trusted issuer published it: a forgery occupies the number.
                taken += 1
                skipped += 1 if taken < _NEXT_NUMBERS else secrets.randbits(_RANDOM_BITS)

    async def _entries(self, head: CrlPublished | None, ca: CrlSigner) -> list[RevokedEntry]:
        """Return the entries of the newest CRL."""
        if head is None:
            return []
        return read_entries((await read_crl(self.bus, head, ca.chain[0])).der)

    async def _newest(self, issuer: str, ca: CrlSigner) -> tuple[CrlPublished | None, int]:
        """Return the newest head, and the number that follows it.

        Numbers must also grow after all CRLs of a CA have left the log, and when forged heads hide
        the newest. In that case the CRL is rebuilt from all revocations, because revocation must
        not stop.
        """
        now = int(self.clock())
        try:
            trusted = self.live.current.trusted_issuers
            head = await newest_head(self.bus, issuer, ca.chain[0], trusted)
        except SeriesTooLongError as error:
            _log.error("crl_rebuilt", issuer=issuer, detail=str(error))
            begun = int(self.clock() * 1000)  # milliseconds, because numbers must not decrease
            return None, (begun << _RANDOM_BITS) + secrets.randbits(_RANDOM_BITS)
        return head, head.number + 1 if head is not None else now

    async def _apply(
        self, issuer: str, ca: CrlSigner, position: int, entries: dict[bytes, RevokedEntry]
    ) -> int:
        """Apply the changes after `position` to a CRL's entries; return the last one's position."""
        wildcard = certificate_status(issuer, "*", "*")
        while stored := await self.bus.get_next_or_leader(CERTS, wildcard, position + 1):
            position = stored.sequence
            event = read_authentic(
                CertificateStatusChanged, stored, self.live.current.trusted_issuers, "revoked"
            )
            if event is None:
                continue
            if event.ca_spki_sha256 != ca.pin:
                continue
            serial = bytes.fromhex(event.serial)
            if event.revoked:
                entries[serial] = RevokedEntry(serial, event.revoked_at, event.reason)
            else:
                entries.pop(serial, None)
        return position

    async def _append(
        self, issuer: str, ca: CrlSigner, about: CrlHead, der: bytes, position: int
    ) -> bool:
        """Append the chunks, then the head that makes them count; False if another was first."""
        sha256 = hashlib.sha256(der).hexdigest()
        pieces = [der[i : i + CHUNK_BYTES] for i in range(0, len(der), CHUNK_BYTES)]
        for index, piece in enumerate(pieces):
            await append_first(self.bus, crl_chunk(issuer, sha256, index), Message(piece, {}))
        event = CrlPublished(
            issuer=issuer,
            ca_spki_sha256=ca.pin,
            number=about.number,
            this_update=about.this_update,
            next_update=about.next_update,
            chunks=len(pieces),
            sha256=sha256,
            position=position,
        )
        subject = crl_head(issuer, ca.pin, about.number)
        return await Log(self.bus, self.live.current.signer).append(subject, event)


@dataclass
class RevocationConsumer:
    """Carries out operators' revocation commands; every step may run twice."""

    bus: Bus
    live: Live[Settings]
    keeper: CrlKeeper
    responder: Responder

    async def handle(self, stored: Stored) -> None:
        """Revoke the certificate, publish the CRL, and append the answer."""
        command = read_authentic(RevocationOrdered, stored, self.live.current.operators, "command")
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

    def _is_external(self, stored: Stored) -> bool:
        """Return whether a command is about a certificate of an external CA."""
        try:
            command = authenticate_as(RevocationOrdered, stored, self.live.current.operators)
        except UnreadableEventError:
            return False
        connector = self.live.current.issuers.get(command.issuer)
        return connector is not None and connector.lease > 0

    async def _revoke(self, stored: Stored, command: RevocationOrdered) -> tuple[bool, str]:
        if stored.subject != revocation_command(command.issuer, command.serial, command.attempt):
            return False, "the command is for another certificate"
        record = await self._recorded(command)
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
        await self.responder.try_publish(command.issuer, command.serial)
        number = await self._published(command.issuer, connector, record.ca_spki_sha256)
        return True, _WORDS[command.reason] + (f"; on CRL number {number}" if number else "")

    async def _recorded(self, command: RevocationOrdered) -> CertificateRecorded | str:
        """Return the certificate's record, or why there is none."""
        place = certificate_issued(command.issuer, command.serial)
        stored = await self.bus.get_last_or_leader(CERTS, place)
        if stored is None:
            return "no such certificate"
        trusted = self.live.current.trusted_issuers
        record = read_authentic(CertificateRecorded, stored, trusted, "certificate")
        return record or "the certificate's record is forged"

    async def _at_ca(self, stored: Stored, command: RevocationOrdered, connector: Connector) -> str:
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

    async def _certificate(self, command: RevocationOrdered) -> bytes:
        """Return the certificate (DER) that a serial number was issued under, b"" without one."""
        record = await self._recorded(command)
        try:
            enrollment = parse_prefix(record.enrollment if not isinstance(record, str) else "")
        except ValueError:
            return b""
        stream, subject = enroll_stream(enrollment.shard), enrollment.subject(Stage.OUTCOME)
        stored = await self.bus.get_last_or_leader(stream, subject)
        trusted = self.live.current.trusted_issuers
        issued = read_stage(stored, trusted, Stage.OUTCOME) if stored is not None else None
        if not isinstance(issued, CertificateIssued) or issued.serial != command.serial:
            return b""
        return issued.certificate

    async def _published(self, issuer: str, connector: Connector, pin: str) -> int:
        """Publish the CRL with the change; return its number, 0 if the CA publishes its own."""
        authority = connector.crls
        ca = next((ca for ca in authority.active if ca.pin == pin), None) if authority else None
        if authority is None or ca is None:
            return 0
        return await self.keeper.publish(issuer, authority, ca)

    async def _record(
        self, stored: Stored, command: RevocationOrdered, record: CertificateRecorded
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
            )
            written = signing(place, event, self.live.current.signer)
            if await series.append(newest, written) is not None:
                return change

    async def _mark(self, stored: Stored, command: RevocationOrdered, key: str) -> None:
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
