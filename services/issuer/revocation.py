"""Orders to revoke, and the CRLs that follow from them and from time."""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from services.issuer.connectors.local import Authorities, LocalCa
from services.issuer.crl import CrlHead, RevokedEntry, read_entries
from services.issuer.settings import Settings
from shared.bus.core import AppendConflictError, Bus
from shared.bus.topology import CERTS
from shared.crls import CHUNK_BYTES, newest_head, read_crl
from shared.events import CertificateRecorded, CertificateRevoked, CrlPublished, KeyCompromised
from shared.order_events import OrderAnswered, RevocationOrdered, RevocationReason
from shared.process import log_failure
from shared.stored import Message, Stored, UnreadableEventError, authenticate_as, sign
from shared.subjects import (
    certificate_issued,
    certificate_revoked,
    crl_chunk,
    crl_head,
    key_compromised,
    revocation_answer,
    revocation_order,
)
from shared.telemetry import SECURITY_EVENTS

_log = structlog.get_logger()
_LOOK_SECONDS = 60.0
_RETRY_SECONDS = 2.0
_NANOSECONDS = 1_000_000_000


@dataclass
class CrlKeeper:
    """Keeps every CA's CRL complete and fresh, together with the other issuers' keepers.

    A CRL is the one before it and all revocations on the log since; whoever appends the head of a
    number first has published it, the others read it and go on from there.
    """

    bus: Bus
    settings: Settings
    clock: Callable[[], float]
    _asked: asyncio.Event = field(default_factory=asyncio.Event)

    def look_now(self) -> None:
        """Do not wait until the next look: there may be a new CA."""
        self._asked.set()

    async def run(self) -> None:
        """Look at every CRL from time to time; a CA without one gets its first."""
        while True:
            pause = _LOOK_SECONDS
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 - whatever it is, CRLs must not stop
                log_failure("crl_waits", error)
                pause = _RETRY_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._asked.wait()
            self._asked.clear()

    async def look(self) -> None:
        """Publish what is missing or past half of its time."""
        for issuer, authorities in self.settings.issuers.items():
            for ca in authorities.active:
                head = await self._newest(issuer, ca)
                if head is None or self.clock() > (head.this_update + head.next_update) / 2:
                    await self.publish(issuer, authorities, ca)

    async def publish(self, issuer: str, authorities: Authorities, ca: LocalCa) -> int:
        """Publish a CRL that holds every revocation on the log; its number."""
        while True:
            head = await self._newest(issuer, ca)
            entries = (
                read_entries((await read_crl(self.bus, head, ca.chain[0])).der) if head else []
            )
            position, new = await self._revoked_since(issuer, ca, head.position if head else 0)
            now = int(self.clock())
            # Numbers of a CA whose CRLs have all left the log must still grow.
            number = head.number + 1 if head else now
            about = CrlHead(number, now, now + authorities.crl_validity)
            der = ca.sign_crl(about, {e.serial: e for e in (*entries, *new)}.values())
            if await self._append(issuer, ca, about, der, position):
                _log.info("crl_published", issuer=issuer, number=number, new=len(new))
                return number

    async def _entries(self, head: CrlPublished | None, ca: LocalCa) -> list[RevokedEntry]:
        """What the newest CRL holds."""
        if head is None:
            return []
        return read_entries((await read_crl(self.bus, head, ca.chain[0])).der)

    async def _newest(self, issuer: str, ca: LocalCa) -> CrlPublished | None:
        return await newest_head(self.bus, issuer, ca.chain[0], self.settings.trusted_issuers)

    async def _revoked_since(
        self, issuer: str, ca: LocalCa, position: int
    ) -> tuple[int, list[RevokedEntry]]:
        """(sequence of the last revocation, those of this CA after `position`)."""
        found = []
        wildcard = certificate_revoked(issuer, "*")
        while stored := await self.bus.get_next(CERTS, wildcard, position + 1):
            position = stored.sequence
            try:
                event = authenticate_as(CertificateRevoked, stored, self.settings.trusted_issuers)
            except UnreadableEventError as error:
                _security_event("revoked", stored, error)
                continue
            if event.ca_spki_sha256 == ca.pin:
                serial = bytes.fromhex(event.serial)
                found.append(RevokedEntry(serial, event.revoked_at, event.reason))
        return position, found

    async def _append(
        self, issuer: str, ca: LocalCa, about: CrlHead, der: bytes, position: int
    ) -> bool:
        """The pieces first, then the head that makes them count; False if another was first."""
        sha256 = hashlib.sha256(der).hexdigest()
        pieces = [der[i : i + CHUNK_BYTES] for i in range(0, len(der), CHUNK_BYTES)]
        for index, piece in enumerate(pieces):
            await self._once(crl_chunk(issuer, sha256, index), Message(piece, {}))
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
        message = sign(event, subject, event.request_sha256, self.settings.signer)
        return await self._once(subject, message)

    async def _once(self, subject: str, message: Message) -> bool:
        try:
            await self.bus.append(subject, message)
        except AppendConflictError:
            return False
        return True


@dataclass
class OrderConsumer:
    """Obeys operators' orders to revoke; every step may be taken twice."""

    bus: Bus
    settings: Settings
    keeper: CrlKeeper

    async def handle(self, stored: Stored) -> None:
        """Revoke, publish the CRL, answer."""
        try:
            order = authenticate_as(RevocationOrdered, stored, self.settings.operators)
        except UnreadableEventError as error:
            _security_event("order", stored, error)
            return
        done, detail = await self._revoke(stored, order)
        answer = OrderAnswered(request_sha256=stored.sha256(), done=done, detail=detail)
        await self._append(revocation_answer(stored.subject), answer)

    async def give_up(self, stored: Stored) -> None:
        """Answer an order that kills its worker."""
        detail = "the order could not be carried out"
        answer = OrderAnswered(request_sha256=stored.sha256(), done=False, detail=detail)
        await self._append(revocation_answer(stored.subject), answer)

    async def _revoke(self, stored: Stored, order: RevocationOrdered) -> tuple[bool, str]:
        if stored.subject != revocation_order(order.issuer, order.serial, order.attempt):
            return False, "the order is for another certificate"
        place = certificate_issued(order.issuer, order.serial)
        recorded = await self.bus.get_last(CERTS, place)
        if recorded is None:
            return False, "no such certificate"
        record = authenticate_as(CertificateRecorded, recorded, self.settings.trusted_issuers)
        authorities = self.settings.issuers.get(order.issuer)
        ca = authorities.pinned(record.ca_spki_sha256) if authorities else None
        if authorities is None or ca is None:
            return False, "the certificate's CA is not here"
        await self._record(stored, order, record)
        number = await self.keeper.publish(order.issuer, authorities, ca)
        return True, f"revoked; on CRL number {number}"

    async def _record(
        self, stored: Stored, order: RevocationOrdered, record: CertificateRecorded
    ) -> None:
        """Into the index: the key first, so that it never stands revoked and yet usable."""
        sha256 = stored.sha256()
        if order.reason is RevocationReason.KEY_COMPROMISE:
            marked = KeyCompromised(request_sha256=sha256, serial=order.serial)
            await self._append(key_compromised(record.spki_sha256), marked)
        revoked = CertificateRevoked(
            request_sha256=sha256,
            serial=order.serial,
            ca_spki_sha256=record.ca_spki_sha256,
            reason=order.reason,
            revoked_at=stored.time // _NANOSECONDS,
            operator=order.operator,
        )
        await self._append(certificate_revoked(order.issuer, order.serial), revoked)

    async def _append(
        self, subject: str, event: KeyCompromised | CertificateRevoked | OrderAnswered
    ) -> None:
        message = sign(event, subject, event.request_sha256, self.settings.signer)
        try:
            await self.bus.append(subject, message)
        except AppendConflictError:
            _log.info("recorded_before", subject=subject)


def _security_event(stage: str, stored: Stored, error: UnreadableEventError) -> None:
    SECURITY_EVENTS.labels(stage).inc()
    _log.error("event_not_authentic", about=stored.subject, detail=str(error))
