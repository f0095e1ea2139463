"""`scepstream anchors`: make every validator reload a profile's anchors and report the result."""

import secrets
from typing import Annotated

import typer

from cli.config_option import Config, config_path
from cli.operator import with_operator
from cli.output import show_table
from services.audit.commands.reload_anchors import reload_anchors as order_reload

app = typer.Typer(
    no_args_is_help=True,
    help="Reload a profile's trust anchors, the certificates trusted to sign challenges.",
)


@app.callback()
def anchors() -> None:
    """Reload a profile's trust anchors, the certificates trusted to sign challenges."""


@app.command("reload")
def reload_anchors(
    profile: Annotated[str, typer.Option(help="SCEP profile")],
    config: Config = None,
) -> None:
    """Reload a SCEP profile's trust anchors on every validator.

    A validator that fails keeps its old ones.
    """
    answers = with_operator(
        config_path(config), lambda context: order_reload(context, profile, secrets.token_hex(8))
    )
    rows = []
    for name, answer in answers:
        result = "no answer" if answer is None else "reloaded" if answer.done else "refused"
        rows.append((name, result, answer.detail if answer else "did not answer in time"))
    show_table(("validator", "result", ""), rows)
    if not all(answer is not None and answer.done for _, answer in answers):
        raise typer.Exit(1)
