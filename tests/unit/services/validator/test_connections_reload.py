"""Connections over a reload of the configuration."""

from types import SimpleNamespace
from typing import cast

from services.validator.connections import Clients, Connections
from services.validator.evaluate import Evaluator
from services.validator.microsoft.calls import Client
from services.validator.microsoft.connection import TenantConnection
from shared.observe.metrics import MICROSOFT_BREAKER


def opened(settings: TenantConnection) -> Client:
    return cast("Client", settings)


async def test_a_breaker_that_was_open_before_a_reload_is_not_exported_for_ever() -> None:
    """The new client's breaker is closed, and nobody may call over a connection for days."""
    tenant = cast("TenantConnection", SimpleNamespace(name="contoso", revocations=False))
    connections = Connections(
        cast("Evaluator", None), Clients(), opened, "validator-0", lambda: 0.0
    )
    MICROSOFT_BREAKER.labels("contoso", "Graph").set(1)
    connections.apply({"contoso": tenant})

    (metric,) = MICROSOFT_BREAKER.collect()
    assert metric.samples == []
