"""`scepstream certs list|show`: the inventory of certificates, from the read model."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.config_option import Config, config_path
from cli.database import with_database
from cli.output import failed, heading, json_line, say, show_table
from services.audit.commands.context import CommandError
from services.audit.commands.revoke import written_serial
from services.audit.query.certificates import find_certificate
from services.audit.query.inventory import (
    EXPIRING_DAYS,
    MAX_DAYS,
    Selection,
    list_inventory,
    renewal_windows,
)
from services.audit.query.life import View, state_of
from services.audit.query.pages import MAX_LIMIT
from services.audit.store.engine import Connection
from services.audit.web.labels import certificate_badge, day, moment
from shared.config.load import SettingsError, load
from shared.config.sections import Configuration
from shared.runtime.process import now

app = typer.Typer(no_args_is_help=True, help="List certificates, and show what became of one.")
Json = Annotated[bool, typer.Option("--json", help="one JSON object per line")]
_SECONDS = ("not_before", "not_after", "revoked_at")
_NANOSECONDS = ("recorded_at", "superseded_at")


@app.command("list")
def list_certificates(
    config: Config = None,
    view: Annotated[View | None, typer.Option(help="only these")] = None,
    days: Annotated[
        int, typer.Option(min=0, max=MAX_DAYS, help="with --view expiring: within so many days")
    ] = EXPIRING_DAYS,
    profile: Annotated[str | None, typer.Option(help="only this SCEP profile")] = None,
    fleet: Annotated[str | None, typer.Option(help="only this fleet's SCEP profiles")] = None,
    issuer: Annotated[str | None, typer.Option(help="only this issuer")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000)] = 50,
    as_json: Json = False,
) -> None:
    """List certificates: valid ones in order of their end, otherwise the last change first.

    `expiring` and `not_renewed` leave out devices that have a later certificate. A device should
    have renewed when half of the time is gone in which its SCEP profile allows it.
    """
    configuration, at = _load(config), int(now())
    selection = Selection(view, days, profile, fleet, issuer, None, limit)
    rows = with_database(
        config_path(config), lambda connection: _rows(connection, configuration, selection, at)
    )
    if as_json:
        for row in rows:
            json_line({**row, "state": state_of(row, at)})
        return
    show_table(
        ("issued (UTC)", "profile", "subject", "issuer", "serial", "until", "state"),
        (
            (
                moment(row["recorded_at"]), row["profile"] or "", row["subject"] or "",
                row["issuer"], row["serial"], _day(row["not_after"]),
                certificate_badge(row, at).text,
            )
            for row in rows
        ),
    )  # fmt: skip


@app.command()
def show(
    serial: Annotated[str, typer.Argument(help="serial number in hex")],
    issuer: Annotated[
        str | None, typer.Option(help="issuer; without it, all that are configured")
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show what is recorded of a certificate."""
    configuration, at = _load(config), int(now())
    issuers = sorted(configuration.issuers) if issuer is None else [issuer]
    try:
        written = written_serial(serial)
    except CommandError as error:
        raise failed(error) from None

    def work(connection: Connection) -> list[dict[str, Any]]:
        windows = renewal_windows(configuration)
        found = (find_certificate(connection, one, written, windows, at) for one in issuers)
        return [row for row in found if row is not None]

    rows = with_database(config_path(config), work)
    if not rows:
        raise failed(f"no certificate found: {serial}")
    for row in rows:
        if as_json:
            json_line({**row, "state": state_of(row, at)})
            continue
        heading(row["serial"], f"  {row['issuer']}  {certificate_badge(row, at).text}")
        for name, value in row.items():
            if value is not None and name not in ("issuer", "serial", "not_renewed"):
                say(f"    {name}: {_readable(name, value)}")


def _rows(
    connection: Connection, configuration: Configuration, selection: Selection, at: int
) -> list[dict[str, Any]]:
    """Return up to `selection.limit` rows, page by page."""
    rows: list[dict[str, Any]] = []
    while True:
        size = min(selection.limit - len(rows), MAX_LIMIT)
        page = list_inventory(connection, configuration, replace(selection, limit=size), at)
        rows += page.rows
        selection = replace(selection, cursor=page.next_cursor)
        if selection.cursor is None or len(rows) >= selection.limit:
            return rows


def _load(config: Path | None) -> Configuration:
    try:
        return load(config_path(config))
    except SettingsError as error:
        raise failed(error) from None


def _day(seconds: int | None) -> str:
    return day(seconds) if seconds else ""


def _readable(name: str, value: Any) -> str:
    if name in _SECONDS and value:
        return f"{moment(value * 1_000_000_000)} UTC"
    return f"{moment(value)} UTC" if name in _NANOSECONDS else str(value)
