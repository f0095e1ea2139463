"""Durations on the command line, in the form of the configuration."""

from typing import Final

import typer

from shared.config.fields import parse_duration

_LONGEST: Final = 3653 * 86400
DURATION: Final = 'such as "90s", "60m", "24h" or "7d"'


def seconds(text: str) -> int:
    """Return a duration in whole seconds, from one second to ten years."""
    try:
        found = int(parse_duration(text))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if found < 1:
        raise typer.BadParameter("must be at least 1 second")
    if found > _LONGEST:
        raise typer.BadParameter("must be at most 10 years")
    return found
