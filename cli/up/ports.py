"""Sockets that the supervisor binds and keeps, and ports that are chosen once."""

import errno
import json
import random
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from cli.up.layout import Layout, UpError, write_private
from shared.runtime.process import listen

# Below the range from which Linux takes the ports of outgoing connections: a client that
# reconnects to a port of that range while nothing listens there can connect to itself and so
# keep nats-server from coming back.
_NATS_PORTS: Final = (20000, 32000)
_TRIES: Final = 200


@dataclass(frozen=True)
class Ports:
    """The ports in use; 0 where none was chosen yet."""

    gateways: tuple[int, ...] = ()
    admin: int = 0
    nats: int = 0


def read_ports(layout: Layout) -> Ports:
    """What earlier starts chose."""
    try:
        table = json.loads(layout.ports.read_text())
        return Ports(tuple(table["gateways"]), table["admin"], table["nats"])
    except (OSError, ValueError, KeyError, TypeError):
        return Ports()


def write_ports(layout: Layout, ports: Ports) -> None:
    """Keep them for later starts; those of more gateways than run now are kept too."""
    kept = read_ports(layout).gateways[len(ports.gateways) :]
    table = asdict(ports) | {"gateways": [*ports.gateways, *kept]}
    write_private(layout.ports, json.dumps(table).encode())


def bind(host: str, port: int, what: str) -> socket.socket:
    """A listening socket; `UpError` says what is in the way."""
    try:
        return listen(host, port)
    except OSError as error:
        reason = {
            errno.EADDRINUSE: "the port is taken",
            errno.EACCES: "the port needs more rights",
            errno.EADDRNOTAVAIL: "no such address here",
        }.get(error.errno or 0, error.strerror or "cannot listen")
        raise UpError(f"{what} cannot listen on {host}:{port}: {reason}") from None
    except OverflowError:
        raise UpError(f"{what} cannot listen on {host}:{port}: invalid port number") from None


def wanted_port(option: int | None, default: int, index: int, kept: int | None) -> int:
    """The port of replica `index`: as asked, else as kept, else the default; 0 is any free one."""
    if option is None and kept is not None:
        return kept
    base = default if option is None else option
    if base == 0:
        return kept or 0
    return base + index


def nats_port(kept: int) -> int:
    """The kept port if it is free, else one that is."""
    candidates = [kept] if kept else []
    candidates += random.SystemRandom().sample(range(*_NATS_PORTS), _TRIES)
    for port in candidates:
        try:
            listen("127.0.0.1", port).close()
        except OSError:
            continue
        return port
    raise UpError("no free port for nats-server")


def config_port(config: Path, port: int) -> None:
    """Put the port of this start into the services' configuration."""
    lines = [
        f'url = "nats://127.0.0.1:{port}"' if line.startswith('url = "nats://127.0.0.1:') else line
        for line in config.read_text().splitlines()
    ]
    write_private(config, ("\n".join(lines) + "\n").encode())
