"""Orders at an external CA: recorded before the CA is asked, and found again by their key."""

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
    """Places orders and finds them again; `clock` returns Unix seconds."""

    bus: Bus
    signer: EventSigner
    issuers: Trusted
    clock: Callable[[], float]

    async def place(
        self, connector: Connector, order: Order, prepared: Prepared, request_sha256: str
    ) -> Result:
        """Place an order, or return what became of it if it was placed before.

        Raises `DeferredError` while another issuer works on it, and while the CA is unavailable.
        """
        if not await self._record(connector, order, request_sha256):
            found = await self.find(connector, order)
            if found is not None:
                return found
        return await self._asked(connector, connector.issue(order, prepared), order)

    async def find(self, connector: Connector, order: Order) -> Result | None:
        """Return what became of an order that was placed; None if the CA does not have it.

        Raises `DeferredError` like `place`.
        """
        ordered = await self._ordered(order)
        if ordered is not None and self.clock() < ordered.lease_until:
            raise DeferredError(order.key)
        return await self._asked(connector, connector.find(order), order)

    async def is_open(self, order: Order) -> bool:
        """Return whether an order was recorded, so that the CA may have made the certificate.

        A forged event counts too, because it may occupy the place of a true one.
        """
        subject = _subject(order)
        stream = enroll_stream(parse_prefix(order.enrollment).shard)
        return await self.bus.get_last_or_leader(stream, subject) is not None

    async def _asked(
        self, connector: Connector, call: Coroutine[Any, Any, _R], order: Order
    ) -> _R | UnknownOutcome:
        """Wait for the CA's answer; a timeout or an unexpected error leaves the outcome unknown."""
        try:
            async with asyncio.timeout(connector.lease):
                result: _R | UnknownOutcome = await call
        except CaUnavailableError as error:
            log_failure("ca_unavailable", error, issuer=order.template.issuer, key=order.key)
            raise DeferredError(order.key) from error
        except TimeoutError:
            result = UnknownOutcome("no answer in time")
        except Exception as error:  # noqa: BLE001 - a package's error; the CA may have issued
            log_failure("connector_failed", error, issuer=order.template.issuer, key=order.key)
            result = UnknownOutcome(type(error).__name__)
        if not isinstance(result, Issued | Pending | Refused | UnknownOutcome | None):
            raise TypeError(f"a connector returned {type(result).__name__}")
        if isinstance(result, UnknownOutcome):
            _log.warning("order_outcome_unknown", key=order.key, detail=result.detail)
        return result

    async def _record(self, connector: Connector, order: Order, request_sha256: str) -> bool:
        """Append the intent; return False if there is one already."""
        event = CertificateOrdered(
            request_sha256=request_sha256,
            issuer=order.template.issuer,
            key=order.key,
            lease_until=int(self.clock() + connector.lease) + 1,
        )
        return await Log(self.bus, self.signer).append(_subject(order), event)

    async def _ordered(self, order: Order) -> CertificateOrdered | None:
        """Return the authentic order of an attempt; the lease of a forged one does not count."""
        stream = enroll_stream(parse_prefix(order.enrollment).shard)
        stored = await self.bus.get_last_or_leader(stream, _subject(order))
        if stored is None:
            return None
        return read_authentic(CertificateOrdered, stored, self.issuers, Stage.ORDER)


def _subject(order: Order) -> str:
    return parse_prefix(order.enrollment).subject(Stage.ORDER)
