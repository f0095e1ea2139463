"""Select one of several enrollments: prompt on a terminal, fail in a script."""

import sys
from collections.abc import Sequence

import typer

from cli.output import say
from services.audit.commands.context import CommandError
from services.audit.query.lookup import EnrollmentLine


def choose(lines: Sequence[EnrollmentLine], complaint: str) -> EnrollmentLine:
    """Prompt for one of the lines; without a terminal raise `CommandError`, which lists them."""
    if not sys.stdin.isatty():
        raise CommandError(f"{complaint}: {'; '.join(map(described, lines))}")
    say(f"{complaint}:", err=True)
    for number, line in enumerate(lines, 1):
        say(f"  {number}  {described(line)}", err=True)
    answer = typer.prompt("Number (Enter to cancel)", default="", show_default=False, err=True)
    if not answer.isascii() or not answer.isdigit() or not 0 < int(answer) <= len(lines):
        raise CommandError("cancelled")
    return lines[int(answer) - 1]


def described(line: EnrollmentLine) -> str:
    """Return name, transactionID and profile as one line."""
    name = line.device or "unknown device"
    return f"{name} (transactionID {line.transaction_id}, profile {line.profile})"
