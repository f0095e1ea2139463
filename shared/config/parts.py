"""The part of a configuration that one service needs, without the others' secrets. Pure.

A secret that a service does not need is removed, or replaced by a placeholder if its presence
matters (a profile with a password has a verifier). So a file may hold the secrets of all services,
or only those of the service that reads it.
"""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from shared.log.roles import SERVICES, Role

PLACEHOLDER: Final = "not-for-this-service"
_SIGNING: Final = {"nkey_path": PLACEHOLDER, "signing_key_path": PLACEHOLDER}
_ABSENT: Final[dict[Role, dict[str, Any]]] = {
    Role.GATEWAY: {"nkey_path": PLACEHOLDER},
    Role.VALIDATOR: {**_SIGNING, "opening_key_path": [PLACEHOLDER]},
    Role.ISSUER: _SIGNING,
    Role.AUDIT: {**_SIGNING, "database_url": f"sqlite:///{PLACEHOLDER}"},
}
_VALIDATORS_ALONE: Final = ("webhook_secret", "webhook_bearer_token")
_BOOLEAN: Final = TypeAdapter(bool)


def part_of(table: Mapping[str, Any], role: Role) -> dict[str, Any]:
    """Return the table as a service of this role may see it; malformed values are left alone."""
    part = dict(table)
    issuers = part.get("issuers")
    if role is not Role.ISSUER and isinstance(issuers, dict):
        part["issuers"] = {name: _without_options(table) for name, table in issuers.items()}
    for other in SERVICES:
        if other is role:
            continue
        section = part.get(other, {})
        if isinstance(section, dict):
            part[other] = section | {
                key: value
                for key, value in _ABSENT[other].items()
                if key not in section or key == "database_url"
            }
    if role is not Role.VALIDATOR:
        part.pop("intune", None)
    profiles = part.get("profiles")
    if role is not Role.VALIDATOR and isinstance(profiles, dict):
        part["profiles"] = {
            name: _profile(profile, role) if isinstance(profile, dict) else profile
            for name, profile in profiles.items()
        }
    return part


def _without_options(issuer: object) -> object:
    """Remove a connector's options: only issuers need to reach a CA."""
    if not isinstance(issuer, dict):
        return issuer
    return {key: value for key, value in issuer.items() if key != "options"}


def _profile(profile: Mapping[str, Any], role: Role) -> dict[str, Any]:
    """Remove the secrets that verify challenges, which only validators do.

    A gateway keeps the passwords if it decrypts requests with them (`password_recipients`).
    """
    found = {k: v for k, v in profile.items() if k not in _VALIDATORS_ALONE}
    opens = role is Role.GATEWAY and _is_true(found.get("password_recipients"))
    has_other = (
        _is_true(found.get("intune_enabled"))
        or _is_true(found.get("one_time_enabled"))
        or found.get("webhook_url") is not None
        or found.get("intune_connection") is not None
        or bool(found.get("verifier"))
    )
    if isinstance(found.get("verifier"), dict):
        found["verifier"] = {kind: {} for kind in found["verifier"]}
    if not opens and (found.get("challenge_password") or not has_other):
        found["challenge_password"] = [PLACEHOLDER]
    return found


def _is_true(value: object) -> bool:
    """Parse a boolean as validation does: 1, "true" and "yes" are true as well.

    Otherwise a gateway could open requests with the placeholder, which is public.
    """
    try:
        return _BOOLEAN.validate_python(value, strict=False)
    except ValidationError:
        return False
