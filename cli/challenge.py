"""`scepstream challenge`: one-time challenges, made, listed and taken back by an operator."""

import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cli.durations import DURATION, seconds
from cli.operator import Office, OrderError, in_office, operator_name
from cli.places import config_path
from cli.sans import san_parts
from shared.access_events import ChallengeCancelled, ChallengeCreated
from shared.bus.topology import OPS, REPLAYS
from shared.one_time import (
    ALPHABET,
    GROUP_LENGTH,
    GROUPS,
    ONE_TIME,
    one_time_digest,
    write_one_time,
)
from shared.process import now
from shared.stored import UnreadableEventError, authenticate_as, sign
from shared.subjects import one_time_cancelled, one_time_created, replay_record

app = typer.Typer(no_args_is_help=True, help="One-time challenges.")
_console = Console(highlight=False)
_SHORT = 10

Config = Annotated[
    Path | None,
    typer.Option(envvar="SCEPSTREAM_CONFIG", help="configuration [scepstream.toml, data/...]"),
]
Profile = Annotated[str, typer.Option(help="which of the profiles")]


@dataclass(frozen=True)
class Line:
    """A challenge in the list; times are Unix seconds."""

    id: str
    cn: str
    sans: tuple[str, ...]
    operator: str
    created_at: int
    expires_at: int
    state: str


@app.command()
def new(
    profile: Profile,
    config: Config = None,
    cn: Annotated[str, typer.Option(help="for this common name only")] = "",
    san: Annotated[
        list[str] | None, typer.Option(help="for these names only: dns:, email:, uri:, ip:, upn:")
    ] = None,
    ttl: Annotated[int, typer.Option(parser=seconds, help=f"how long it is good, {DURATION}")] = (
        "24h"  # type: ignore[assignment]  # typer parses the default too
    ),
) -> None:
    """Make a challenge for one enrollment and print it: this once, it is kept nowhere."""
    letters = "".join(secrets.choice(ALPHABET) for _ in range(GROUPS * GROUP_LENGTH))
    challenge = write_one_time(letters)
    event = ChallengeCreated(
        profile=profile,
        expires_at=int(now()) + ttl,
        operator=operator_name(),
        cn=cn,
        sans=tuple(map(_san, san or ())),
    )
    in_office(config_path(config), lambda office: _create(office, challenge, event))
    print(challenge)


def _san(text: str) -> str:
    """As facts write a name: kind and value."""
    try:
        kind, value = san_parts(text)
    except ValueError as error:
        raise typer.BadParameter(f"--san {error}") from None
    return f"{'rfc822' if kind == 'email' else kind}:{value}"


async def _create(office: Office, challenge: str, event: ChallengeCreated) -> None:
    _check(office, event.profile)
    subject = one_time_created(event.profile, one_time_digest(event.profile, challenge))
    message = sign(event, subject, event.request_sha256, office.settings.signer)
    if not await office.append(subject, message):
        raise OrderError("try again: this very challenge was made before")


def _check(office: Office, profile: str) -> None:
    found = office.configuration.profiles.get(profile)
    if found is None:
        raise OrderError(f"no such profile: {profile}")
    if not found.one_time_enabled:
        raise OrderError(f"profile {profile} takes no one-time challenges: one_time_enabled")


@app.command("list")
def list_challenges(
    profile: Profile,
    config: Config = None,
    every: Annotated[bool, typer.Option("--all", help="used and expired ones too")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
) -> None:
    """The challenges of a profile by id, newest last; the challenges themselves nobody knows."""

    async def work(office: Office) -> list[Line]:
        _check(office, profile)
        return [line async for line in _lines(office, profile)]

    lines = in_office(config_path(config), work)
    shown = [line for line in lines if every or line.state == "open"]
    if as_json:
        for line in shown:
            print(json.dumps({name: getattr(line, name) for name in Line.__dataclass_fields__}))
        return
    table = Table("id", "for", "made by", "made (UTC)", "until (UTC)", "state")
    for line in shown:
        names = ", ".join(filter(None, (line.cn, *line.sans))) or "any device"
        times = (_time(line.created_at), _time(line.expires_at))
        table.add_row(line.id[:_SHORT], names, line.operator, *times, line.state)
    _console.print(table)


async def _lines(office: Office, profile: str) -> AsyncIterator[Line]:
    wildcard, position = one_time_created(profile, "*"), 0
    trusted = {office.settings.signer.id: office.settings.signer.key.public_key()}
    while stored := await office.bus.get_next(OPS, wildcard, position + 1):
        position = stored.sequence
        digest = stored.subject.split(".")[3]
        try:
            event = authenticate_as(ChallengeCreated, stored, trusted)
        except UnreadableEventError:
            continue  # by a key of before, or not by an operator: no validator takes it either
        state = await _state(office, profile, digest, event)
        created_at = stored.time // 1_000_000_000
        yield Line(
            digest, event.cn, event.sans, event.operator, created_at, event.expires_at, state
        )


async def _state(office: Office, profile: str, digest: str, event: ChallengeCreated) -> str:
    """As a validator would see it: by the log's own times who was first, user or operator."""
    used = await office.bus.get_last(REPLAYS, replay_record(ONE_TIME, digest))
    cancelled = await office.bus.get_last(OPS, one_time_cancelled(profile, digest))
    if cancelled is not None and (used is None or cancelled.time <= used.time):
        return "cancelled"
    if used is not None:
        return "used"
    return "expired" if now() >= event.expires_at else "open"


@app.command()
def cancel(
    challenge_id: Annotated[str, typer.Argument(help="its id, or the beginning of it")],
    profile: Profile,
    config: Config = None,
) -> None:
    """Take a challenge back that nobody has used."""
    print(in_office(config_path(config), lambda office: _cancel(office, profile, challenge_id)))


async def _cancel(office: Office, profile: str, wanted: str) -> str:
    _check(office, profile)
    found = [line async for line in _lines(office, profile) if line.id.startswith(wanted)]
    if len(found) != 1 or not wanted:
        raise OrderError(f"{wanted}: {len(found)} challenges of profile {profile} begin so")
    if found[0].state != "open":
        raise OrderError(f"{found[0].id[:_SHORT]}: is {found[0].state}")
    event = ChallengeCancelled(profile=profile, operator=operator_name())
    subject = one_time_cancelled(profile, found[0].id)
    await office.append(subject, sign(event, subject, event.request_sha256, office.settings.signer))
    (line,) = [line async for line in _lines(office, profile) if line.id == found[0].id]
    if line.state != "cancelled":
        raise OrderError(f"{line.id[:_SHORT]}: was used meanwhile")
    return f"cancelled: {found[0].id[:_SHORT]}"


def _time(unix: int) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M")
