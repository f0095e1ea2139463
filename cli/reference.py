"""The configuration reference, generated from the classes that validate it."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, get_args

from pydantic_core import PydanticUndefined

from shared.config.fields import Section, is_duration, is_size, write_duration, write_size
from shared.config.sections import Configuration, ConnectorSection

_NAMED: Final = {"issuers": "NAME", "certificate_profiles": "NAME", "profiles": "PATH-ID"}
_ALSO: Final[Mapping[type[Section], str]] = {ConnectorSection: " of another kind"}


def render() -> str:
    """Return the reference as Markdown."""
    parts = [_INTRODUCTION]
    for name, field in Configuration.model_fields.items():
        heading = f"{name}.{_NAMED[name]}" if name in _NAMED else name
        for model in _sections(field.annotation):
            also = _ALSO.get(model, "")
            parts.append(_table(heading, model, also))
    return "\n".join(parts)


def _sections(annotation: Any) -> Iterator[type[Section]]:
    """Yield the model of a table, or those of the values of a table of tables."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
        return
    for part in get_args(annotation):
        yield from _sections(part)


def _table(heading: str, model: type[Section], also: str) -> str:
    lines = [f"## `[{heading}]`{also}", "", (model.__doc__ or "").strip(), ""]
    lines += ["| key | default | meaning |", "|---|---|---|"]
    for name, field in model.model_fields.items():
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
strict: an unknown key, an unknown `SCEPSTREAM_*` variable or a value that does not parse stops the
service with a sentence that names it, before a port opens. `scepstream config check` reads a file
as every service would.

Environment variables override the file: `SCEPSTREAM_<SECTION>_<KEY>`, for example
`SCEPSTREAM_GATEWAY_BODY_LIMIT=131072`, and for a profile `SCEPSTREAM_PROFILE_<NAME>_<KEY>`, where
`-` in the name is written `_`. Over both lies a directory of secrets that `SCEPSTREAM_SECRETS_DIR`
names (a mounted Kubernetes secret, for example): a file for each value, named like the variable it
stands for; one line end is not part of the value.

A file that holds a secret itself (a challenge password, a webhook's secret or token, the password
of a database) must be for its owner alone, mode 0600 or 0400, as key files must. Mode 0640 or 0440
is accepted where the file is root's or the service's own and its group is one of the service's
(Kubernetes' `fsGroup`). A configuration without secrets may be read by anybody, but not written.

Durations are written `"250ms"`, `"90s"`, `"60m"`, `"24h"`, `"365d"`; booleans in the environment
true, false, 1, 0, yes or no. Relative paths are relative to the file. Where a key takes several
values, one may stand alone.

Sizes are written `"256MiB"`, `"16GiB"` or `"unlimited"`.

This page is printed by `scepstream config reference`; a test keeps the two equal.
"""
