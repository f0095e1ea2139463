"""Orders of certificates that a CA makes under a name of ours: recorded before the CA is asked."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from services.issuer.connectors.connector import (
    CaUnavailableError,
    Connector,
    Order,
    Prepared,
    Result,
    UnknownOutcome,
)
from shared.bus.core import Bus
from shared.bus.log import Log, report_forgery
from shared.log.envelope import EventSigner, Stored, Trusted, UnreadableEventError, authenticate_as
from shared.log.events.enrollment import CertificateOrdered
from shared.log.stages import Stage
from shared.log.streams import enroll_stream
from shared.log.subjects import EnrollmentId, parse_prefix
from shared.observe.logs import log_failure
from shared.runtime.worker import DeferredError

_log = structlog.get_logger()


@dataclass(frozen=True)
class Orders:
    """Places orders; `clock` gives Unix seconds."""

    bus: Bus
    signer: EventSigner
    issuers: Trusted
    clock: Callable[[], float]

    async def result(
        self,
        connector: Connector,
        order: Order,
        prepared: Prepared,
        request_sha256: str,
    ) -> Result:
        """Place an order that nobody has placed, or return what became of it.

        Raises `DeferredError` while another issuer works on it. A call may take as long as the
        lease: then its outcome is unknown, and `find` tells when the message comes again.
        """
        first = await self._record(connector, order, request_sha256)
        if not first and await self._is_leased(order):
            raise DeferredError(order.key)
        try:
            async with asyncio.timeout(connector.lease):
                if not first:
                    found = await connector.find(order)
                    if found is not None:
                        return found
                return await connector.issue(order, prepared)
        except CaUnavailableError as error:
            log_failure("ca_unavailable", error, issuer=order.template.issuer)
            raise DeferredError(order.key) from error
        except TimeoutError:
            return UnknownOutcome("no answer in time")

    async def is_open(self, enrollment: EnrollmentId) -> bool:
        """Return whether an attempt has an order, so that a CA may have made its certificate."""
        return await self._ordered(enrollment) is not None

    async def _record(self, connector: Connector, order: Order, request_sha256: str) -> bool:
        """Append the intent; False where one stands."""
        event = CertificateOrdered(
            request_sha256=request_sha256,
            issuer=order.template.issuer,
            key=order.key,
            lease_until=int(self.clock() + connector.lease) + 1,
        )
        subject = parse_prefix(order.enrollment).subject(Stage.ORDER)
        return await Log(self.bus, self.signer).append(subject, event)

    async def _is_leased(self, order: Order) -> bool:
        """Return whether the issuer that wrote the order may still be at work on it."""
        ordered = await self._ordered(parse_prefix(order.enrollment))
        return ordered is not None and self.clock() < ordered.lease_until

    async def _ordered(self, enrollment: EnrollmentId) -> CertificateOrdered | None:
        """Return the authentic order of an attempt.

        A forged one changes nothing: the order is looked for at the CA by its own key.
        """
        subject = enrollment.subject(Stage.ORDER)
        stored: Stored | None = await self.bus.get_last_or_leader(
            enroll_stream(enrollment.shard), subject
        )
        if stored is None:
            return None
        try:
            return authenticate_as(CertificateOrdered, stored, self.issuers)
        except UnreadableEventError as error:
            report_forgery(Stage.ORDER, subject, error)
            return None
