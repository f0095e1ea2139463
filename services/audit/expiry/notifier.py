"""Notifies an operator's service of certificates that are about to expire.

Theory of operation. For each period (30 days, 7 days, 1 day before the end) the database keeps the
last certificate that was notified of, in order of their ends. Every minute, those are posted that
have come within the period since, some at a time, and the place moves behind them after a 2xx. So
there is at least one notice of each for each period that it lives to see, and a restart repeats
none that was accepted.
One replica at a time holds a period; if it dies, another continues when the hold ends. A receiver
that is down is tried again with growing pauses, and nothing else waits for it.
"""

import asyncio
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from services.audit.expiry.notices import Period, Place, notice, periods
from services.audit.query.certificates import expiring_after
from services.audit.query.inventory import renewal_windows
from services.audit.query.life import RenewalWindows
from services.audit.query.pages import fitting
from services.audit.record.log_reader import last_sequence
from services.audit.record.write import position
from services.audit.settings import ExpiryWebhook
from services.audit.store.engine import Engine
from services.audit.store.expiry_notices import Hold, move, take
from shared.bus.core import Bus
from shared.config.sections import Configuration
from shared.limits import NOTICE_CERTIFICATES
from shared.log.streams import CERTS
from shared.observe.metrics import EXPIRY_NOTICES
from shared.runtime.endpoint import POST_ERRORS
from shared.runtime.periodic import every

_log = structlog.get_logger()
_SECONDS: Final = 60.0
_FIRST_SECONDS: Final = 10.0
_RETRY_SECONDS: Final = (5.0, 15.0, 60.0, 300.0, 900.0)
_HOLD_SECONDS: Final = 60  # beyond the time that one post may take
# With more events to record than this, certificates may be missing or look as if not renewed.
_KEEPS_UP: Final = 1000
_SUCCESSFUL: Final = range(200, 300)


@dataclass
class ExpiryNotifier:
    """Sends notices. `clock` returns the log's time in Unix seconds.

    `webhook` returns the present settings, None if nobody is to be notified.
    """

    bus: Bus
    engine: Engine
    webhook: Callable[[], ExpiryWebhook | None]
    configuration: Callable[[], Configuration]
    clock: Callable[[], float]
    holder: str = field(default_factory=lambda: secrets.token_hex(16))
    _failures: int = 0

    async def run(self) -> None:
        """Send what is due every minute, forever; after a failure with growing pauses."""
        for accepted in ("false", "true"):
            EXPIRY_NOTICES.labels(accepted)
        await every(self.pause, self.look, name="expiry_notice", delay=_FIRST_SECONDS)

    def pause(self) -> float:
        """Return the seconds until the next look."""
        if not self._failures:
            return _SECONDS
        pause = _RETRY_SECONDS[min(self._failures, len(_RETRY_SECONDS)) - 1]
        return pause * random.uniform(0.8, 1.2)  # noqa: S311 - so that replicas spread

    async def look(self) -> None:
        """Send every notice that is due, until the receiver does not take one."""
        webhook = self.webhook()
        if webhook is None or not await self._is_current():
            return
        configuration = await asyncio.to_thread(self.configuration)
        windows = renewal_windows(configuration)
        for period in periods(webhook.before):
            if not await self._send_all(webhook, period, windows):
                return
        self._failures = 0

    async def _is_current(self) -> bool:
        """Return whether the database has what the log has of certificates."""
        newest = await last_sequence(self.bus, CERTS)
        return newest - await asyncio.to_thread(position, self.engine, CERTS) <= _KEEPS_UP

    async def _send_all(
        self, webhook: ExpiryWebhook, period: Period, windows: RenewalWindows
    ) -> bool:
        """Send a period's notices if no other replica does; return False after a failure."""
        now = int(self.clock())
        end = now + period.seconds
        place = await asyncio.to_thread(take, self.engine, self._hold(webhook, period), now)
        if place is None:
            return True
        place = period.start(place, now)
        while rows := await asyncio.to_thread(self._next, place, end):
            body = notice(rows, period, windows, int(self.clock()))
            if not await self._post(webhook, body):
                return False
            place = rows[-1]["not_after"], rows[-1]["issuer"], rows[-1]["serial"]
            if not await self._move(webhook, period, place):
                return True
        # There is no notice of certificates that are issued with less time left than the period.
        await self._move(webhook, period, max(place, (end, "", "")))
        return True

    async def _move(self, webhook: ExpiryWebhook, period: Period, place: Place) -> bool:
        return await asyncio.to_thread(move, self.engine, self._hold(webhook, period), place)

    def _hold(self, webhook: ExpiryWebhook, period: Period) -> Hold:
        until = int(self.clock() + webhook.endpoint.timeout) + _HOLD_SECONDS
        return Hold(period.seconds, self.holder, until)

    def _next(self, place: Place, end: int) -> list[dict[str, Any]]:
        with self.engine.connect() as connection:
            rows = expiring_after(connection, place, end, NOTICE_CERTIFICATES)
        return rows[: fitting(rows, len(rows))]

    async def _post(self, webhook: ExpiryWebhook, body: dict[str, Any]) -> bool:
        """Post a notice; return whether it was taken. Neither URL nor body is logged."""
        try:
            status, _ = await webhook.endpoint.post(body, int(self.clock()))
            problem = "" if status in _SUCCESSFUL else f"HTTP {status}"
        except POST_ERRORS as error:
            problem = type(error).__name__
        if problem:
            self._failures += 1
            EXPIRY_NOTICES.labels("false").inc()
            _log.warning("expiry_notice_failed", detail=problem, failures=self._failures)
            return False
        self._failures = 0
        EXPIRY_NOTICES.labels("true").inc()
        _log.info("expiry_notice_sent", id=body["id"], certificates=len(body["certificates"]))
        return True
