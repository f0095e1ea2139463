"""`scepstream provision`: streams, consumers and nats-server's configuration from the topology."""

import asyncio
from pathlib import Path
from typing import Annotated

import nkeys
import typer
from nats.errors import Error as NatsError

from shared.bus.provision import provision, server_config
from shared.bus.topology import Role
from shared.keys import read_nkey
from shared.settings import SettingsError, load
from shared.shards import all_shards

app = typer.Typer(no_args_is_help=True, help="Make the bus ready.")
Config = Annotated[Path, typer.Option(envvar="SCEPSTREAM_CONFIG")]
_DEFAULT = Path("scepstream.toml")


@app.command()
def streams(
    nkey: Annotated[Path, typer.Option(help="the provisioner's nkey seed")],
    config: Config = _DEFAULT,
) -> None:
    """Make, or bring up to date, every stream and consumer."""
    try:
        configuration = load(config)
        seed = read_nkey(nkey)
    except SettingsError as error:
        print(error)
        raise typer.Exit(1) from None
    shards, replicas = all_shards(configuration.epochs()), configuration.log.replicas
    notified = configuration.notified()
    try:
        asyncio.run(provision(configuration.bus.url, seed, shards, replicas, notified))
    except (NatsError, OSError) as error:
        print(f"the bus cannot be provisioned: {type(error).__name__}")
        raise typer.Exit(1) from None


@app.command()
def server(
    keys: Annotated[Path, typer.Option(help="directory with <role>.nkey seeds")],
    store: Annotated[Path, typer.Option(help="directory of the event log")],
    listen: Annotated[str, typer.Option(help="HOST:PORT")] = "127.0.0.1:4222",
    sync: Annotated[str, typer.Option(help='sync_interval: "100ms" or "always"')] = "100ms",
    shard: Annotated[list[str] | None, typer.Option(help="a shard; once for each [0]")] = None,
) -> None:
    """Print nats-server's configuration: an account a role, nothing more than it needs."""
    try:
        public = {role: _public(read_nkey(keys / f"{role}.nkey")) for role in Role}
    except SettingsError as error:
        print(error)
        raise typer.Exit(1) from None
    print(server_config(public, shard or ["0"], store, listen, sync), end="")


def _public(seed: str) -> str:
    pair = nkeys.from_seed(bytearray(seed.encode()))
    return str(pair.public_key.decode())
