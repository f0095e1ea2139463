"""The environment variables that `up` passes to each of its children."""

from collections.abc import Mapping
from typing import Final

from shared.config.load import PREFIX, SECRET_KEYS
from shared.config.sections import Configuration

_DATABASE: Final = "SCEPSTREAM_AUDIT_DATABASE_URL"
# Replaces a secret that a role does not need: every role reads the whole configuration, in which a
# missing key is an error.
WITHHELD: Final = "withheld-from-this-service"
_NO_DATABASE: Final = "sqlite:///withheld-from-this-service"


def environment_of(
    role: str, configuration: Configuration, given: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables for one role, without the secrets that it does not need."""
    # Gateways decrypt requests with the passwords of these profiles.
    recipients = frozenset(
        name.upper().replace("-", "_")
        for name, profile in configuration.profiles.items()
        if profile.password_recipients
    )
    if role == "nats":
        return {name: value for name, value in given.items() if not name.startswith(PREFIX)}
    return {name: _for(role, name, value, recipients) for name, value in given.items()}


def _for(role: str, name: str, value: str, recipients: frozenset[str]) -> str:
    if name == _DATABASE:
        return value if role == "audit" else _NO_DATABASE
    for key in SECRET_KEYS:
        profile = name.removeprefix(f"{PREFIX}PROFILE_").removesuffix(f"_{key.upper()}")
        if not name.startswith(f"{PREFIX}PROFILE_") or not name.endswith(f"_{key.upper()}"):
            continue
        opens = role == "gateway" and key == "challenge_password" and profile in recipients
        return value if role == "validator" or opens or not value else WITHHELD
    return value
