"""`scepstream audit list|show|serve`: what happened to device X, from the read model."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from cli.places import config_path
from cli.services import audit as serve
from services.audit.database import open_engine
from services.audit.queries import recent, story
from services.audit.settings import database_url
from shared.enrollment import State
from shared.settings import SettingsError, load

app = typer.Typer(no_args_is_help=True, help="The record of every enrollment.")
app.command("serve")(serve)
_console = Console(highlight=False)
_NANOSECONDS = 1_000_000_000
_SHOWN_BYTES = 64

Config = Annotated[
    Path | None,
    typer.Option(envvar="SCEPSTREAM_CONFIG", help="configuration [scepstream.toml, data/...]"),
]


@app.command("list")
def list_enrollments(
    config: Config = None,
    profile: Annotated[str | None, typer.Option(help="of this profile only")] = None,
    search: Annotated[
        str | None,
        typer.Option(help="a device, a name of it, a transactionID, a serial, or how one begins"),
    ] = None,
    state: Annotated[State | None, typer.Option(help="in this state only")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10000)] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
) -> None:
    """The newest enrollments first."""
    try:
        lines = recent(_engine(config), limit, profile, search, state)
    except SQLAlchemyError as error:
        raise _unreadable(error) from None
    if as_json:
        for line in lines:
            print(json.dumps({name: getattr(line, name) for name in line.__slots__}))
        return
    table = Table("time (UTC)", "profile", "device", "state", "result", "serial", "transaction")
    for line in lines:
        time = _time(line.requested_at)
        row = (time, line.profile, line.device, line.state, line.result, line.serial)
        table.add_row(*row, line.transaction_id)
    _console.print(table)


@app.command()
def show(
    wanted: Annotated[str, typer.Argument(help="device, transactionID, serial or enrollment")],
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
) -> None:
    """Every event of the newest enrollment that fits."""
    try:
        events = story(_engine(config), wanted)
    except SQLAlchemyError as error:
        raise _unreadable(error) from None
    if not events:
        print(f"nothing on record for {wanted}")
        raise typer.Exit(1)
    for event in events:
        payload = json.loads(event["payload"])
        if as_json:
            print(json.dumps(payload | {"type": event["type"], "subject": event["subject"]}))
            continue
        place = f"{event['stream']}#{event['sequence']}"
        _console.print(f"[bold]{event['type']}[/bold]  {_time(event['recorded_at'])}  {place}")
        for name, value in payload.items():
            _console.print(f"    {name}: {_short(value)}", markup=False, soft_wrap=True)


def _engine(config: Path | None) -> Engine:
    try:
        return open_engine(database_url(load(config_path(config))))
    except SettingsError as error:
        print(error)
        raise typer.Exit(1) from None


def _unreadable(error: SQLAlchemyError) -> typer.Exit:
    print(f"the database cannot be read: {type(error).__name__}")
    return typer.Exit(1)


def _time(nanoseconds: int) -> str:
    moment = datetime.fromtimestamp(nanoseconds / _NANOSECONDS, UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _SHOWN_BYTES * 8 else f"{text[:_SHOWN_BYTES]}... {len(text)} chars"
