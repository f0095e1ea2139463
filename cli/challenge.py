"""`scepstream challenge`: create, list and cancel one-time challenges."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from cli.config_option import Config, config_path
from cli.durations import DURATION, seconds
from cli.operator import with_operator
from cli.output import json_line, say, show_table
from cli.san import san_parts
from services.audit.commands.one_time import SHORT, ChallengeSummary, create
from services.audit.commands.one_time import cancel as cancel_challenge
from services.audit.commands.one_time import list_challenges as challenges_of
from shared.runtime.process import now

app = typer.Typer(no_args_is_help=True, help="Create, list and cancel one-time challenges.")

Profile = Annotated[str, typer.Option(help="SCEP profile")]


@app.command()
def new(
    profile: Profile,
    config: Config = None,
    cn: Annotated[str, typer.Option(help="valid only for this common name")] = "",
    san: Annotated[
        list[str] | None,
        typer.Option(help="valid only for these names: dns:, email:, uri:, ip:, upn:"),
    ] = None,
    ttl: Annotated[int, typer.Option(parser=seconds, help=f"validity, {DURATION}")] = (
        "24h"  # type: ignore[assignment]  # typer parses the default too
    ),
) -> None:
    """Create a one-time challenge. It is printed once and not stored."""
    names, expires_at = tuple(map(_san, san or ())), int(now()) + ttl
    made = with_operator(
        config_path(config), lambda context: create(context, profile, cn, names, expires_at)
    )
    print(made.challenge)


def _san(text: str) -> str:
    """Return a name in the form that `Facts` use: kind and value."""
    try:
        kind, value = san_parts(text)
    except ValueError as error:
        raise typer.BadParameter(f"--san {error}") from None
    return f"{'rfc822' if kind == 'email' else kind}:{value}"


@app.command("list")
def list_challenges(
    profile: Profile,
    config: Config = None,
    every: Annotated[
        bool, typer.Option("--all", help="include used, expired and cancelled ones")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object per line")] = False,
) -> None:
    """List the IDs of a profile's one-time challenges, newest last."""
    lines = with_operator(
        config_path(config), lambda context: challenges_of(context, profile, now())
    )
    shown = [line for line in lines if every or line.state == "open"]
    if as_json:
        for line in shown:
            json_line({name: getattr(line, name) for name in ChallengeSummary.__dataclass_fields__})
        return
    show_table(
        ("id", "for", "created by", "created (UTC)", "expires (UTC)", "state"),
        (
            (
                line.id[:SHORT], ", ".join(filter(None, (line.cn, *line.sans))) or "any device",
                line.operator, _time(line.created_at), _time(line.expires_at), line.state,
            )
            for line in shown
        ),
    )  # fmt: skip


@app.command()
def cancel(
    challenge_id: Annotated[
        str, typer.Argument(help="challenge ID, in full or as `list` prints it")
    ],
    profile: Profile,
    config: Config = None,
) -> None:
    """Cancel a challenge that has not been used successfully."""
    cancelled = with_operator(
        config_path(config), lambda context: cancel_challenge(context, profile, challenge_id, now())
    )
    say(f"cancelled: {cancelled[:SHORT]}")


def _time(unix: int) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M")
