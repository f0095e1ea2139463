"""What `up` is going to run: sockets already bound, replicas, where."""

import socket
from dataclasses import dataclass

from cli.up.layout import Layout
from cli.up.ports import Ports


@dataclass(frozen=True)
class GatewaySockets:
    """What one gateway listens on: SCEP, and where wanted SCEP over TLS and with mTLS."""

    scep: socket.socket
    tls: socket.socket | None = None
    mtls: socket.socket | None = None

    def options(self) -> dict[str, socket.socket]:
        """The command line's option for each."""
        found = {"--fd": self.scep, "--tls-fd": self.tls, "--mtls-fd": self.mtls}
        return {option: sock for option, sock in found.items() if sock is not None}


@dataclass(frozen=True)
class Plan:
    """What runs: sockets already bound, replicas, where."""

    layout: Layout
    host: str
    gateways: tuple[GatewaySockets, ...]
    admin: socket.socket
    nats_port: int
    validators: int
    issuers: int

    def ports(self) -> Ports:
        """The ports to keep."""
        return Ports(
            tuple(s.scep.getsockname()[1] for s in self.gateways),
            self.admin.getsockname()[1],
            self.nats_port,
        )
