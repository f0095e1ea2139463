"""Keys and certificates that every test of the codec shares: made once for each process."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.messages import Identity, identity


@pytest.fixture(scope="session")
def device() -> Identity:
    """A client with a self-signed certificate."""
    return identity("device", 0x7001)


@pytest.fixture(scope="session")
def ra() -> Identity:
    """The RA whose certificate requests are encrypted to."""
    return identity("RA", 0x11)


@pytest.fixture(scope="session")
def old_ra() -> Identity:
    """Another RA: the previous one, or a stranger's."""
    return identity("old RA", 0x12)


@pytest.fixture(scope="session")
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())
