"""Durations on the command line, in the form of the configuration."""

from typing import Final

import typer

from shared.config.fields import parse_duration

_LONGEST: Final = 3653 * 86400
DURATION: Final = 'as "90s", "60m", "24h", "7d"'


def seconds(text: str) -> int:
    """Return a duration in whole seconds, from one second to ten years."""
    try:
        found = int(parse_duration(text))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if found < 1:
        raise typer.BadParameter("at least a second")
    if found > _LONGEST:
        raise typer.BadParameter("ten years at most")
    return found
