"""What the integration tests share: the profiles of the running system."""

import pytest

from tests.integration.requests_ import Endpoint
from tests.system import System


@pytest.fixture(scope="session")
def demo(system: System) -> Endpoint:
    """The profile that follows today's rules."""
    return Endpoint.of(system, "demo")


@pytest.fixture(scope="session")
def legacy(system: System) -> Endpoint:
    """The profile that also takes SHA-1 and DES."""
    return Endpoint.of(system, "legacy")
