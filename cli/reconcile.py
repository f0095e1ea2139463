"""`scepstream audit reconcile`: rebuild the database from the current log."""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from cli.config_option import Config, config_path
from cli.operator import with_operator
from cli.output import counted, say
from services.audit.commands.context import CommandError, OperatorContext
from services.audit.proof.export import Form, digest_line, lines
from services.audit.record.catch_up import fill
from services.audit.record.event_row import DecodedMessage, RecordedEvent
from services.audit.record.log_reader import last_sequence
from services.audit.record.reconcile import forget, lost
from services.audit.store.engine import Engine, open_existing

_T = TypeVar("_T")


def reconcile(
    config: Config = None,
    kept: Annotated[
        Path, typer.Option("--lost", help="new file for the events that only the database has")
    ] = Path("lost-events.jsonl"),
    yes: Annotated[bool, typer.Option("--yes", help="do not ask for confirmation")] = False,
) -> None:
    """Rebuild the database from the log, and report events that only the database had.

    Use it after the log has been replaced by an older copy. Events that the log lacks are written
    to a file, requests and verdicts as digests, and removed from the database. A certificate whose
    issuance is among them still exists, but the log has no record of it.
    """
    path = config_path(config)
    _report(with_operator(path, _with_database(_lost)))
    if not yes:
        # Between two connections: a user may take longer to answer than the bus waits for a pong.
        typer.confirm("Rebuild the database from the log?", abort=True)
    with_operator(path, _with_database(partial(_rebuild, kept=kept)))


def _with_database(
    work: Callable[[OperatorContext, Engine], Awaitable[_T]],
) -> Callable[..., Awaitable[_T]]:
    async def opened(context: OperatorContext) -> _T:
        engine = open_existing(context.settings.database_url)
        try:
            return await work(context, engine)
        finally:
            engine.dispose()

    return opened


async def _lost(context: OperatorContext, engine: Engine) -> dict[str, list[RecordedEvent]]:
    """Return the events that only the database has, by stream."""
    streams = context.settings.streams
    return {stream: await lost(context.bus, engine, stream) for stream in streams}


async def _rebuild(context: OperatorContext, engine: Engine, kept: Path) -> None:
    streams, gone = context.settings.streams, await _lost(context, engine)
    # Before the database is emptied: a log that does not answer must not leave it so.
    ends = {stream: await last_sequence(context.bus, stream) for stream in streams}
    if any(gone.values()):
        await asyncio.to_thread(_write, kept, gone)
        say(f"events that only the database had: {kept}")
    await asyncio.to_thread(forget, engine)
    for stream, last in ends.items():
        async for _ in fill(context.bus, engine, stream, last):
            pass
        say(f"{stream}: {counted(last, 'event')}")


def _report(gone: dict[str, list[RecordedEvent]]) -> None:
    for stream, events in gone.items():
        kinds = Counter(event.type for event in events)
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        end = f": {counts}" if counts else ""
        are = "is" if len(events) == 1 else "are"
        say(f"{stream}: {counted(len(events), 'event')} {are} missing from the log{end}")


def _write(path: Path, gone: dict[str, list[RecordedEvent]]) -> None:
    """Write the events to a new file and sync it to disk."""
    try:
        with open(path, "x", encoding="utf-8", opener=_for_owner) as file:
            for stream, events in gone.items():
                for event in events:
                    line = _line(stream, event)
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        _sync(path.parent)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}: choose another file with --lost") from None


def _line(stream: str, event: RecordedEvent) -> dict[str, Any]:
    if event.message is None:
        return digest_line(stream, event)
    return lines(Form.JSONL, stream, DecodedMessage.of(event.message))


def _for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync(directory: Path) -> None:
    """Sync a directory, so that its entries survive a crash of the machine."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
