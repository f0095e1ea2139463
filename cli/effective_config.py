"""The effective configuration as TOML, without its secrets."""

import re
from pathlib import Path
from typing import Any, Final

import tomli_w
from pydantic.fields import FieldInfo

from shared.config.fields import Section, is_duration, is_size, write_duration, write_size
from shared.config.sections import Configuration
from shared.config.urls import MASK, masked_url

_PIN_VALUE: Final = re.compile(r"(pin-value=)[^;&]+")
_COMPUTED: Final = frozenset({"directory", "left_out"})


def effective(configuration: Configuration) -> str:
    """Return every key with its effective value, from file, environment, secret files or defaults.

    Secrets are masked; keys without a value are left out.
    """
    table = _table(configuration)
    table["audit"]["database_url"] = masked_url(table["audit"]["database_url"])
    table["bus"]["url"] = [masked_url(url) for url in table["bus"]["url"]]
    return tomli_w.dumps(table)


def _table(section: Section) -> dict[str, Any]:
    found = {}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if name not in _COMPUTED and value is not None:
            found[name] = _value(field, value)
    return found


def _value(field: FieldInfo, value: Any) -> Any:
    if not field.repr and value:
        return _masked(value)
    if is_duration(field):
        return write_duration(value)
    if is_size(field):
        return write_size(value)
    return _plain(value)


def _masked(value: Any) -> Any:
    """Mask a secret, each of a list, or each value of a table."""
    if isinstance(value, dict):
        return {key: _masked(each) for key, each in value.items()}
    return [MASK] * len(value) if isinstance(value, tuple | list) else MASK


def _plain(value: Any) -> Any:
    """Convert a value to a TOML type, and mask PINs in PKCS#11 URIs."""
    if isinstance(value, Section):
        return _table(value)
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return _PIN_VALUE.sub(rf"\1{MASK}", str(value)) if isinstance(value, Path) else value
