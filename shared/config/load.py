"""Load the configuration: one TOML file, overridden by the environment, then by secret files.

An unknown key, an unknown SCEPSTREAM_* variable or secret file, or a value that does not parse is
an error that names it. Relative paths are relative to the file.
"""

import codecs
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Final, TypeVar, get_args

from pydantic import ValidationError

from shared.config.consistency import problems, profile_problems
from shared.config.fields import Section
from shared.config.parts import part_of
from shared.config.profiles import ProfileSection
from shared.config.sections import Configuration
from shared.config.urls import holds_secret
from shared.log.roles import Role

PREFIX: Final = "SCEPSTREAM_"
CONFIG_VARIABLE: Final = "SCEPSTREAM_CONFIG"
SECRETS_VARIABLE: Final = "SCEPSTREAM_SECRETS_DIR"
_PROFILE_PREFIX: Final = "SCEPSTREAM_PROFILE_"
# Profile keys whose value is a secret, not the path of one.
SECRET_KEYS: Final = ("challenge_password", "webhook_secret", "webhook_bearer_token")
# Plainer than pydantic's own.
_MESSAGES: Final = {"extra_forbidden": "no such setting", "missing": "required"}
# Keys of URLs that may carry credentials.
_URLS: Final = (("audit", "database_url"), ("bus", "url"))
_T = TypeVar("_T")
_TAG: Final = 2  # pydantic puts the union's tag after an issuer's name in an error's location
_SECTIONS: Final = {
    name: field.annotation
    for name, field in Configuration.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}


class SettingsError(Exception):
    """Raised for an unusable configuration; the message says what is wrong, and where."""


def load(
    path: Path, environment: Mapping[str, str] | None = None, role: Role | None = None
) -> Configuration:
    """Load and check the configuration; `SettingsError` names the file and the key.

    With a `role`, load that service's part: the secrets of others are neither needed nor kept.
    """
    table = effective_table(path, environment)
    return parse(table if role is None else part_of(table, role), path)


def effective_table(path: Path, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the file's table, overridden by environment variables, then by secret files."""
    environment = os.environ if environment is None else environment
    table = read_table(path)
    _check_mode(path, table)
    _override(table, environment)
    if directory := environment.get(SECRETS_VARIABLE):
        _override(table, _secret_files(Path(directory)))
    return table


def parse(table: Mapping[str, Any], path: Path) -> Configuration:
    """Validate a table that was read from `path`; `SettingsError` names the key."""
    for computed in ("directory", "left_out"):
        if computed in table:
            raise SettingsError(f"{path}: {computed}: no such setting")
    try:
        configuration = Configuration.model_validate(
            {**table, "directory": path.parent.resolve()}, strict=False
        )
    except ValidationError as error:
        raise SettingsError(f"{path}: {_first_error(error)}") from None
    return _checked(configuration, path)


def read_table(path: Path) -> dict[str, Any]:
    """Return the TOML file's table, without overrides; a leading byte order mark is ignored."""
    try:
        return tomllib.loads(path.read_bytes().removeprefix(codecs.BOM_UTF8).decode("utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: not TOML: its text is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: not TOML: {error}") from None


def _check_mode(path: Path, table: Mapping[str, Any]) -> None:
    """Reject a file that others may write to, or that holds secrets which others may read.

    Whoever can write to the file decides who may enroll.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    if key := next(_secrets(table), None):
        if problem := exposed(status):
            raise SettingsError(f"{path}: contains {key}, but its {problem}")
    elif stat.S_IMODE(status.st_mode) & stat.S_IWOTH:
        mode = stat.S_IMODE(status.st_mode)
        raise SettingsError(f"{path}: mode is {mode:04o}, so others may write to it")


def _secrets(table: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys of the file whose value is a secret."""
    for name, profile in _tables(table.get("profiles")):
        for key in (*SECRET_KEYS, "verifier"):
            if _holds_something(profile.get(key)):
                yield f"profiles.{name}.{key}"
    for name, issuer in _tables(table.get("issuers")):
        if _holds_something(issuer.get("options")):
            yield f"issuers.{name}.options"
    for section, key in _URLS:
        found = table.get(section)
        value = found.get(key) if isinstance(found, dict) else None
        urls = value if isinstance(value, list) else [value]
        if any(isinstance(url, str) and holds_secret(url) for url in urls):
            yield f"the password of {section}.{key}"


def _tables(value: object) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the tables in a table; validation reports other values later."""
    for name, each in value.items() if isinstance(value, dict) else ():
        if isinstance(each, dict):
            yield name, each


def _holds_something(value: object) -> bool:
    """Return whether a value of any type holds a secret; a list of empty strings does not."""
    if isinstance(value, dict):
        return any(map(_holds_something, value.values()))
    return any(value) if isinstance(value, list) else bool(value)


def inherited_environment() -> dict[str, str]:
    """Return a copy of this process's environment."""
    return dict(os.environ)


def _first_error(error: ValidationError) -> str:
    """Return the key and message of the first error, without the value: it may be a secret."""
    first = error.errors(include_input=False, include_url=False)[0]
    place = list(map(str, first["loc"]))
    if place[0] == "issuers":
        del place[_TAG : _TAG + 1]
    message = _MESSAGES.get(first["type"], first["msg"])
    return f"{'.'.join(place)}: {message}"


def _checked(configuration: Configuration, path: Path) -> Configuration:
    """Reject inconsistent settings; leave inconsistent profiles out if `start` allows it."""
    for problem in problems(configuration):
        raise SettingsError(f"{path}: {problem}")
    wrong = {
        name: f"{path}: profiles.{name}{problem}"
        for name in configuration.profiles
        for problem in list(profile_problems(configuration, name))[:1]
    }
    return without(configuration, wrong)


def without(configuration: Configuration, wrong: Mapping[str, str]) -> Configuration:
    """Return the configuration without these profiles (name to problem).

    `SettingsError` with the first problem if `start` is "all" or no profile is left.
    """
    if not wrong:
        return configuration
    left = {n: p for n, p in configuration.profiles.items() if n not in wrong}
    if configuration.start == "all" or not left:
        raise SettingsError(next(iter(wrong.values())))
    return configuration.model_copy(
        update={"profiles": left, "left_out": dict(configuration.left_out) | dict(wrong)}
    )


def read_profiles(
    configuration: Configuration, read: Callable[[str, ProfileSection], _T]
) -> tuple[dict[str, _T], Mapping[str, str]]:
    """Return (`read`'s result for each profile, reasons for those left out); see `without`."""
    found: dict[str, _T] = {}
    wrong: dict[str, str] = {}
    for name, profile in configuration.profiles.items():
        try:
            found[name] = read(name, profile)
        except SettingsError as error:
            wrong[name] = f"profile {name}: {error}"
    return found, without(configuration, wrong).left_out


def _override(table: dict[str, Any], environment: Mapping[str, str]) -> None:
    """Override keys of the table with SCEPSTREAM_* variables."""
    for variable, value in sorted(environment.items()):
        if not variable.startswith(PREFIX) or variable in (CONFIG_VARIABLE, SECRETS_VARIABLE):
            continue
        section, key, model = _place(table, variable)
        annotation = model.model_fields[key].annotation
        if isinstance(section, dict):  # validation rejects a section that is not a table
            section[key] = _from_text(value, annotation, variable)


def _secret_files(directory: Path) -> dict[str, str]:
    """Return variable to value: one file each, named like the variable.

    Names that begin with a dot belong to the mount (Kubernetes) and are skipped. One trailing line
    end is not part of the value.
    """
    found = {}
    try:
        files = sorted(directory.iterdir())
    except OSError as error:
        raise SettingsError(f"{directory}: {error.strerror}") from None
    for file in files:
        if file.name.startswith("."):
            continue
        variable = file.name.upper()
        if not variable.startswith(PREFIX) or variable in (CONFIG_VARIABLE, SECRETS_VARIABLE):
            raise SettingsError(f"{file}: no such setting")
        if variable in found:
            raise SettingsError(f"{file}: duplicate setting")
        try:
            found[variable] = read_file(file).decode("utf-8").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise SettingsError(f"{file}: not UTF-8 text") from None
    return found


def _place(table: dict[str, Any], variable: str) -> tuple[dict[str, Any], str, type[Section]]:
    """Return the (table, key, model) that a variable sets."""
    if variable.startswith(_PROFILE_PREFIX):
        rest = variable.removeprefix(_PROFILE_PREFIX).lower()
        profiles = table.get("profiles", {})
        found = [
            (profile, key)
            for name, profile in (profiles.items() if isinstance(profiles, dict) else ())
            if (key := rest.removeprefix(name.replace("-", "_") + "_")) != rest
            and key in ProfileSection.model_fields
        ]
        if len(found) > 1:
            raise SettingsError(f"{variable}: ambiguous: it names a key in more than one profile")
        if found:
            return *found[0], ProfileSection
    for name, model in _SECTIONS.items():
        key = variable.removeprefix(f"{PREFIX}{name.upper()}_").lower()
        if key in model.model_fields:
            return table.setdefault(name, {}), key, model
    raise SettingsError(f"{variable}: no such setting")


def _from_text(value: str, annotation: Any, variable: str) -> object:
    """Parse booleans (true, 1, yes, ...) and whole numbers; leave other values as text."""
    kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
    if len(kinds) == 1 and NoneType in get_args(annotation):
        annotation = kinds[0]
    if annotation is bool:
        lowered = value.strip().lower()
        if lowered in ("true", "1", "yes"):
            return True
        if lowered in ("false", "0", "no"):
            return False
        raise SettingsError(f"{variable}: not true or false")
    if annotation is int:
        if not re.fullmatch("[0-9]{1,18}", value.strip()):
            raise SettingsError(f"{variable}: not a whole number")
        return int(value)
    return value


def exposed(status: os.stat_result) -> str:
    """Return what is wrong with the mode of a file that holds secrets, "" if nothing is.

    Only the owner may access it. A group of this process may also read it if root or this user
    owns the file: that is how Kubernetes mounts secrets (fsGroup).
    """
    mode = stat.S_IMODE(status.st_mode)
    if not mode & 0o077:
        return ""
    problem = f"mode is {mode:04o}, must be 0600 or stricter"
    if mode & 0o037:
        return problem
    if status.st_uid not in (0, os.geteuid()):
        return f"{problem} (0640 is accepted if this user or root owns the file)"
    if status.st_gid not in {os.getegid(), *os.getgroups()}:
        return (
            f"{problem} (0640 is accepted if this process is in the file's group {status.st_gid})"
        )
    return ""


def read_secret_file(path: Path) -> bytes:
    """Read a file that holds a secret; reject one that others may read."""
    try:
        if problem := exposed(path.stat()):
            raise SettingsError(f"{path}: {problem}")
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None


def read_file(path: Path) -> bytes:
    """Read a file that holds no secret."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
