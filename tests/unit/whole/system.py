"""Gateway, validator and issuer in one process on the bus in memory: real code, no sockets."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp

from services.gateway.app import Gateway
from services.gateway.enroll import Enroller
from services.gateway.lookups import Lookups
from services.gateway.outcomes import Outcomes
from services.gateway.settings import Limits, Profile
from services.gateway.settings import Settings as GatewaySettings
from services.issuer.chains import publish_chains
from services.issuer.connectors.local import LocalCa, LocalConnector
from services.issuer.consumer import VerdictConsumer
from services.issuer.crl_keeper import CrlKeeper
from services.issuer.responder import Responder
from services.issuer.revocation import RevocationConsumer
from services.issuer.settings import Settings as IssuerSettings
from services.validator.access import Access
from services.validator.consumer import RequestConsumer
from services.validator.evaluate import Evaluator
from services.validator.gates import Policy
from services.validator.settings import Settings as ValidatorSettings
from shared.bus.servers import Servers
from shared.bus.topology import gateway_hints
from shared.ca.chains import ChainBook
from shared.config.addresses import Networks
from shared.log.roles import Role
from shared.log.shards import Epoch
from shared.log.streams import OPS, enroll_stream
from shared.runtime.live import Live
from shared.runtime.worker import Job, working
from tests.fakes.memory_bus import MemoryBus
from tests.support.world import (
    GATEWAY,
    ISSUER,
    ISSUING,
    OPENING,
    OPENING_ID,
    TRUSTED_ISSUERS,
    TRUSTED_OPERATORS,
    TRUSTED_VALIDATORS,
    VALIDATOR,
    Clock,
    memory_bus,
    until,
)

STREAM = enroll_stream("0")


BUS = Servers.of("nats://127.0.0.1:4222")


@dataclass
class Whole:
    """The running services and the way in."""

    bus: MemoryBus
    clock: Clock
    gateway: Gateway
    app: ASGIApp
    keeper: CrlKeeper

    async def post(self, profile: str, body: bytes) -> tuple[int, bytes]:
        """(status, body) of a PKIOperation, through the ASGI application."""
        scope: dict[str, Any] = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
            "scheme": "http", "path": f"/scep/{profile}", "root_path": "", "headers": [],
            "query_string": b"operation=PKIOperation", "client": ("192.0.2.1", 1),
            "server": ("192.0.2.2", 80),
        }  # fmt: skip
        sent: list[Any] = []
        incoming = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            return incoming.pop(0) if incoming else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        content = b"".join(m.get("body", b"") for m in sent[1:])
        return int(sent[0]["status"]), content

    def forget(self) -> None:
        """Empty the log: what a long run appends must not slow down the fake."""
        for name in (STREAM, "CERTS"):
            self.bus.streams[name].messages.clear()


@asynccontextmanager
async def running(
    ca: LocalCa,
    profiles: Sequence[Profile],
    policies: dict[str, Policy],
    access: dict[str, Access],
) -> AsyncIterator[Whole]:
    """All services, until the block ends."""
    clock = Clock()
    bus = memory_bus(clock)
    issuing = IssuerSettings(
        BUS, "", (Epoch(0, ("0",)),), ISSUING, TRUSTED_VALIDATORS, TRUSTED_ISSUERS,
        TRUSTED_OPERATORS, {}, {ISSUER: LocalConnector(ca)}, 8,
    )  # fmt: skip
    validating = ValidatorSettings(
        BUS, "", (Epoch(0, ("0",)),), VALIDATOR, TRUSTED_VALIDATORS, TRUSTED_ISSUERS,
        TRUSTED_OPERATORS, {OPENING_ID: OPENING}, None, policies, access, 8,
    )  # fmt: skip
    serving = GatewaySettings(
        BUS, "", (Epoch(0, ("0",)),), 86400, TRUSTED_VALIDATORS, TRUSTED_ISSUERS,
        TRUSTED_OPERATORS,
        OPENING.public_key(), OPENING_ID, {p.name: p for p in profiles}, None,
        Limits(256 * 1024, 100, 100, 0.0), Networks(),
    )  # fmt: skip
    await publish_chains(bus, issuing)
    chains = ChainBook.of(bus, serving.chains())
    await chains.start()
    await until(lambda: not chains.missing())
    served, issued = Live(serving), Live(issuing)
    outcomes, lookups = Outcomes(bus, served, chains), Lookups(bus, served)
    await bus.on_hint(gateway_hints(GATEWAY), outcomes.on_hint)
    enroller = Enroller(bus, served, outcomes, lookups, GATEWAY, clock)
    keeper = CrlKeeper(bus, issued, clock)
    requests = RequestConsumer(Evaluator(bus, Live(validating), chains))
    verdicts = VerdictConsumer(bus, issued, clock)
    orders = RevocationConsumer(bus, issued, keeper, Responder(bus, issued, clock, "test"))
    async with AsyncExitStack() as stack:
        jobs = [Job(STREAM, requests.handle, requests.give_up)]
        await stack.enter_async_context(working(bus, Role.VALIDATOR, jobs, 8))
        jobs = [
            Job(STREAM, verdicts.handle, verdicts.give_up),
            Job(OPS, orders.handle, orders.give_up),
        ]
        await stack.enter_async_context(working(bus, Role.ISSUER, jobs, 8))
        await keeper.look()
        gateway = Gateway(bus, served, chains, enroller, clock)
        yield Whole(bus, clock, gateway, gateway.app(), keeper)
    chains.stop()
    await asyncio.sleep(0)
