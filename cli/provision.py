"""`scepstream provision`: create streams, consumers and nats-server's configuration."""

import asyncio
import re
from pathlib import Path
from typing import Annotated

import typer
from nats.errors import Error as NatsError

from cli.output import failed
from shared.bus.provision import ForeignLogError, provision, server_config
from shared.bus.users import User, public_key_of
from shared.config.keys import read_nkey
from shared.config.load import SettingsError, load, read_file
from shared.log.roles import Role
from shared.log.shards import all_shards

app = typer.Typer(no_args_is_help=True, help="Set up NATS JetStream.")
Config = Annotated[Path, typer.Option(envvar="SCEPSTREAM_CONFIG", help="configuration file")]
_DEFAULT = Path("scepstream.toml")
# Public keys of signatures and of sealing, not of bus users; `up` keeps them beside the nkeys.
_NO_USERS = ("-signing.pub", "-opening.pub")


@app.command()
def streams(
    nkey: Annotated[Path, typer.Option(help="the provisioner's nkey seed")],
    config: Config = _DEFAULT,
) -> None:
    """Create or update all streams and consumers."""
    try:
        configuration = load(config)
        seed = read_nkey(nkey)
    except SettingsError as error:
        raise failed(error) from None
    shards, replicas = all_shards(configuration.epochs()), configuration.log.replicas
    sizes = configuration.max_bytes()
    notified, confirmed = configuration.notified(), configuration.confirmed()
    servers = configuration.servers()
    try:
        asyncio.run(provision(servers, seed, shards, replicas, notified, sizes, confirmed))
    except ForeignLogError as error:
        raise failed(error) from None
    except (NatsError, OSError) as error:
        raise failed(f"the bus cannot be provisioned: {type(error).__name__}") from None


@app.command()
def server(
    keys: Annotated[
        Path,
        typer.Option(help="directory with <role>[-N].nkey seeds, or <role>[-N].pub public keys"),
    ],
    store: Annotated[Path, typer.Option(help="directory of the event log")],
    listen: Annotated[str, typer.Option(help="HOST:PORT")] = "127.0.0.1:4222",
    sync: Annotated[
        str, typer.Option(help='sync_interval of nats-server: "always", or a time such as 100ms')
    ] = "100ms",
    shard: Annotated[
        list[str] | None, typer.Option(help="shard name; repeat for each shard (default: 0)")
    ] = None,
) -> None:
    """Print nats-server's configuration: one account for each role, with least privilege."""
    try:
        users = read_users(keys)
    except SettingsError as error:
        raise failed(error) from None
    print(server_config(users, shard or ["0"], store, listen, sync), end="")


def read_users(directory: Path) -> list[User]:
    """Read every role's users: `gateway.nkey` is for all gateways, `gateway-1.nkey` for one.

    A replica's key has the name that it runs under (`--name gateway-1`). Instead of a seed, a file
    NAME.pub may hold the public key, so that the server's host needs no secret. Public keys for
    signatures in the same directory (`issuer-signing.pub`) are ignored.
    """
    users = []
    for role in Role:
        found = [user for path in sorted(directory.glob(f"{role}*")) for user in _user(role, path)]
        if not found:
            raise SettingsError(
                f"{directory}: no key for the {role}: add {role}.nkey or {role}.pub"
            )
        users += found
    return list({user.public_key: user for user in users}.values())


def _user(role: Role, path: Path) -> list[User]:
    name = re.fullmatch(rf"{role}(-[A-Za-z0-9-]{{1,40}})?\.(nkey|pub)", path.name)
    if name is None or path.name.endswith(_NO_USERS):
        return []
    replica = f"{role}{name[1]}" if name[1] else ""
    if name[2] == "nkey":
        return [User(role, public_key_of(read_nkey(path)), replica)]
    public = read_file(path).decode("ascii", "replace").strip()
    if not re.fullmatch("U[A-Z2-7]{55}", public):
        raise SettingsError(f"{path}: not an nkey's public key (U and 55 more characters)")
    return [User(role, public, replica)]
