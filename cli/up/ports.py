"""The sockets that the supervisor binds, and the ports that it chooses once and keeps."""

import errno
import json
import random
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from cli.up.layout import Layout, UpError, write_private
from shared.runtime.process import listen

# Below Linux's range of ephemeral ports: a client that reconnects to a port of that range while
# nothing listens there can connect to itself, which keeps nats-server from starting again.
_NATS_PORTS: Final = (20000, 32000)
_TRIES: Final = 200


@dataclass(frozen=True)
class Ports:
    """The chosen ports; 0: not chosen yet."""

    gateways: tuple[int, ...] = ()
    admin: int = 0
    nats: int = 0


def read_ports(layout: Layout) -> Ports:
    """Return the ports that earlier starts chose."""
    try:
        table = json.loads(layout.ports.read_text())
        return Ports(tuple(table["gateways"]), table["admin"], table["nats"])
    except (OSError, ValueError, KeyError, TypeError):
        return Ports()


def write_ports(layout: Layout, ports: Ports) -> None:
    """Store the ports for later starts, and keep those of gateways that do not run now."""
    kept = read_ports(layout).gateways[len(ports.gateways) :]
    table = asdict(ports) | {"gateways": [*ports.gateways, *kept]}
    write_private(layout.ports, json.dumps(table).encode())


def bind(host: str, port: int, what: str) -> socket.socket:
    """Return a listening socket; `UpError` says why it cannot listen. `what` is for the error."""
    try:
        return listen(host, port)
    except OSError as error:
        reason = {
            errno.EADDRINUSE: "the port is in use",
            errno.EACCES: "the port requires more privileges",
            errno.EADDRNOTAVAIL: "this machine does not have the address",
        }.get(error.errno or 0, error.strerror or "cannot listen")
        raise UpError(f"{what} cannot listen on {host}:{port}: {reason}") from None
    except OverflowError:
        raise UpError(f"{what} cannot listen on {host}:{port}: invalid port number") from None


def wanted_port(option: int | None, default: int, index: int, kept: int | None) -> int:
    """Return the port of replica `index`: requested, kept or default; 0: any free one."""
    if option is None and kept is not None:
        return kept
    base = default if option is None else option
    if base == 0:
        return kept or 0
    return base + index


def nats_port(kept: int) -> int:
    """Return the kept port if it is free, else a random free one; `kept` 0: none."""
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
    """Write this start's port of nats-server into the services' configuration."""
    lines = [
        f'url = "nats://127.0.0.1:{port}"' if line.startswith('url = "nats://127.0.0.1:') else line
        for line in config.read_text().splitlines()
    ]
    write_private(config, ("\n".join(lines) + "\n").encode())
