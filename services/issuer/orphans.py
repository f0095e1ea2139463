"""Possible orphans: certificates that a CA may have made and no device got.

Theory of operation. An `OrphanSuspected` event is appended before an order is placed again, or
given up, whose answer was lost. `OrphanKeeper` reads these events in the order of the log. At a CA
that can be searched it looks for certificates of the order that are on no record, and revokes them;
after `WATCH_SECONDS` without one there is none. At other CAs an operator finds the certificate in
the CA's own list and reports it, or reports that there is none (`OrphanReported`).
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog

from services.issuer.connectors.connector import (
    CaUnavailableError,
    Connector,
    Issued,
    Order,
    Recovery,
    RevocationRefusedError,
)
from services.issuer.received import is_from
from services.issuer.settings import Settings
from shared.bus.core import Bus
from shared.bus.log import Log, read_authentic, read_stage
from shared.bus.series import Entry, Series, signing
from shared.limits import shortened
from shared.log.envelope import Stored
from shared.log.events.certificates import (
    CertificateRecorded,
    OrphanNoted,
    OrphanSettled,
    OrphanSuspected,
)
from shared.log.events.commands import CommandAnswered, OrphanReported, RevocationReason
from shared.log.events.enrollment import EnrollmentApproved
from shared.log.stages import Stage
from shared.log.streams import CERTS, enroll_stream
from shared.log.subjects import (
    certificate_issued,
    orphan_command,
    parse_prefix,
    possible_orphan,
    revocation_answer,
    serial_token,
)
from shared.observe.logs import log_failure
from shared.runtime.live import Live
from shared.runtime.periodic import every
from shared.runtime.worker import DeferredError
from shared.scep.certificate import read_certificate
from shared.scep.errors import ScepError
from shared.text.printable import visible
from shared.x509.key_ids import spki_sha256

_log = structlog.get_logger()
_LOOK_SECONDS: Final = 60.0
WATCH_SECONDS: Final = 86400.0
_SEARCH_SECONDS: Final = 600.0
_MOST: Final = 10_000
_REASON: Final = RevocationReason.CESSATION_OF_OPERATION


@dataclass
class OrphanKeeper:
    """Searches the CAs for orphans and revokes them; `clock` returns Unix seconds.

    Keepers of several issuers may do the same: revoking is repeatable, and the first settlement
    counts.
    """

    bus: Bus
    live: Live[Settings]
    clock: Callable[[], float]
    _open: dict[str, Entry[OrphanSuspected]] = field(default_factory=dict)
    _position: int = 0
    _searched: dict[str, float] = field(default_factory=dict)
    _revoked: set[bytes] = field(default_factory=set)

    async def run(self) -> None:
        """Look periodically."""
        await every(_LOOK_SECONDS, self.look, name="orphans")

    async def look(self) -> None:
        """Read what the log has to say of orphans, and search for those that are due."""
        await self._read()
        for place, entry in tuple(self._open.items()):
            connector = self.live.current.issuers.get(entry.event.issuer)
            if connector is None or connector.recovery is not Recovery.SEARCHABLE:
                continue
            if self.clock() - self._searched.get(place, -_SEARCH_SECONDS) < _SEARCH_SECONDS:
                continue
            self._searched[place] = self.clock()
            try:
                async with asyncio.timeout(connector.lease):
                    await self._search(connector, entry)
            except Exception as error:  # noqa: BLE001 - the CA's or a package's; searched again
                log_failure("orphan_search_failed", error, issuer=entry.event.issuer)

    async def _read(self) -> None:
        """Follow the log: what was suspected and is not settled, up to a number of orders."""
        trusted = self.live.current.trusted_issuers
        wildcard = possible_orphan("*", "*", "*")
        while stored := await self.bus.get_next_or_leader(CERTS, wildcard, self._position + 1):
            self._position = stored.sequence
            event = read_authentic(OrphanNoted, stored, trusted, "order")
            if event is None:
                continue
            place = f"{event.issuer}.{event.key}"
            if isinstance(event, OrphanSuspected) and (
                place in self._open or len(self._open) < _MOST
            ):
                self._open[place] = Entry(event, stored)
            elif not isinstance(event, OrphanSuspected):
                self._open.pop(place, None)
                self._searched.pop(place, None)

    async def _search(self, connector: Connector, entry: Entry[OrphanSuspected]) -> None:
        """Revoke what the CA made for an order and nobody has; settle if that is all."""
        suspected = entry.event
        approved = await self._approved(suspected)
        if approved is None:
            return
        verdict, order = approved
        found = await connector.find(order)
        made = (found.certificate, *found.others) if isinstance(found, Issued) else ()
        kept, orphans = await self._divided(suspected, made)
        ended = await self._has_ended(suspected)
        if not ended and not kept:
            return  # the order is open: one of them may be the device's
        for der in orphans:
            if der not in self._revoked:
                await _revoke(connector, der, verdict.template.ca_spki_sha256)
                self._revoked.add(der)
        each_placement = len(orphans) > suspected.placement
        if each_placement or self.clock() - entry.stored.seconds > WATCH_SECONDS:
            serials = tuple(serial_token(read_certificate(der).serial) for der in orphans)
            detail = "revoked at the CA" if serials else "the CA made no further certificate"
            await settle(self.bus, self.live.current, suspected, serials, detail)

    async def _divided(
        self, suspected: OrphanSuspected, made: Sequence[bytes]
    ) -> tuple[list[bytes], list[bytes]]:
        """Return the certificates that are on record for the enrollment, and the others."""
        kept: list[bytes] = []
        orphans: list[bytes] = []
        for der in made:
            record = await recorded(self.bus, self.live.current, suspected.issuer, der)
            (kept if record == suspected.enrollment else orphans).append(der)
        return kept, orphans

    async def _approved(self, event: OrphanSuspected) -> tuple[EnrollmentApproved, Order] | None:
        """Return the verdict that an order was placed for, and the order."""
        try:
            enrollment = parse_prefix(event.enrollment)
        except ValueError:
            return None
        stream, subject = enroll_stream(enrollment.shard), enrollment.subject(Stage.VERDICT)
        stored = await self.bus.get_last_or_leader(stream, subject)
        if stored is None:
            return None
        verdict = read_stage(stored, self.live.current.validators, Stage.VERDICT)
        if not isinstance(verdict, EnrollmentApproved):
            return None
        return verdict, Order(event.enrollment, verdict.template, stored.sha256())

    async def _has_ended(self, event: OrphanSuspected) -> bool:
        enrollment = parse_prefix(event.enrollment)
        stream, subject = enroll_stream(enrollment.shard), enrollment.subject(Stage.OUTCOME)
        return await self.bus.get_last_or_leader(stream, subject) is not None


@dataclass
class OrphanConsumer:
    """Carries out operators' reports on possible orphans; every step may run twice."""

    bus: Bus
    live: Live[Settings]

    async def handle(self, stored: Stored) -> None:
        """Revoke the certificate that was reported, settle, and append the answer."""
        command = read_authentic(OrphanReported, stored, self.live.current.operators, "command")
        if command is None:
            return
        done, detail = await self._settle(stored, command)
        await self._answer(stored, detail, done=done)

    async def give_up(self, stored: Stored) -> None:
        """Answer a command that kills its worker."""
        await self._answer(stored, "the command failed", done=False)

    async def _settle(self, stored: Stored, command: OrphanReported) -> tuple[bool, str]:
        if stored.subject != orphan_command(command.issuer, command.key, command.attempt):
            return False, "the command is for another order"
        connector = self.live.current.issuers.get(command.issuer)
        if connector is None:
            return False, "this issuer is not configured"
        newest = await orphans_of(self.bus, self.live.current, command.issuer, command.key).newest()
        if newest is None or not isinstance(newest.event, OrphanSuspected):
            return False, "the order has no open possible orphan"
        suspected = newest.event
        serials: tuple[str, ...] = ()
        if command.certificate:
            problem = await self._not_an_orphan(connector, suspected, command.certificate)
            if problem:
                return False, problem
            refused = await self._revoke(connector, suspected, command.certificate)
            if refused:
                return False, refused
            serials = (serial_token(read_certificate(command.certificate).serial),)
        detail = "revoked at the CA" if serials else "an operator found none at the CA"
        await settle(self.bus, self.live.current, suspected, serials, detail, command.operator)
        return True, detail

    async def _not_an_orphan(
        self, connector: Connector, suspected: OrphanSuspected, der: bytes
    ) -> str:
        """Return why a certificate (DER) is not the orphan, "" if it can be."""
        ca = connector.pinned(suspected.ca_spki_sha256)
        if ca is None or not is_from(ca.chain[0], der):
            return "the certificate is not signed by the CA of the order"
        if spki_sha256(read_certificate(der).spki) != suspected.spki_sha256:
            return "the certificate is for another key than the order's"
        if await recorded(self.bus, self.live.current, suspected.issuer, der):
            return "the certificate is a device's, and no orphan: revoke it by its serial number"
        return ""

    async def _revoke(self, connector: Connector, suspected: OrphanSuspected, der: bytes) -> str:
        """Revoke at the CA; return why it refuses, "" if it has revoked."""
        try:
            async with asyncio.timeout(connector.lease):
                await _revoke(connector, der, suspected.ca_spki_sha256)
        except RevocationRefusedError as error:
            return shortened(f"refused by the CA: {visible(str(error))}")
        except (CaUnavailableError, TimeoutError) as error:
            raise DeferredError(suspected.key) from error
        return ""

    async def _answer(self, stored: Stored, detail: str, *, done: bool) -> None:
        answer = CommandAnswered(request_sha256=stored.sha256(), done=done, detail=detail)
        subject = revocation_answer(stored.subject)
        if not await Log(self.bus, self.live.current.signer).append(subject, answer):
            _log.info("already_recorded", subject=subject)


def orphans_of(bus: Bus, settings: Settings, issuer: str, key: str) -> Series[OrphanNoted]:
    """Return the series of events about the possible orphans of one order."""
    wildcard = possible_orphan(issuer, key, "*")
    return Series(bus, CERTS, wildcard, OrphanNoted, settings.trusted_issuers, "order")


async def recorded(bus: Bus, settings: Settings, issuer: str, der: bytes) -> str:
    """Return the enrollment on record for a certificate (DER), "" if there is none."""
    try:
        serial = serial_token(read_certificate(der).serial)
    except ScepError:
        return ""
    stored = await bus.get_last_or_leader(CERTS, certificate_issued(issuer, serial))
    if stored is None:
        return ""
    record = read_authentic(CertificateRecorded, stored, settings.trusted_issuers, "certificate")
    return record.enrollment if record is not None else ""


async def settle(
    bus: Bus,
    settings: Settings,
    suspected: OrphanSuspected,
    serials: tuple[str, ...],
    detail: str,
    operator: str = "",
) -> None:
    """Append that a possible orphan is settled, unless it is by now."""
    series = orphans_of(bus, settings, suspected.issuer, suspected.key)
    event = OrphanSettled(
        request_sha256=suspected.request_sha256,
        enrollment=suspected.enrollment,
        issuer=suspected.issuer,
        key=suspected.key,
        serials=serials,
        detail=detail,
        operator=operator,
    )
    place = partial(possible_orphan, suspected.issuer, suspected.key)
    while True:
        newest = await series.newest()
        if newest is None or not isinstance(newest.event, OrphanSuspected):
            return
        if await series.append(newest, signing(place, event, settings.signer)) is not None:
            _log.info("orphan_settled", issuer=suspected.issuer, key=suspected.key, detail=detail)
            return


async def _revoke(connector: Connector, der: bytes, pin: str) -> None:
    serial = serial_token(read_certificate(der).serial)
    _log.warning("orphan_revoked", serial=serial)
    await connector.revoke(serial, pin, _REASON, der)
