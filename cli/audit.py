"""`scepstream audit list|show|rate-limited`: query the read model for what happened to a device."""

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.choice import choose
from cli.config_option import Config, config_path
from cli.operator import with_log
from cli.output import failed, heading, json_line, say, show_table
from services.audit.commands.context import CommandError
from services.audit.query.lookup import (
    EnrollmentLine,
    exact_lines,
    history,
    recent,
    suggested_lines,
)
from services.audit.query.messages import with_payloads
from services.audit.query.payload import read_payload
from services.audit.query.rate_limited import list_rate_limited
from services.audit.settings import database_url
from services.audit.store.engine import DatabaseError, Engine, open_existing
from shared.config.load import SettingsError, load
from shared.log.enrollment import State
from shared.log.envelope import NANOSECONDS

_SHOWN_BYTES = 64
_COLUMNS = ("transaction_id", "device", "result", "serial")


def list_enrollments(
    config: Config = None,
    profile: Annotated[str | None, typer.Option(help="only this SCEP profile")] = None,
    search: Annotated[
        str | None,
        typer.Option(help="device name, transactionID or serial number, or a prefix of one"),
    ] = None,
    state: Annotated[State | None, typer.Option(help="only this state")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10000)] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object per line")] = False,
) -> None:
    """List enrollments, newest first."""
    try:
        lines = recent(_engine(config), limit, profile, search, state)
    except DatabaseError as error:
        raise _unreadable(error) from None
    if as_json:
        for line in lines:
            json_line({name: getattr(line, name) for name in line.__slots__})
        return
    show_table(
        ("time (UTC)", "profile", "device", "state", "result", "serial", "transaction"),
        (
            (
                _time(line.requested_at), line.profile, line.device, line.state, line.result,
                line.serial, line.transaction_id,
            )
            for line in lines
        ),
    )  # fmt: skip


def rate_limited(
    config: Config = None,
    profile: Annotated[str | None, typer.Option(help="only this SCEP profile")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10000)] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object per line")] = False,
) -> None:
    """List devices that hit their enrollment limit within 24 hours.

    Those with most refusals are first.
    """
    try:
        with _engine(config).connect() as connection:
            found = list_rate_limited(connection, int(time.time()), limit, profile)
    except DatabaseError as error:
        raise _unreadable(error) from None
    if as_json:
        for row in found.devices:
            json_line(row)
    else:
        names = ("device", "claim_subject", "claim_issuer", "device_id")
        show_table(
            ("last (UTC)", "profile", "refusals", "device", "sub", "iss", "device ID"),
            (
                (
                    _time(row["last_at"]), row["profile"], str(row["refusals"]),
                    *(row[name] or "" for name in names),
                )
                for row in found.devices
            ),
        )  # fmt: skip
    if not found.is_complete:
        say("there were too many refusals: only the newest were counted", err=True)


def show(
    name_or_id: Annotated[
        str,
        typer.Argument(help="whole subject or CN, transactionID, serial number or enrollment ID"),
    ],
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object per line")] = False,
) -> None:
    """Show every event of the newest enrollment with this name or ID."""
    engine = _engine(config)
    try:
        events = history(engine, _select(engine, name_or_id))
    except DatabaseError as error:
        raise _unreadable(error) from None
    except CommandError as error:
        raise failed(error) from None
    whole = with_log(config_path(config), lambda bus: with_payloads(bus, events)) or events
    for event in whole:
        payload = _content(event)
        if as_json:
            json_line(payload | {"type": event["type"], "subject": event["subject"]})
            continue
        place = f"{event['stream']}#{event['sequence']}"
        heading(event["type"], f"  {_time(event['recorded_at'])}  {place}")
        for name, value in payload.items():
            say(f"    {name}: {_short(value)}")
    if any(event["payload"] is None for event in whole):
        missing = "only the event log has the details of some events: it was not read, or differs"
        say(missing, err=True)


def _content(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an event says; what the database has of it if the log was not read."""
    if event["payload"] is None:
        known = {name: event[name] for name in _COLUMNS if event[name] is not None}
        return known | {"incomplete": True}
    return read_payload(event["payload"]) or {}


def _select(engine: Engine, name_or_id: str) -> str:
    """Return the newest enrollment with this name; prompt if names only begin with it."""
    lines = exact_lines(engine, name_or_id)
    if lines:
        _say_others(lines)
        return lines[0].enrollment
    others = suggested_lines(engine, name_or_id)
    if not others:
        raise CommandError(f"no enrollment found: {name_or_id}")
    complaint = f"no exact match for {name_or_id}; enrollments whose names begin with it"
    return choose(others, complaint).enrollment


def _say_others(lines: Sequence[EnrollmentLine]) -> None:
    """Name the other devices that have the same name: the user must know that there are several."""
    newest = lines[0]
    names = {(line.profile, line.device) for line in lines} - {(newest.profile, newest.device)}
    if names:
        others = "; ".join(f"{device} (profile {profile})" for profile, device in sorted(names))
        shown = f"showing the newest enrollment, of profile {newest.profile}"
        say(f"{shown}; other devices with this name: {others}", err=True)


def _engine(config: Path | None) -> Engine:
    try:
        return open_existing(database_url(load(config_path(config))))
    except SettingsError as error:
        raise failed(error) from None


def _unreadable(error: DatabaseError) -> typer.Exit:
    return failed(f"the database cannot be read: {type(error).__name__}")


def _time(nanoseconds: int) -> str:
    moment = datetime.fromtimestamp(nanoseconds / NANOSECONDS, UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _SHOWN_BYTES * 8 else f"{text[:_SHOWN_BYTES]}... {len(text)} chars"
