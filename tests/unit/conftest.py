"""Keys that many unit tests share: made once for each process."""

import os

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import settings

from tests.support.messages import Identity, identity

# A busy machine is no failure. `make unit` tries fewer examples.
settings.register_profile(
    "unit", deadline=None, max_examples=int(os.environ.get("TEST_EXAMPLES", "100"))
)
settings.load_profile("unit")


@pytest.fixture(scope="session")
def device() -> Identity:
    """A client with a self-signed certificate."""
    return identity("device", 0x7001)


@pytest.fixture(scope="session")
def ra() -> Identity:
    """The RA whose certificate requests are encrypted to."""
    return identity("RA", 0x11)


@pytest.fixture(scope="session")
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="session")
def rsa_key(ra: Identity) -> rsa.RSAPrivateKey:
    """An RSA key where it does not matter which."""
    return ra.key
