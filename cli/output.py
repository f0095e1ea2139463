"""Output of commands: untrusted text is printed literally, without terminal escapes."""

import json
import sys
from collections.abc import Iterable

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shared.text.printable import visible


def say(text: object, *, err: bool = False) -> None:
    """Print one line."""
    print(visible(str(text)), file=sys.stderr if err else sys.stdout)


def failed(reason: object) -> typer.Exit:
    """Print why a command failed to standard error; return an exit with status 1 to raise."""
    say(reason, err=True)
    return typer.Exit(1)


def counted(count: int, noun: str) -> str:
    """Return a number and its noun: "1 event", "2 events"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def heading(text: str, rest: str = "") -> None:
    """Print one line that begins in bold."""
    console = Console(highlight=False, emoji=False)
    console.print(Text.assemble((visible(text), "bold"), visible(rest)), soft_wrap=True)


def json_line(value: object) -> None:
    """Print one line of JSON; control characters are escaped as in JSON."""
    print(json.dumps(value).replace("\x7f", "\\u007f"))


def show_table(
    headings: Iterable[str], rows: Iterable[Iterable[str]], *, plain: bool = False
) -> None:
    """Print a table; `plain` leaves out the rules."""
    table = Table(box=None, padding=(0, 2, 0, 0)) if plain else Table()
    for each in headings:
        table.add_column(each)
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    Console(highlight=False, emoji=False).print(table)
