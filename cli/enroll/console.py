"""Output and exit statuses of the client."""

from typing import Final

import typer

from cli.output import heading
from cli.output import say as complain

ERROR: Final = 1
REFUSED: Final = 3
PENDING: Final = 4
UNREACHABLE: Final = 5


def say(label: str, text: str) -> None:
    """Print one line of progress."""
    heading(f"{label:>8}", f"  {text}")


def fail(code: int, text: str) -> typer.Exit:
    """Print one line to standard error; return the exit to raise."""
    complain(f"scepstream enroll: {text}", err=True)
    return typer.Exit(code)
