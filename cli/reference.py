"""The configuration reference, generated from the classes that validate it."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, get_args

from pydantic_core import PydanticUndefined

from shared.config.fields import Section, is_duration, is_size, write_duration, write_size
from shared.config.sections import Configuration, ConnectorSection

_NAMED: Final = {
    "issuers": "NAME",
    "intune": "NAME",
    "certificate_profiles": "NAME",
    "profiles": "PATH-ID",
}
_ALSO: Final[Mapping[type[Section], str]] = {ConnectorSection: " with another `kind`"}


def render() -> str:
    """Return the reference as Markdown."""
    parts = [_INTRODUCTION, _top_level()]
    for name, field in Configuration.model_fields.items():
        heading = f"{name}.{_NAMED[name]}" if name in _NAMED else name
        for model in _sections(field.annotation):
            parts.append(_section(f"`[{heading}]`{_ALSO.get(model, '')}", model))
            parts += _lists_of_tables(heading, model)
    return "\n".join(parts)


def _top_level() -> str:
    """Return the keys outside all tables; a field without a description is not read from files."""
    keys = {n: f for n, f in Configuration.model_fields.items() if f.description}
    return _table("Top-level keys", "Set them above the first table.", keys)


def _lists_of_tables(heading: str, model: type[Section]) -> Iterator[str]:
    """Yield the sections of a table's keys that are themselves lists of tables."""
    for name, field in model.model_fields.items():
        for inner in _sections(field.annotation):
            yield _section(f"`[[{heading}.{name}]]`", inner)


def _sections(annotation: Any) -> Iterator[type[Section]]:
    """Yield the model of a table, or those of the values of a table of tables."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
        return
    for part in get_args(annotation):
        yield from _sections(part)


def _section(heading: str, model: type[Section]) -> str:
    return _table(heading, (model.__doc__ or "").strip(), model.model_fields)


def _table(heading: str, text: str, keys: Mapping[str, Any]) -> str:
    lines = [f"## {heading}", "", text, "", "| key | default | meaning |", "|---|---|---|"]
    for name, field in keys.items():
        meaning = " ".join((field.description or "").split())
        lines.append(f"| `{name}` | {_default(field)} | {meaning} |")
    return "\n".join([*lines, ""])


def _default(field: Any) -> str:
    """Return a key's default as written in TOML, or whether it is required."""
    value = field.default
    if value is None or field.default_factory is dict:
        return "none"
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if is_duration(field) or is_size(field):
        return f'`"{write_duration(value) if is_duration(field) else write_size(value)}"`'
    if isinstance(value, tuple):
        inner = ", ".join(f'"{v}"' if isinstance(v, str) else "one shard, `0`" for v in value)
        return f"`[{inner}]`" if value and isinstance(value[0], str) else inner or "`[]`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


_INTRODUCTION: Final = """\
# Configuration

One TOML file, named by `SCEPSTREAM_CONFIG` or `--config`, by default `scepstream.toml`. It is
strict: for an unknown key, an unknown `SCEPSTREAM_*` variable or a value that does not parse, the
service prints an error that names it and exits before it opens a port. `scepstream config check`
checks a file as every service would.

Environment variables override the file: `SCEPSTREAM_<SECTION>_<KEY>`, for example
`SCEPSTREAM_GATEWAY_BODY_LIMIT=131072`, and for a profile `SCEPSTREAM_PROFILE_<NAME>_<KEY>`, where
`-` in the name is written `_`. Files in the directory `SCEPSTREAM_SECRETS_DIR` (a mounted
Kubernetes secret, for example) override both: each file holds one value and has the name of its
variable. A line end at the end of a file is not part of the value.

A configuration file that contains a secret (a challenge password, a webhook's secret or token, the
password of a database) must be accessible only to its owner, mode 0600 or 0400, like key files.
Mode 0640 or 0440 is accepted if the file is owned by root or by the service's user and its group is
one of the service's (Kubernetes' `fsGroup`). A configuration without secrets may be readable by
everyone, but not writable.

Durations are written `"250ms"`, `"90s"`, `"60m"`, `"24h"`, `"365d"`; sizes `"256MiB"`, `"16GiB"` or
`"unlimited"`; booleans in the environment true, false, 1, 0, yes or no. Relative paths are relative
to the file. A key that takes a list also accepts a single value.

In the tables below, square brackets in the third column say what applies if the key is not set.

This page is printed by `scepstream config reference`; a test fails if they differ.
"""
