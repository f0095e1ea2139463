"""`scepstream anchors`: every validator reads a profile's anchors anew, and says how it went."""

import asyncio
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cli.operator import Office, OrderError, in_office, operator_name
from cli.places import config_path
from shared.access_events import ReloadOrdered, ReplicaSeen
from shared.bus.topology import OPS, REPLICAS, Role, replica_subject
from shared.events import OrderAnswered
from shared.stored import Message, UnreadableEventError, authenticate_as, sign
from shared.subjects import reload_answer, reload_order

app = typer.Typer(no_args_is_help=True, help="The certificates that connectors' tokens trust.")
_console = Console(highlight=False)
_ANSWER_SECONDS = 20.0


@app.callback()
def anchors() -> None:
    """The certificates that connectors' tokens trust."""


@app.command("reload")
def reload_anchors(
    profile: Annotated[str, typer.Option(help="which of the profiles")],
    config: Annotated[
        Path | None,
        typer.Option(envvar="SCEPSTREAM_CONFIG", help="configuration [scepstream.toml, data/...]"),
    ] = None,
) -> None:
    """Let every running validator read them; one that cannot keeps its old ones and says why."""
    answers = in_office(config_path(config), lambda office: _reload(office, profile))
    table = Table("validator", "result", "")
    for name, answer in answers:
        result = "silent" if answer is None else "reloaded" if answer.done else "refused"
        table.add_row(name, result, answer.detail if answer else "did not answer in time")
    _console.print(table)
    if not all(answer is not None and answer.done for _, answer in answers):
        raise typer.Exit(1)


async def _reload(office: Office, profile: str) -> Sequence[tuple[str, OrderAnswered | None]]:
    found = office.configuration.profiles.get(profile)
    if found is None:
        raise OrderError(f"no such profile: {profile}")
    if not found.intune_enabled:
        raise OrderError(f"profile {profile} has no anchors: intune_enabled")
    names = await replicas(office)
    if not names:
        raise OrderError("no validator is running")
    order = ReloadOrdered(profile=profile, operator=operator_name())
    subject = reload_order(profile, secrets.token_hex(8))
    await office.append(subject, sign(order, subject, order.request_sha256, office.settings.signer))
    await office.bus.hint("order.reload", Message(b"", {}))
    answers = await asyncio.gather(*(_answer(office, subject, name) for name in names))
    return list(zip(names, answers, strict=True))


async def replicas(office: Office) -> list[str]:
    """The validators that said within the last seconds that they are there."""
    wildcard, position, found = replica_subject(Role.VALIDATOR, "*"), 0, []
    while stored := await office.bus.get_next(REPLICAS, wildcard, position + 1):
        position = stored.sequence
        try:
            found.append(authenticate_as(ReplicaSeen, stored, office.validators).name)
        except UnreadableEventError:
            continue
    return sorted(set(found))


async def _answer(office: Office, order: str, name: str) -> OrderAnswered | None:
    stored = await office.until(OPS, reload_answer(order, name), _ANSWER_SECONDS)
    return authenticate_as(OrderAnswered, stored, office.validators) if stored else None
