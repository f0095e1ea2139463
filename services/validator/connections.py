"""The connections to tenants of Intune in this process: one client each, and its pull."""

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog

from services.validator.evaluate import Evaluator
from services.validator.microsoft.calls import Client
from services.validator.microsoft.connection import TenantConnection
from services.validator.revocation_pull import PullStatus, RevocationPull
from shared.log.events.state import TenantReport
from shared.observe.metrics import (
    MICROSOFT_BREAKER,
    REVOCATION_PULL_FAILING,
    REVOCATIONS_OPEN,
)
from shared.runtime.periodic import every

_log = structlog.get_logger()
_OPEN_SECONDS: Final = 2.0  # while an issuer has not answered
_RETRY_SECONDS: Final = 60.0
_SPREAD: Final = 0.2
_FIRST_SECONDS: Final = 1.0
_TEXT: Final = 300
Make = Callable[[TenantConnection], Client]


@dataclass
class _Open:
    """A connection in use: its settings, its client, and the task of its pull, if it has one."""

    settings: TenantConnection
    client: Client
    pull: RevocationPull | None = None
    task: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Stop the pull; close the client after the calls that are under way."""
        if self.task is not None:
            self.task.cancel()
        await asyncio.sleep(self.settings.budget)
        await self.client.close()


class Clients(Mapping[str, Client]):
    """The clients by connection; `replace` changes them for everyone who holds this object."""

    def __init__(self) -> None:
        """Start without any."""
        self._found: Mapping[str, Client] = {}

    def replace(self, found: Mapping[str, Client]) -> None:
        """Use these from now on."""
        self._found = found

    def __getitem__(self, name: str) -> Client:
        """Return a connection's client."""
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._found)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._found)


@dataclass
class Connections:
    """Opens and closes connections as the configuration wants; `clock` is the log's, Unix s."""

    evaluator: Evaluator
    clients: Clients
    make: Make
    replica: str
    clock: Callable[[], float]
    _open: dict[str, _Open] = field(default_factory=dict)
    _closing: set[asyncio.Task[None]] = field(default_factory=set)

    def apply(self, wanted: Mapping[str, TenantConnection]) -> None:
        """Use these connections and no others, before the settings that name them are in effect."""
        before, self._open = self._open, {}
        MICROSOFT_BREAKER.clear()  # new clients begin with closed ones
        for name, settings in wanted.items():
            self._open[name] = _Open(settings, self.make(settings))
        self.clients.replace({name: each.client for name, each in self._open.items()})
        self._start()
        for gone in before.values():
            task = asyncio.create_task(gone.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _start(self) -> None:
        """Begin to pull revocations; the first pass is after the next await of the caller."""
        for name, each in self._open.items():
            if each.settings.revocations and each.task is None:
                interval = each.settings.revocation_interval
                rest = interval * (1 - _SPREAD)
                each.pull = RevocationPull(
                    self.evaluator, name, each.client, self.replica, self.clock, rest
                )
                each.task = asyncio.create_task(_run(each.pull, interval))

    def reports(self) -> tuple[TenantReport, ...]:
        """Return how each connection does, and export how its pull of revocations does."""
        found = tuple(_report(each) for each in self._open.values())
        measure_pulls(found)
        return found

    async def stop(self) -> None:
        """Stop the pulls and close the clients at once."""
        for task in (*self._closing, *(each.task for each in self._open.values() if each.task)):
            task.cancel()
        for each in self._open.values():
            await each.client.close()


def measure_pulls(reports: Iterable[TenantReport]) -> None:
    """Export how the pulls of these connections do, and of no others."""
    for gauge in (REVOCATIONS_OPEN, REVOCATION_PULL_FAILING):
        gauge.clear()
    for each in reports:
        REVOCATIONS_OPEN.labels(each.connection).set(each.pull_open)
        REVOCATION_PULL_FAILING.labels(each.connection).set(bool(each.pull_error))


async def _run(pull: RevocationPull, interval: float) -> None:
    """Pull from time to time; often while requests are open, and when a lease ends."""
    is_open = False

    async def work() -> None:
        nonlocal is_open
        is_open = await pull.pull()

    def pause() -> float:
        spread = random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311 - not a secret
        if is_open:
            return _OPEN_SECONDS
        if pull.held_for:  # its holder may have died
            return min(pull.held_for + _OPEN_SECONDS, interval * spread)
        return interval * spread

    name = "revocation_pull"
    await every(pause, work, name=name, retry=_RETRY_SECONDS, delay=_FIRST_SECONDS)


def _report(each: _Open) -> TenantReport:
    health, settings = each.client.health(), each.settings
    error = health.last_error
    status = each.pull.status if each.pull is not None else PullStatus()
    return TenantReport(
        connection=settings.name,
        tenant=settings.tenant_id,
        cloud=settings.cloud,
        credential_kind=health.credential_kind,
        credential=health.credential,
        credential_not_after=int(health.credential_not_after),
        token_at=int(health.token_at),
        token_error=health.token_error[:_TEXT],
        discovered_at=int(health.discovered_at),
        last_ok=int(health.last_ok),
        last_error=f"{error.kind}: {error.sentence}"[:_TEXT] if error is not None else "",
        last_error_at=int(error.at) if error is not None else 0,
        breaker_until=int(health.breaker_open_until),
        throttled_until=int(health.throttled_until),
        calls=dict(health.calls),
        pulled_at=int(status.at),
        pull_open=status.open,
        pull_error=status.error[:_TEXT],
    )
