"""The configuration: one strict TOML file, overridden by environment variables, then frozen.

An unknown key, an unknown SCEPSTREAM_* variable or a value that does not parse is an error that
names it. Relative paths are relative to the file.
"""

import os
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from shared.sections import Configuration, ProfileSection, Section

PREFIX: Final = "SCEPSTREAM_"
CONFIG_VARIABLE: Final = "SCEPSTREAM_CONFIG"
_PROFILE_PREFIX: Final = "SCEPSTREAM_PROFILE_"
_SECTIONS: Final = ("bus", "log", "trust", "gateway", "validator", "issuer", "audit")


class SettingsError(Exception):
    """Raised for a configuration that cannot be used; the message says what is wrong, and where."""


def load(path: Path, environment: Mapping[str, str] | None = None) -> Configuration:
    """Read, override, check; `SettingsError` names the file and the key."""
    environment = os.environ if environment is None else environment
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not TOML: {error}") from None
    _override(table, environment)
    if "directory" in table:
        raise SettingsError(f"{path}: directory: Extra inputs are not permitted")
    try:
        configuration = Configuration.model_validate(
            table | {"directory": path.parent.resolve()}, strict=False
        )
    except ValidationError as error:
        raise SettingsError(f"{path}: {_first_error(error)}") from None
    _check_references(configuration, path)
    return configuration


def inherited_environment() -> dict[str, str]:
    """What a child process is given: everything, so that SCEPSTREAM_* variables reach it."""
    return dict(os.environ)


def _first_error(error: ValidationError) -> str:
    """Key and complaint, without the value: it may be a secret."""
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _check_references(configuration: Configuration, path: Path) -> None:
    """Names that one table uses and another must define."""
    for name, profile in configuration.profiles.items():
        _check_profile(configuration, name, profile, f"{path}: profiles.{name}")
    _check_issuers(configuration, path)
    gateway = configuration.gateway
    if (gateway.tls_cert_path is None) != (gateway.tls_key_path is None):
        raise SettingsError(f"{path}: gateway.tls_key_path: a certificate and its key, or neither")
    default = configuration.gateway.default_profile
    if default is not None and default not in configuration.profiles:
        raise SettingsError(f"{path}: gateway.default_profile: no such profile: {default}")


def _check_profile(
    configuration: Configuration, name: str, profile: ProfileSection, where: str
) -> None:
    if name == "intune":
        raise SettingsError(f"{where}: this path id is reserved")
    if profile.issuer_id not in configuration.issuers:
        raise SettingsError(f"{where}.issuer_id: no such issuer: {profile.issuer_id}")
    if profile.profile_id not in configuration.certificate_profiles:
        raise SettingsError(
            f"{where}.profile_id: no such certificate profile: {profile.profile_id}"
        )
    if not any(profile.challenge_password):
        raise SettingsError(f"{where}.challenge_password: a profile needs a verifier")
    if profile.mtls_enabled and profile.mtls_client_ca_trust_bundle_path is None:
        raise SettingsError(f"{where}.mtls_client_ca_trust_bundle_path: mtls_enabled needs it")
    if len(profile.ra_cert_path) != len(profile.ra_key_path):
        raise SettingsError(f"{where}.ra_key_path: one key for each certificate")


def _check_issuers(configuration: Configuration, path: Path) -> None:
    for name, issuer in configuration.issuers.items():
        where = f"{path}: issuers.{name}"
        if len(issuer.ca_cert_path) != len(issuer.ca_key_path):
            raise SettingsError(f"{where}.ca_key_path: one key for each certificate")
        if (issuer.next_ca_cert_path is None) != (issuer.next_ca_key_path is None):
            raise SettingsError(f"{where}.next_ca_key_path: one key for the next certificate")


def _override(table: dict[str, Any], environment: Mapping[str, str]) -> None:
    """Lay SCEPSTREAM_* variables over the file's table."""
    for variable, value in sorted(environment.items()):
        if not variable.startswith(PREFIX) or variable == CONFIG_VARIABLE:
            continue
        section, key, model = _place(table, variable)
        annotation = model.model_fields[key].annotation
        if isinstance(section, dict):  # what is no table is refused with the whole file
            section[key] = _from_text(value, annotation, variable)


def _place(table: dict[str, Any], variable: str) -> tuple[dict[str, Any], str, type[Section]]:
    """(table, key, model) that a variable sets."""
    if variable.startswith(_PROFILE_PREFIX):
        rest = variable.removeprefix(_PROFILE_PREFIX).lower()
        profiles = table.get("profiles", {})
        for name, profile in profiles.items() if isinstance(profiles, dict) else ():
            key = rest.removeprefix(name.replace("-", "_") + "_")
            if key != rest and key in ProfileSection.model_fields:
                return profile, key, ProfileSection
    for name in _SECTIONS:
        key = variable.removeprefix(f"{PREFIX}{name.upper()}_").lower()
        model = Configuration.model_fields[name].annotation
        if isinstance(model, type) and issubclass(model, Section) and key in model.model_fields:
            return table.setdefault(name, {}), key, model
    raise SettingsError(f"{variable}: no such setting")


def _from_text(value: str, annotation: Any, variable: str) -> object:
    """Booleans as operators write them, numbers as numbers; the rest stays text."""
    if annotation is bool:
        lowered = value.strip().lower()
        if lowered in ("true", "1", "yes"):
            return True
        if lowered in ("false", "0", "no"):
            return False
        raise SettingsError(f"{variable}: not true or false")
    if annotation is int:
        if not value.strip().isdigit():
            raise SettingsError(f"{variable}: not a whole number")
        return int(value)
    return value


def read_secret_file(path: Path) -> bytes:
    """The contents of a key file that nobody else may read."""
    try:
        mode = path.stat().st_mode
        if stat.S_IMODE(mode) & 0o077:
            raise SettingsError(
                f"{path}: mode is {stat.S_IMODE(mode):04o}, must be 0600 or stricter"
            )
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None


def read_file(path: Path) -> bytes:
    """The contents of a file that is no secret."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
