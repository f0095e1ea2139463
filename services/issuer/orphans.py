"""Possible orphans: certificates that a CA may have made and no device got.

Theory of operation. An `OrphanSuspected` event is appended before an order is placed again, or
given up, whose answer was lost. `OrphanKeeper` reads these events in the order of the log. At a CA
that can be asked for an order it looks for certificates that no device has, and revokes them; after
`WATCH_SECONDS` without one there is none. At other CAs an operator finds them in the CA's own list
and reports them, or that there are none (`OrphanReported`).
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog

from services.issuer.connectors.connector import (
    AnswerLostError,
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
from shared.log.events.enrollment import CertificateIssued, EnrollmentApproved
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
from shared.text.printable import visible
from shared.x509.key_ids import spki_sha256

_log = structlog.get_logger()
_LOOK_SECONDS: Final = 60.0
WATCH_SECONDS: Final = 86400.0
_SEARCH_SECONDS: Final = 600.0
_MOST: Final = 10_000
_SEARCHED: Final = (Recovery.SEARCHABLE, Recovery.NAMED)
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
    _open: dict[str, "_Watched"] = field(default_factory=dict)
    _position: int = 0

    async def run(self) -> None:
        """Look periodically."""
        await every(_LOOK_SECONDS, self.look, name="orphans")

    async def look(self) -> None:
        """Read what the log has to say of orphans, and search for those that are due."""
        await self._read()
        for watched in tuple(self._open.values()):
            connector = self.live.current.issuers.get(watched.entry.event.issuer)
            if connector is None or connector.recovery not in _SEARCHED:
                continue
            if self.clock() < watched.due:
                continue
            watched.due = self.clock() + _SEARCH_SECONDS
            try:
                async with asyncio.timeout(connector.lease):
                    await self._search(connector, watched)
            except Exception as error:  # noqa: BLE001 - the CA's or a package's; searched again
                log_failure("orphan_search_failed", error, issuer=watched.entry.event.issuer)

    async def _read(self) -> None:
        """Follow the log: what was suspected and is not settled, up to a number of orders.

        When that is reached, reading waits until some are settled.
        """
        trusted = self.live.current.trusted_issuers
        wildcard = possible_orphan("*", "*", "*")
        while stored := await self.bus.get_next_or_leader(CERTS, wildcard, self._position + 1):
            event = read_authentic(OrphanNoted, stored, trusted, "order")
            if event is not None:
                place = f"{event.issuer}.{event.key}"
                if not isinstance(event, OrphanSuspected):
                    self._open.pop(place, None)
                elif place in self._open:
                    self._open[place].entry = Entry(event, stored)
                elif len(self._open) < _MOST:
                    self._open[place] = _Watched(Entry(event, stored))
                else:
                    await self._drop_settled()
                    return
            self._position = stored.sequence

    async def _drop_settled(self) -> None:
        """Make room: forget orders whose settlement is further on in the log."""
        for place, watched in tuple(self._open.items()):
            event = watched.entry.event
            newest = await orphans_of(self.bus, self.live.current, event.issuer, event.key).newest()
            if newest is not None and not isinstance(newest.event, OrphanSuspected):
                del self._open[place]

    async def _search(self, connector: Connector, watched: "_Watched") -> None:
        """Revoke what the CA made for an order and nobody has; settle if that is all.

        Nothing is done before the enrollment has ended: until then any certificate of the order may
        become the device's.
        """
        suspected = watched.entry.event
        approved = await self._approved(suspected)
        if approved is None or await outcome_of(self.bus, suspected) is None:
            return
        verdict, order = approved
        found = await connector.find(order)
        if not isinstance(found, Issued | None):
            return
        made = (found.certificate, *found.others) if found is not None else ()
        orphans = [d for d in made if not await self._belongs(connector, suspected, d)]
        refused = [d for d in orphans if not await self._is_revoked(connector, watched, verdict, d)]
        enough = len(orphans) > suspected.placement
        if enough or self.clock() - watched.entry.stored.seconds > WATCH_SECONDS:
            detail = "revoked at the CA" if orphans else "the CA made no further certificate"
            if refused:
                detail = f"the CA refused to revoke {len(refused)} of {len(orphans)}"
            await settle(self.bus, self.live.current, suspected, serials_of(orphans), detail)

    async def _belongs(self, connector: Connector, suspected: OrphanSuspected, der: bytes) -> bool:
        return await belongs(self.bus, self.live.current, connector, suspected, der)

    async def _is_revoked(
        self, connector: Connector, watched: "_Watched", verdict: EnrollmentApproved, der: bytes
    ) -> bool:
        """Revoke an orphan unless that was done; return whether the CA agreed."""
        serial = serial_token(read_certificate(der).serial)
        if serial not in watched.revoked:
            try:
                await _revoke(connector, der, verdict.template.ca_spki_sha256)
            except RevocationRefusedError as error:
                log_failure("orphan_revocation_refused", error, serial=serial)
                return False
            watched.revoked.add(serial)
        return True

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


@dataclass
class _Watched:
    """An open suspicion: when to search next (Unix seconds), and what was revoked."""

    entry: Entry[OrphanSuspected]
    due: float = 0.0
    revoked: set[str] = field(default_factory=set)


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
        """Answer a command that kills its worker, or whose CA does not answer for some minutes."""
        detail = "the CA could not be asked for some minutes: give the command again"
        await self._answer(stored, detail, done=False)

    async def _settle(self, stored: Stored, command: OrphanReported) -> tuple[bool, str]:
        suspected = await self._suspected(stored, command)
        connector = self.live.current.issuers.get(command.issuer)
        if isinstance(suspected, str) or connector is None:
            said = suspected if isinstance(suspected, str) else "this issuer is not configured"
            return False, said
        for der in command.certificates:
            if problem := await self._not_an_orphan(connector, suspected, der):
                return False, problem
        for der in command.certificates:
            if refused := await self._revoke(connector, suspected, der):
                return False, refused
        serials = serials_of(command.certificates)
        detail = "revoked at the CA" if serials else "an operator found none at the CA"
        await settle(self.bus, self.live.current, suspected, serials, detail, command.operator)
        return True, detail

    async def _suspected(self, stored: Stored, command: OrphanReported) -> OrphanSuspected | str:
        """Return the open suspicion that a report is about, or why there is none."""
        if stored.subject != orphan_command(command.issuer, command.key, command.attempt):
            return "the command is for another order"
        newest = await orphans_of(self.bus, self.live.current, command.issuer, command.key).newest()
        if newest is None or not isinstance(newest.event, OrphanSuspected):
            return "the order has no open possible orphan"
        if newest.event.placement != command.placement:
            return "another answer to the order was lost meanwhile: look at the CA again"
        if await outcome_of(self.bus, newest.event) is None:
            return "the order is still open: report it when the enrollment has ended"
        return newest.event

    async def _not_an_orphan(
        self, connector: Connector, suspected: OrphanSuspected, der: bytes
    ) -> str:
        """Return why a certificate (DER) is not the orphan, "" if it can be."""
        ca = connector.pinned(suspected.ca_spki_sha256)
        if ca is None or not is_from(ca.chain[0], der):
            return "the certificate is not signed by the CA of the order"
        if spki_sha256(read_certificate(der).spki) != suspected.spki_sha256:
            return "the certificate is for another key than the order's"
        if await belongs(self.bus, self.live.current, connector, suspected, der):
            return "the certificate is a device's, and no orphan: revoke it by its serial number"
        return ""

    async def _revoke(self, connector: Connector, suspected: OrphanSuspected, der: bytes) -> str:
        """Revoke at the CA; return why it refuses, "" if it has revoked."""
        try:
            async with asyncio.timeout(connector.lease):
                await _revoke(connector, der, suspected.ca_spki_sha256)
        except RevocationRefusedError as error:
            return shortened(f"refused by the CA: {visible(str(error))}")
        except (CaUnavailableError, AnswerLostError, TimeoutError) as error:
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


async def outcome_of(bus: Bus, suspected: OrphanSuspected) -> Stored | None:
    """Return the stored outcome of the enrollment that an order was placed for."""
    try:
        enrollment = parse_prefix(suspected.enrollment)
    except ValueError:
        return None
    stream, subject = enroll_stream(enrollment.shard), enrollment.subject(Stage.OUTCOME)
    return await bus.get_last_or_leader(stream, subject)


async def belongs(
    bus: Bus, settings: Settings, connector: Connector, suspected: OrphanSuspected, der: bytes
) -> bool:
    """Return whether a certificate (DER) is a device's, or not of the order's CA.

    A certificate belongs to the device whose outcome has it. A record alone is not enough: an
    issuer may have been killed between record and outcome, and another one may have gone on with
    another certificate.
    """
    ca = connector.pinned(suspected.ca_spki_sha256)
    if ca is None or not is_from(ca.chain[0], der):
        return True
    serial = serial_token(read_certificate(der).serial)
    stored = await bus.get_last_or_leader(CERTS, certificate_issued(suspected.issuer, serial))
    if stored is not None:
        trusted = settings.trusted_issuers
        record = read_authentic(CertificateRecorded, stored, trusted, "certificate")
        if record is not None and record.enrollment != suspected.enrollment:
            return True
    outcome = await outcome_of(bus, suspected)
    if outcome is None:
        return True
    issued = read_stage(outcome, settings.trusted_issuers, Stage.OUTCOME)
    return isinstance(issued, CertificateIssued) and issued.serial == serial


def serials_of(certificates: Sequence[bytes]) -> tuple[str, ...]:
    """Return the serial numbers of certificates (DER), as the log writes them."""
    return tuple(serial_token(read_certificate(der).serial) for der in certificates)


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
