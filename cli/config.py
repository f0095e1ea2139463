"""`scepstream config`: check a configuration, print its reference."""

from pathlib import Path
from typing import Annotated, Any, Final, get_args

import typer
from pydantic_core import PydanticUndefined

from services.audit.settings import read_settings as read_audit
from services.gateway.settings import read_settings as read_gateway
from services.issuer.settings import read_settings as read_issuer
from services.validator.settings import read_settings as read_validator
from shared.fields import Section
from shared.process import now
from shared.sections import Configuration
from shared.settings import SettingsError, load

app = typer.Typer(no_args_is_help=True, help="The configuration.")
_NAMED: Final = {"issuers": "NAME", "certificate_profiles": "NAME", "profiles": "PATH-ID"}
_SECONDS: Final = {86400.0: "d", 3600.0: "h", 60.0: "m", 1.0: "s"}


@app.command()
def check(
    config: Annotated[Path, typer.Option(envvar="SCEPSTREAM_CONFIG")] = Path("scepstream.toml"),
) -> None:
    """Read it as every service would; exit 1 and one sentence where one would not start."""
    try:
        configuration = load(config)
        read_gateway(configuration, now())
        read_validator(configuration, now())
        read_issuer(configuration)
        read_audit(configuration)
    except SettingsError as error:
        print(error)
        raise typer.Exit(1) from None
    print(f"{config}: good; profiles {', '.join(sorted(configuration.profiles))}")


@app.command()
def reference() -> None:
    """Print every key, made from the classes that read them (docs/configuration.md)."""
    print(render(), end="")


def render() -> str:
    """The reference as Markdown."""
    parts = [_INTRODUCTION]
    for name, field in Configuration.model_fields.items():
        model = _section(field.annotation)
        if model is not None:
            heading = f"{name}.{_NAMED[name]}" if name in _NAMED else name
            parts.append(_table(heading, model))
    return "\n".join(parts)


def _section(annotation: Any) -> type[Section] | None:
    """The model of a table, or of the values of a table of tables."""
    candidates = [annotation, *get_args(annotation)]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, Section)), None)


def _table(heading: str, model: type[Section]) -> str:
    lines = [f"## `[{heading}]`", "", (model.__doc__ or "").strip(), ""]
    lines += ["| key | default | meaning |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        lines.append(f"| `{name}` | {_default(field)} | {field.description or ''} |")
    return "\n".join([*lines, ""])


def _default(field: Any) -> str:
    """As it would be written in TOML."""
    value = field.default
    if field.default_factory is dict:
        return "none"
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float) and any("duration" in repr(m) for m in field.metadata):
        return f"`{_duration(value)}`"
    if isinstance(value, tuple):
        inner = ", ".join(f'"{v}"' if isinstance(v, str) else "one shard, `0`" for v in value)
        return f"`[{inner}]`" if value and isinstance(value[0], str) else inner or "`[]`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def _duration(seconds: float) -> str:
    for unit, letter in _SECONDS.items():
        if seconds >= unit and seconds % unit == 0:
            return f'"{int(seconds / unit)}{letter}"'
    return f'"{int(seconds * 1000)}ms"'


_INTRODUCTION: Final = """\
# Configuration

One TOML file, named by `SCEPSTREAM_CONFIG` or `--config`, by default `scepstream.toml`. It is
strict: an unknown key, an unknown `SCEPSTREAM_*` variable or a value that does not parse stops the
service with a sentence that names it, before a port opens. `scepstream config check` reads a file
as every service would.

Environment variables override the file: `SCEPSTREAM_<SECTION>_<KEY>`, for example
`SCEPSTREAM_GATEWAY_BODY_LIMIT=131072`, and for a profile `SCEPSTREAM_PROFILE_<NAME>_<KEY>`, where
`-` in the name is written `_`. Over both lies a directory of secrets, named by
`SCEPSTREAM_SECRETS_DIR` (a mounted Kubernetes secret, for example): a file for each value, named like
the variable it stands for; one line end is not part of the value. Durations are written `"250ms"`, `"90s"`, `"60m"`, `"24h"`,
`"365d"`; booleans in the environment true, false, 1, 0, yes or no. Relative paths are relative
to the file. Where a key takes several values, one may stand alone.

This page is printed by `scepstream config reference`; a test keeps the two equal.
"""
