"""What the client says, and how it ends."""

from typing import Final

import typer
from rich.console import Console

ERROR: Final = 1
REFUSED: Final = 3
PENDING: Final = 4
UNREACHABLE: Final = 5
_console = Console(highlight=False)


def say(label: str, text: str) -> None:
    """One line of what happens."""
    _console.print(f"[bold]{label:>8}[/bold]  ", end="")
    _console.print(text, markup=False, soft_wrap=True)


def fail(code: int, text: str) -> typer.Exit:
    """One sentence, and an exit status."""
    Console(stderr=True, highlight=False).print(
        f"scepstream enroll: {text}", markup=False, soft_wrap=True
    )
    return typer.Exit(code)
