"""Where a command finds the configuration when it is not told."""

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
    """As asked, else here, else where `up` keeps it by default."""
    if given is not None:
        return given
    here = Path("scepstream.toml")
    return here if here.exists() else Path("data") / here
