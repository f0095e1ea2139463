"""Tokens for tests of running systems, signed by the connector that `up` makes."""

import secrets
import time
from pathlib import Path
from typing import Any

from cli.connector.signing import Connector
from tests.support.requests import Device
from tests.support.signed_challenges import PrivateKey, mint
from tests.support.system import System


def connector_key(system: System) -> PrivateKey:
    return Connector.read(Path(system.run["profiles"]["corp"]["connector"])).key


def claims(device: Device, **changes: Any) -> dict[str, Any]:
    """What a connector says of the device's CSR; None takes a claim away."""
    now = int(time.time())
    found = {
        "iss": "scepstream connector",
        "sub": device.name,
        "iat": now,
        "exp": now + 3600,
        "nonce": secrets.token_hex(16),
        "device_name": device.name,
    }
    return {name: value for name, value in (found | changes).items() if value is not None}


def token(system: System, device: Device, **changes: Any) -> str:
    """A token by the trusted connector."""
    return mint(claims(device, **changes), connector_key(system))
