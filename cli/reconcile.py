"""`scepstream audit reconcile`: rebuild the database from the log that there is."""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import Engine

from cli.operator import in_office
from cli.places import config_path
from services.audit.database import open_existing
from services.audit.export import Form, lines
from services.audit.fill import fill
from services.audit.lost import forget, lost
from services.audit.office import Office, OrderError
from services.audit.projection import Found
from services.audit.reader import last_sequence
from shared.stored import TYPE, Stored

Config = Annotated[
    Path | None,
    typer.Option(envvar="SCEPSTREAM_CONFIG", help="configuration [scepstream.toml, data/...]"),
]


def reconcile(
    config: Config = None,
    kept: Annotated[
        Path, typer.Option("--lost", help="write what only the database had to this new file")
    ] = Path("lost-events.jsonl"),
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Rebuild the database from the log, and report what only the database had.

    For a log that was replaced by an older one. Events that the log lacks are written to a file
    and leave the database: certificates among them exist, but nothing on the log says so.
    """

    async def work(office: Office) -> None:
        engine = open_existing(office.settings.database_url)
        try:
            await _reconcile(office, engine, kept, yes=yes)
        finally:
            engine.dispose()

    in_office(config_path(config), work)


async def _reconcile(office: Office, engine: Engine, kept: Path, *, yes: bool) -> None:
    gone = {s: await lost(office.bus, engine, s) for s in office.settings.streams}
    _report(gone)
    if not yes:
        typer.confirm("rebuild the database from the log", abort=True)
    if any(gone.values()):
        _write(kept, gone)
        print(f"what only the database had is in {kept}")
    await asyncio.to_thread(forget, engine)
    for stream in office.settings.streams:
        last = await last_sequence(office.bus, stream)
        async for _ in fill(office.bus, engine, stream, last):
            pass
        print(f"{stream}: {last} events")


def _report(gone: dict[str, list[Stored]]) -> None:
    for stream, events in gone.items():
        kinds = Counter(event.headers.get(TYPE, "unknown") for event in events)
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        print(f"{stream}: {len(events)} events are not on the log{': ' if told else ''}{told}")


def _write(path: Path, gone: dict[str, list[Stored]]) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            path.chmod(0o600)
            for stream, events in gone.items():
                for found in map(Found.of, events):
                    line: dict[str, Any] = lines(Form.JSONL, stream, found)
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
    except OSError as error:
        raise OrderError(f"{path}: {error.strerror}: name another file with --lost") from None
