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

NameOrId = Annotated[
    str, typer.Argument(help="whole subject or CN, transactionID or enrollment ID")
]
Note = Annotated[str, typer.Option(help="note, recorded with the decision")]
Reason = Annotated[
    str, typer.Option("--note", help="reason, recorded with the decision and sent to the device")
]


def approve(name_or_id: NameOrId, config: Config = None, note: Note = "") -> None:
    """Approve a held enrollment."""
    _decide(name_or_id, config, note, approved=True)


def deny(name_or_id: NameOrId, config: Config = None, note: Reason = "") -> None:
    """Deny a held enrollment."""
    _decide(name_or_id, config, note, approved=False)


def _decide(name_or_id: str, config: Path | None, note: str, *, approved: bool) -> None:
    line = with_operator(
        config_path(config), lambda context: _record(context, name_or_id, note, approved=approved)
    )
    done = "approved" if approved else "denied"
    say(f"{done}: {line.device or line.transaction_id}")


async def _record(
    context: OperatorContext, name_or_id: str, note: str, *, approved: bool
) -> EnrollmentLine:
    # In a thread: a user may take longer to answer the prompt than the bus waits for a pong.
    line = await asyncio.to_thread(_held, context, name_or_id)
    await decide(context, line.enrollment, note, approved=approved)
    return line


def _held(context: OperatorContext, name_or_id: str) -> EnrollmentLine:
    """Return the held enrollment with this name; a mere prefix match always needs a prompt."""
    engine = open_existing(context.settings.database_url)
    try:
        lines = exact_lines(engine, name_or_id, State.HELD)
        if len(lines) == 1:
            return lines[0]
        others = lines or suggested_lines(engine, name_or_id, State.HELD)
    finally:
        engine.dispose()
    if not others:
        raise CommandError(f"no held enrollment found: {name_or_id}")
    if lines:
        return choose(lines, f"several held enrollments match {name_or_id}")
    return choose(
        others, f"no exact match for {name_or_id}; held enrollments whose names begin with it"
    )
