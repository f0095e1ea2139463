"""Orders at an external CA: recorded before it is asked, and found again under their key."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from services.issuer.connectors.connector import (
    CaUnavailableError,
    Connector,
    Issued,
    Order,
    Pending,
    Prepared,
    Refused,
    Result,
    UnknownOutcome,
)
from shared.bus.core import Bus
from shared.bus.log import Log, read_authentic
from shared.log.envelope import EventSigner, Trusted
from shared.log.events.enrollment import CertificateOrdered
from shared.log.stages import Stage
from shared.log.streams import enroll_stream
from shared.log.subjects import parse_prefix
from shared.observe.logs import log_failure
from shared.runtime.worker import DeferredError

_log = structlog.get_logger()
_R = TypeVar("_R", bound=Result | None)


@dataclass(frozen=True)
class Orders:
    """Places orders and finds them again; `clock` gives Unix seconds."""

    bus: Bus
    signer: EventSigner
    issuers: Trusted
    clock: Callable[[], float]

    async def place(
        self, connector: Connector, order: Order, prepared: Prepared, request_sha256: str
    ) -> Result:
        """Place an order that nobody has placed, or return what became of it.

        Raises `DeferredError` while another issuer works on it, and where the CA is away.
        """
        if not await self._record(connector, order, request_sha256):
            found = await self.find(connector, order)
            if found is not None:
                return found
        return await self._asked(connector, connector.issue(order, prepared), order)

    async def find(self, connector: Connector, order: Order) -> Result | None:
        """Return what became of an order that was placed; None where the CA has none.

        Raises `DeferredError` like `place`.
        """
        ordered = await self._ordered(order)
        if ordered is not None and self.clock() < ordered.lease_until:
            raise DeferredError(order.key)
        return await self._asked(connector, connector.find(order), order)

    async def is_open(self, order: Order) -> bool:
        """Return whether there is an order, so that the CA may have made the certificate.

        A forged event may stand in the place of a true one, so it counts.
        """
        subject = _subject(order)
        stream = enroll_stream(parse_prefix(order.enrollment).shard)
        return await self.bus.get_last_or_leader(stream, subject) is not None

    async def _asked(
        self, connector: Connector, call: Coroutine[Any, Any, _R], order: Order
    ) -> _R | UnknownOutcome:
        """Wait for one answer; whatever is no answer leaves the outcome unknown."""
        try:
            async with asyncio.timeout(connector.lease):
                result: _R | UnknownOutcome = await call
        except CaUnavailableError as error:
            log_failure("ca_unavailable", error, issuer=order.template.issuer, key=order.key)
            raise DeferredError(order.key) from error
        except TimeoutError:
            result = UnknownOutcome("no answer in time")
        except Exception as error:  # noqa: BLE001 - of a package; the CA may have done its part
            log_failure("connector_failed", error, issuer=order.template.issuer, key=order.key)
            result = UnknownOutcome(type(error).__name__)
        if not isinstance(result, Issued | Pending | Refused | UnknownOutcome | None):
            raise TypeError(f"a connector returned {type(result).__name__}")
        if isinstance(result, UnknownOutcome):
            _log.warning("order_outcome_unknown", key=order.key, detail=result.detail)
        return result

    async def _record(self, connector: Connector, order: Order, request_sha256: str) -> bool:
        """Append the intent; False where one stands."""
        event = CertificateOrdered(
            request_sha256=request_sha256,
            issuer=order.template.issuer,
            key=order.key,
            lease_until=int(self.clock() + connector.lease) + 1,
        )
        return await Log(self.bus, self.signer).append(_subject(order), event)

    async def _ordered(self, order: Order) -> CertificateOrdered | None:
        """Return the authentic order of an attempt; a forged one has no lease that counts."""
        stream = enroll_stream(parse_prefix(order.enrollment).shard)
        stored = await self.bus.get_last_or_leader(stream, _subject(order))
        if stored is None:
            return None
        return read_authentic(CertificateOrdered, stored, self.issuers, Stage.ORDER)


def _subject(order: Order) -> str:
    return parse_prefix(order.enrollment).subject(Stage.ORDER)
