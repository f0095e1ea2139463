"""The configuration: one strict TOML file, overridden by environment variables, then frozen.

An unknown key, an unknown SCEPSTREAM_* variable or a value that does not parse is an error that
names it. Relative paths are relative to the file.
"""

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from shared.shards import Epoch

PREFIX: Final = "SCEPSTREAM_"
CONFIG_VARIABLE: Final = "SCEPSTREAM_CONFIG"
PATH_ID: Final = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_PROFILE_PREFIX: Final = "SCEPSTREAM_PROFILE_"
_SECTIONS: Final = ("bus", "log", "trust", "gateway", "validator", "issuer", "audit")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class SettingsError(Exception):
    """Raised for a configuration that cannot be used; the message says what is wrong, and where."""


def _duration(value: object) -> object:
    """Seconds of "250ms", "90s", "60m", "24h", "365d"."""
    if not isinstance(value, str):
        raise ValueError('write a duration as a string: "90s", "60m", "24h"')  # noqa: TRY004 - pydantic collects ValueErrors
    found = re.fullmatch(r"(\d+)(ms|s|m|h|d)", value)
    if found is None:
        raise ValueError('not a duration: write "90s", "60m", "24h"')
    return int(found[1]) * _UNITS[found[2]]


def _list(value: object) -> object:
    """One value is a list of one."""
    return [value] if isinstance(value, str) else value


Duration = Annotated[float, BeforeValidator(_duration)]
Paths = Annotated[tuple[Path, ...], BeforeValidator(_list), Field(min_length=1)]
Secrets = Annotated[tuple[str, ...], BeforeValidator(_list)]
PathId = Annotated[str, Field(pattern=f"^{PATH_ID}$", max_length=63)]


class Section(BaseModel):
    """What every part of the configuration is: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class BusSection(Section):
    """Where nats-server is."""

    url: str


class EpochSection(Section):
    """A shard map and when (Unix seconds) it takes effect."""

    effective_at: float = 0.0
    shards: tuple[str, ...] = ("0",)
    pinned: dict[str, str] = {}

    def epoch(self) -> Epoch:
        """The same, as the shard map's functions take it."""
        return Epoch(self.effective_at, self.shards, self.pinned)


class LogSection(Section):
    """The event log: its shard maps, its replicas."""

    epochs: tuple[EpochSection, ...] = (EpochSection(),)
    replicas: int = Field(default=1, ge=1, le=5)
    sync_interval: Annotated[str, Field(pattern=r"^(always|\d+(ms|s))$")] = "100ms"
    retry_window: Duration = 86400.0


class TrustSection(Section):
    """Public keys that services believe: never taken from the bus."""

    validator_keys: Paths
    issuer_keys: Paths
    sealing_key: Path


class GatewaySection(Section):
    """The HTTP edge."""

    nkey_path: Path
    default_profile: str | None = None
    body_limit: int = Field(default=256 * 1024, ge=4096, le=512 * 1024)
    max_in_flight: int = Field(default=2048, ge=1)
    max_in_flight_per_source: int = Field(default=1024, ge=1)
    failure_floor: Duration = 0.05
    trusted_proxies: tuple[str, ...] = ()


class ValidatorSection(Section):
    """The decider."""

    nkey_path: Path
    signing_key_path: Path
    opening_key_path: Paths
    verdict_ttl: Duration = 86400.0
    concurrency: int = Field(default=64, ge=1, le=1024)


class IssuerSection(Section):
    """The signer."""

    nkey_path: Path
    signing_key_path: Path
    concurrency: int = Field(default=64, ge=1, le=1024)


class AuditSection(Section):
    """The keeper of the read model."""

    nkey_path: Path
    database_url: str
    batch: int = Field(default=256, ge=1, le=4096)


class LocalIssuerSection(Section):
    """A CA whose key is a file, and the ceilings that no verdict exceeds."""

    kind: Literal["local"] = "local"
    ca_cert_path: Path
    ca_key_path: Path
    chain_path: Path | None = None
    secret_path: Path
    max_ttl: Duration = 2 * 365 * 86400.0
    extended_key_usages: tuple[str, ...] = ("clientAuth", "serverAuth", "emailProtection")


class CertificateProfileSection(Section):
    """What certificates of a kind look like."""

    key_types: tuple[str, ...] = ("rsa:2048", "rsa:3072", "rsa:4096")
    key_usages: tuple[str, ...] = ("digitalSignature", "keyEncipherment")
    extended_key_usages: tuple[str, ...] = ("clientAuth",)
    sans: tuple[str, ...] = ("dns", "rfc822", "uri", "ip", "upn")
    max_ttl: Duration = 365 * 86400.0
    backdate: Duration = 600.0


class ProfileSection(Section):
    """One SCEP endpoint; keys are named as operators know them."""

    issuer_id: str
    ca_spki_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    profile_id: str
    challenge_password: Secrets = ()
    ra_cert_path: Paths
    ra_key_path: Paths
    legacy: bool = False
    include_chain: bool = False
    reply_budget: Duration = 10.0


class Configuration(Section):
    """The whole file."""

    version: Literal[1] = 1
    bus: BusSection
    log: LogSection = LogSection()
    trust: TrustSection
    gateway: GatewaySection
    validator: ValidatorSection
    issuer: IssuerSection
    audit: AuditSection
    issuers: dict[PathId, LocalIssuerSection]
    certificate_profiles: dict[PathId, CertificateProfileSection]
    profiles: dict[PathId, ProfileSection] = Field(min_length=1)
    directory: Path = Path()

    def path(self, path: Path) -> Path:
        """A configured path, relative to the file it stands in."""
        return self.directory / path


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
        where = f"{path}: profiles.{name}"
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
        if len(profile.ra_cert_path) != len(profile.ra_key_path):
            raise SettingsError(f"{where}.ra_key_path: one key for each certificate")
    default = configuration.gateway.default_profile
    if default is not None and default not in configuration.profiles:
        raise SettingsError(f"{path}: gateway.default_profile: no such profile: {default}")


def _override(table: dict[str, Any], environment: Mapping[str, str]) -> None:
    """Lay SCEPSTREAM_* variables over the file's table."""
    for variable, value in sorted(environment.items()):
        if not variable.startswith(PREFIX) or variable == CONFIG_VARIABLE:
            continue
        section, key, model = _place(table, variable)
        annotation = model.model_fields[key].annotation
        section[key] = _from_text(value, annotation, variable)


def _place(table: dict[str, Any], variable: str) -> tuple[dict[str, Any], str, type[Section]]:
    """(table, key, model) that a variable sets."""
    if variable.startswith(_PROFILE_PREFIX):
        rest = variable.removeprefix(_PROFILE_PREFIX).lower()
        for name, profile in table.get("profiles", {}).items():
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
