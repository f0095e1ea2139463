"""Publishes each CA's chain to the bucket where gateways and validators look for it."""

import asyncio

from services.issuer.settings import Settings
from shared.bus.core import Bus, BusUnavailableError
from shared.log.envelope import encode
from shared.log.subjects import chain_subject

_RETRY_SECONDS = 0.5


async def publish_chains(bus: Bus, settings: Settings) -> None:
    """Publish every chain and send a hint; retry until the bus has taken them all."""
    for name, connector in settings.issuers.items():
        message = encode(connector.ca_chain())
        while True:
            try:
                await bus.put(chain_subject(name), message)
                await bus.hint(f"chain.{name}", message)
                break
            except BusUnavailableError:
                await asyncio.sleep(_RETRY_SECONDS)
