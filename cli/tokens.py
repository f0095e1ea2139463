"""`scepstream audit token`: manage the API tokens of operators and programs."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cli.config_option import Config, config_path
from cli.operator import with_operator
from cli.output import failed, say, show_table
from services.audit.commands.api_tokens import create_token, revoke_token
from services.audit.roles import Level
from services.audit.settings import database_url
from services.audit.store.api_tokens import list_tokens
from services.audit.store.engine import DatabaseError, Engine, migrate, open_engine
from shared.config.load import SettingsError, load
from shared.runtime.process import now

app = typer.Typer(no_args_is_help=True, help="Create, list and revoke API tokens.")
Name = Annotated[str, typer.Argument(help="name of the token's user, recorded with every command")]


@app.command()
def add(
    name: Name,
    level: Annotated[
        Level, typer.Option(help="access level (role) of the token's user")
    ] = Level.VIEWER,
    config: Config = None,
) -> None:
    """Create an API token. It is printed once; only its digest is stored."""
    engine = _engine(config)
    print(
        with_operator(config_path(config), lambda at: create_token(at, engine, name, level, now()))
    )


@app.command("list")
def list_all(config: Config = None) -> None:
    """List API tokens by name."""
    show_table(
        ("name", "level", "created (UTC)", "revoked (UTC)"),
        (
            (name, level, _time(created_at), _time(revoked_at))
            for name, level, created_at, revoked_at in list_tokens(_engine(config))
        ),
    )


@app.command()
def revoke(name: Name, config: Config = None) -> None:
    """Revoke an API token; its name cannot be used again."""
    engine = _engine(config)
    with_operator(config_path(config), lambda at: revoke_token(at, engine, name, now()))
    say(f"revoked: {name}")


def _engine(config: Path | None) -> Engine:
    try:
        engine = open_engine(database_url(load(config_path(config))))
        migrate(engine)
    except SettingsError as error:
        raise failed(error) from None
    except DatabaseError as error:
        raise failed(f"the database cannot be used: {type(error).__name__}") from None
    return engine


def _time(seconds: int | None) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}" if seconds else ""
