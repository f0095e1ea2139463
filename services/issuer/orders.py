"""Orders at an external CA: recorded before the CA is asked, found again, and placed again.

Theory of operation. The intent is a `CertificateOrdered` event in the enrollment's stage `order`.
What follows is a series of `OrderChanged` events in CERTS, the newest of which counts: the order
was placed again, was certainly not placed, or is pending under the CA's handle. An issuer that
places an order first records that, with a lease; of two, the log lets one win. Nobody else works on
the order before the lease has ended.

An order that may be at the CA already is looked for. If the CA cannot tell, the order is placed
again, after a possible orphan was recorded (`OrphanSuspected`). See
docs/decisions/0047-orders-are-placed-again-and-orphans-recorded.md.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, TypeVar

import structlog

from services.issuer.breaker import Breaker
from services.issuer.connectors.connector import (
    CaUnavailableError,
    Connector,
    Issued,
    Order,
    Pending,
    Prepared,
    Recovery,
    Refused,
    Result,
    UnknownOutcome,
)
from shared.bus.core import Bus
from shared.bus.log import Log, read_authentic
from shared.bus.series import Entry, Series, signing
from shared.config.load import SettingsError
from shared.limits import shortened
from shared.log.envelope import EventSigner, Trusted
from shared.log.events.certificates import (
    OrderChanged,
    OrderStep,
    OrphanNoted,
    OrphanSuspected,
)
from shared.log.events.enrollment import CertificateOrdered
from shared.log.reasons import Reason
from shared.log.stages import Stage
from shared.log.streams import CERTS, enroll_stream
from shared.log.subjects import order_change, parse_prefix, possible_orphan
from shared.observe.logs import log_failure
from shared.observe.metrics import ORPHANS
from shared.runtime.worker import DeferredError
from shared.text.printable import visible
from shared.x509.key_ids import spki_sha256

_log = structlog.get_logger()
_R = TypeVar("_R", bound=Result | None)
_FIRST_PAUSE: Final = 5.0
_LONGEST_PAUSE: Final = 300.0
_SPREAD: Final = 0.2
# Each placement without an answer may have made a certificate that nobody has.
MOST_LOST: Final = 3
_SEARCH_SECONDS: Final = 86400.0  # for how long a search that fails is repeated
_CERTAIN: Final = (Recovery.NAMED, Recovery.SEARCHABLE)
Answer = Issued | Refused


@dataclass(frozen=True, slots=True)
class Progress:
    """What the log says of an order; `entry` is its newest step.

    `placed`: the CA may have it. `placement` counts the placements from 0 and is -1 before the
    first. `since` is when it was last placed, in Unix seconds, as is `lease_until`. A placement
    that `repeats` a name or a token may have been carried out before; one with a token keeps the
    time of its first.
    """

    entry: Entry[OrderChanged] | None = None
    placed: bool = False
    placement: int = -1
    lost: int = 0
    since: int = 0
    lease_until: int = 0
    handle: str = ""
    repeats: bool = False


@dataclass(frozen=True)
class Orders:
    """Places orders and finds them again; `clock` returns Unix seconds.

    All methods raise `DeferredError` while another issuer has the lease, the CA cannot be asked,
    has not decided, or has not answered.
    """

    bus: Bus
    signer: EventSigner
    issuers: Trusted
    clock: Callable[[], float]
    breakers: dict[str, Breaker] = field(default_factory=dict)

    async def place(
        self, connector: Connector, order: Order, prepared: Prepared, request_sha256: str
    ) -> Answer:
        """Place an order, or return what became of it if it was placed before."""
        self._await_breaker(order)
        if await self._intend(connector, order, request_sha256):
            now = int(self.clock())
            until = int(now + connector.lease) + 1
            progress = Progress(placed=True, placement=0, since=now, lease_until=until)
        else:
            progress = await self.progress(order)
            found = await self._found(connector, order, progress, request_sha256)
            if found is not None:
                return found
            may_exist = _may_exist(connector, progress, self.clock())
            if may_exist and progress.lost + 1 >= MOST_LOST:
                await self.suspect(order, progress, request_sha256)
                detail = f"the CA did not answer {MOST_LOST} orders for this certificate"
                return Refused(detail, Reason.CA_SILENT)
            progress = await self._place_again(connector, order, progress, request_sha256)
        return await self._issue(connector, order, prepared, progress, request_sha256)

    async def settle(
        self, connector: Connector, order: Order, request_sha256: str
    ) -> Answer | None:
        """Return what became of an order that will not be placed again.

        None if it was not placed, or if the CA does not show it. A possible orphan is recorded if
        it may do so later.
        """
        progress = await self.progress(order)
        if not progress.placed:
            return None
        self._await_breaker(order)
        found = await self._found(connector, order, progress, request_sha256)
        if found is None and _may_turn_up(connector, progress):
            await self.suspect(order, progress, request_sha256)
        return found

    async def abandon(self, order: Order, request_sha256: str) -> None:
        """Record a possible orphan if the CA may have an order that nobody asks for any more."""
        progress = await self.progress(order)
        if progress.placed:
            await self.suspect(order, progress, request_sha256)

    async def is_open(self, order: Order) -> bool:
        """Return whether the CA may have an order."""
        return (await self.progress(order)).placed

    async def progress(self, order: Order) -> Progress:
        """Return what the log says of an order; forged events never count."""
        newest = await self._steps(order).newest()
        if newest is not None:
            step = newest.event
            return Progress(
                newest,
                step.step is not OrderStep.NOT_PLACED,
                step.placement,
                step.lost,
                step.since,
                step.lease_until,
                step.handle,
            )
        stream = enroll_stream(parse_prefix(order.enrollment).shard)
        stored = await self.bus.get_last_or_leader(stream, _subject(order))
        if stored is None:
            return Progress()
        intent = read_authentic(CertificateOrdered, stored, self.issuers, Stage.ORDER)
        if intent is None:
            return Progress()
        return Progress(
            placed=True, placement=0, since=stored.seconds, lease_until=intent.lease_until
        )

    async def suspect(self, order: Order, progress: Progress, request_sha256: str) -> None:
        """Record that the CA may have made a certificate for a placement without an answer."""
        place = partial(possible_orphan, order.template.issuer, order.key)
        series = Series(self.bus, CERTS, place("*"), OrphanNoted, self.issuers, "order")
        template = order.template
        event = OrphanSuspected(
            request_sha256=request_sha256,
            enrollment=order.enrollment,
            issuer=template.issuer,
            key=order.key,
            placement=progress.lost,
            spki_sha256=spki_sha256(template.spki),
            ca_spki_sha256=template.ca_spki_sha256,
        )
        while True:
            newest = await series.newest()
            if newest is not None and _covers(newest.event, progress.lost):
                return
            if await series.append(newest, signing(place, event, self.signer)) is not None:
                ORPHANS.labels(template.issuer).inc()
                _log.warning("orphan_suspected", issuer=template.issuer, key=order.key)
                return

    async def _found(
        self, connector: Connector, order: Order, progress: Progress, request_sha256: str
    ) -> Answer | None:
        """Look for an order at the CA once its lease has ended; None if it has to be placed."""
        if self.clock() < progress.lease_until:
            raise DeferredError(order.key, progress.lease_until - self.clock())
        if not progress.placed or not (progress.handle or connector.recovery in _CERTAIN):
            return None
        try:
            found = await self._asked(connector, connector.find(order, progress.handle), order)
        except CaUnavailableError as error:
            raise self._deferred(order, error) from error
        match found:
            case Issued(others=others) if others:
                await self.suspect(order, progress, request_sha256)
                return found
            case Pending():
                return await self._pending(connector, order, progress, found, request_sha256)
            case UnknownOutcome():
                pause = self._failed(order)
                if self.clock() - progress.since < _SEARCH_SECONDS:
                    raise DeferredError(order.key, _spread(max(pause, _FIRST_PAUSE)))
                await self.suspect(order, progress, request_sha256)
                return None
            case _:
                return found

    async def _issue(
        self,
        connector: Connector,
        order: Order,
        prepared: Prepared,
        progress: Progress,
        request_sha256: str,
    ) -> Answer:
        """Ask the CA under the lease that was recorded, and record what is not an answer."""
        try:
            result = await self._asked(connector, connector.issue(order, prepared), order)
        except CaUnavailableError as error:
            if progress.repeats:  # the placement before may have been carried out
                step, progress = OrderStep.PLACED, replace(progress, lease_until=0)
            else:
                step = OrderStep.NOT_PLACED
            await self._step(order, progress, step, request_sha256)
            raise self._deferred(order, error) from error
        match result:
            case Pending(handle=handle) if handle or connector.recovery is not Recovery.BLIND:
                return await self._pending(connector, order, progress, result, request_sha256)
            case UnknownOutcome() | Pending():
                self._failed(order)
                raise DeferredError(order.key, max(progress.lease_until - self.clock(), 0.0))
            case _:
                return result

    async def _pending(
        self,
        connector: Connector,
        order: Order,
        progress: Progress,
        result: Pending,
        request_sha256: str,
    ) -> Refused:
        """Record a handle that is new, and defer; refuse an order that waits for too long."""
        waited = self.clock() - progress.since
        handle = result.handle or progress.handle
        noted = progress.entry is not None and progress.entry.event.step is OrderStep.PENDING
        if not noted or handle != progress.handle:
            await self._step(order, progress, OrderStep.PENDING, request_sha256, handle=handle)
        if waited > connector.pending_limit:
            await self.suspect(order, progress, request_sha256)
            days = f"{connector.pending_limit / 86400:.3g} days"
            return Refused(f"the CA has not decided within {days}", Reason.CA_SILENT)
        raise DeferredError(order.key, pause_after(waited))

    async def _place_again(
        self, connector: Connector, order: Order, progress: Progress, request_sha256: str
    ) -> Progress:
        """Take the next lease, after recording that the last placement may have succeeded."""
        now = int(self.clock())
        since, repeats, lost = now, False, progress.lost
        if _may_exist(connector, progress, now):
            await self.suspect(order, progress, request_sha256)
            lost += 1
        elif progress.placed:  # the same name or token again
            repeats = True
            since = progress.since if connector.recovery is Recovery.SHORT_TOKEN else now
        lease_until = int(now + connector.lease) + 1
        next_one = Progress(progress.entry, True, progress.placement + 1, lost, since, lease_until)
        placed = await self._step(order, next_one, OrderStep.PLACED, request_sha256)
        return replace(placed, repeats=repeats)

    async def _step(
        self,
        order: Order,
        progress: Progress,
        step: OrderStep,
        request_sha256: str,
        handle: str = "",
    ) -> Progress:
        """Append a step after the newest one; defer if another issuer's step came first."""
        event = OrderChanged(
            request_sha256=request_sha256,
            enrollment=order.enrollment,
            issuer=order.template.issuer,
            key=order.key,
            step=step,
            placement=progress.placement,
            since=progress.since,
            lost=progress.lost,
            lease_until=progress.lease_until if step is OrderStep.PLACED else 0,
            handle=handle,
        )
        place = partial(order_change, order.template.issuer, order.key)
        series = self._steps(order)
        sequence = await series.append(progress.entry, signing(place, event, self.signer))
        newest = await series.newest() if sequence is not None else None
        if newest is None or newest.stored.sequence != sequence:
            raise DeferredError(order.key)
        return Progress(
            newest,
            step is not OrderStep.NOT_PLACED,
            event.placement,
            event.lost,
            event.since,
            event.lease_until,
            handle,
        )

    async def _asked(
        self, connector: Connector, call: Coroutine[Any, Any, _R], order: Order
    ) -> _R | UnknownOutcome:
        """Wait for the CA's answer; a timeout or an unexpected error leaves the outcome unknown.

        Raises `CaUnavailableError`.
        """
        try:
            async with asyncio.timeout(connector.lease):
                result: _R | UnknownOutcome = await call
        except CaUnavailableError:
            raise
        except SettingsError as error:  # a file with credentials is missing or not readable
            raise CaUnavailableError(str(error)) from error
        except TimeoutError:
            result = UnknownOutcome("no answer in time")
        except Exception as error:  # noqa: BLE001 - a package's error; the CA may have issued
            log_failure("connector_failed", error, issuer=order.template.issuer, key=order.key)
            result = UnknownOutcome(type(error).__name__)
        if not isinstance(result, Issued | Pending | Refused | UnknownOutcome | None):
            raise TypeError(f"a connector returned {type(result).__name__}")
        if isinstance(result, UnknownOutcome):
            _log.warning("order_outcome_unknown", key=order.key, detail=result.detail)
        else:
            self._breaker(order).succeeded()
        return result

    async def _intend(self, connector: Connector, order: Order, request_sha256: str) -> bool:
        """Append the intent; return False if there is one already."""
        event = CertificateOrdered(
            request_sha256=request_sha256,
            issuer=order.template.issuer,
            key=order.key,
            lease_until=int(self.clock() + connector.lease) + 1,
        )
        return await Log(self.bus, self.signer).append(_subject(order), event)

    def _steps(self, order: Order) -> Series[OrderChanged]:
        wildcard = order_change(order.template.issuer, order.key, "*")
        return Series(self.bus, CERTS, wildcard, OrderChanged, self.issuers, "order")

    def _breaker(self, order: Order) -> Breaker:
        return self.breakers.setdefault(order.template.issuer, Breaker())

    def _await_breaker(self, order: Order) -> None:
        wait = self._breaker(order).wait(self.clock())
        if wait:
            raise DeferredError(order.key, _spread(wait))

    def _failed(self, order: Order, wish: float = 0.0) -> float:
        return self._breaker(order).failed(self.clock(), wish)

    def _deferred(self, order: Order, error: CaUnavailableError) -> DeferredError:
        pause = self._failed(order, error.retry_after)
        said = shortened(visible(str(error)))
        _log.warning("ca_unavailable", issuer=order.template.issuer, key=order.key, detail=said)
        return DeferredError(order.key, _spread(max(pause, 1.0)))


def pause_after(waited: float) -> float:
    """Return after how many seconds to ask again for an order that waits for so long.

    About 5 s, 15 s, 45 s, 2 min, then every 5 min.
    """
    return _spread(min(_LONGEST_PAUSE, _FIRST_PAUSE + 2 * max(waited, 0.0)))


def _spread(seconds: float) -> float:
    return seconds * random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311 - not a secret


def _may_exist(connector: Connector, progress: Progress, now: float) -> bool:
    """Return whether the CA may have a certificate for an order that it does not show.

    A search may be too early: the CA may still be at work. A name or a handle is certain.
    """
    recovery = connector.recovery
    if not progress.placed or recovery is Recovery.NAMED:
        return False
    if recovery is Recovery.DEFERRED:  # another issuer may just have made the CA issue
        return bool(progress.handle)
    if recovery is Recovery.SHORT_TOKEN:  # the CA may forget the handle too
        # The CA may see the token only at the end of this placement's lease.
        return now + connector.lease >= progress.since + connector.token_lifetime
    return not progress.handle


def _may_turn_up(connector: Connector, progress: Progress) -> bool:
    """Return whether the CA may still make a certificate for an order that is given up.

    It may be slower than the lease, even one that makes one certificate for one name. Nobody
    repeats a token any more.
    """
    if progress.handle:  # the CA itself said that it does not have the order
        return connector.recovery in (Recovery.SHORT_TOKEN, Recovery.DEFERRED)
    return connector.recovery is not Recovery.DEFERRED


def _covers(newest: object, placement: int) -> bool:
    """Return whether the newest event about a possible orphan is about this placement too."""
    return isinstance(newest, OrphanSuspected) and newest.placement >= placement


def _subject(order: Order) -> str:
    return parse_prefix(order.enrollment).subject(Stage.ORDER)
