"""The --config option, and where the configuration is by default."""

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[
    Path | None,
    typer.Option(
        envvar="SCEPSTREAM_CONFIG",
        help="configuration file (default: scepstream.toml, or data/scepstream.toml)",
    ),
]


def config_path(given: Path | None) -> Path:
    """Return `given`, else ./scepstream.toml if it exists, else the default path of `up`."""
    if given is not None:
        return given
    here = Path("scepstream.toml")
    return here if here.exists() else Path("data") / here
