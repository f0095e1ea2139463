"""What the client says, and how it ends."""

from typing import Final

import typer

from cli.output import heading
from cli.output import say as complain

ERROR: Final = 1
REFUSED: Final = 3
PENDING: Final = 4
UNREACHABLE: Final = 5


def say(label: str, text: str) -> None:
    """One line of what happens."""
    heading(f"{label:>8}", f"  {text}")


def fail(code: int, text: str) -> typer.Exit:
    """One sentence, and an exit status."""
    complain(f"scepstream enroll: {text}", err=True)
    return typer.Exit(code)
