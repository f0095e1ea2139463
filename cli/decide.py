"""`scepstream approve|deny`: record an operator's decision on a held enrollment."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from cli.choice import choose
from cli.config_option import Config, config_path
from cli.operator import with_operator
from cli.output import say
from services.audit.commands.context import CommandError, OperatorContext
from services.audit.commands.decide import decide
from services.audit.query.lookup import EnrollmentLine, exact_lines, suggested_lines
from services.audit.store.engine import open_existing
from shared.log.enrollment import State

Wanted = Annotated[str, typer.Argument(help="full name or CN, transactionID or enrollment ID")]
Note = Annotated[
    str, typer.Option(help="reason, recorded with the decision; on denial also sent to the device")
]


def approve(wanted: Wanted, config: Config = None, note: Note = "") -> None:
    """Approve a held enrollment."""
    _decide(wanted, config, note, approved=True)


def deny(wanted: Wanted, config: Config = None, note: Note = "") -> None:
    """Deny a held enrollment."""
    _decide(wanted, config, note, approved=False)


def _decide(wanted: str, config: Path | None, note: str, *, approved: bool) -> None:
    line = with_operator(
        config_path(config), lambda context: _record(context, wanted, note, approved=approved)
    )
    done = "approved" if approved else "denied"
    say(f"{done}: {line.device or line.transaction_id}")


async def _record(
    context: OperatorContext, wanted: str, note: str, *, approved: bool
) -> EnrollmentLine:
    # In a thread: a user may take longer to answer the prompt than the bus waits for a pong.
    line = await asyncio.to_thread(_held, context, wanted)
    await decide(context, line.enrollment, note, approved=approved)
    return line


def _held(context: OperatorContext, wanted: str) -> EnrollmentLine:
    """Return the held enrollment with this name; a mere prefix match always needs a prompt."""
    engine = open_existing(context.settings.database_url)
    try:
        lines = exact_lines(engine, wanted, State.HELD)
        if len(lines) == 1:
            return lines[0]
        others = lines or suggested_lines(engine, wanted, State.HELD)
    finally:
        engine.dispose()
    if not others:
        raise CommandError(f"no held enrollment found: {wanted}")
    if lines:
        return choose(lines, f"several held enrollments match {wanted}, use a transactionID")
    return choose(others, f"no exact match for {wanted}; held ones that begin with it")
