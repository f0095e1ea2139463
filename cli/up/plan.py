"""What `up` will run: bound sockets, numbers of replicas, addresses."""

import socket
from dataclasses import dataclass

from cli.up.layout import Layout
from cli.up.ports import Ports


@dataclass(frozen=True)
class GatewaySockets:
    """The sockets of one gateway: SCEP and, if requested, SCEP over TLS and mTLS."""

    scep: socket.socket
    tls: socket.socket | None = None
    mtls: socket.socket | None = None

    def options(self) -> dict[str, socket.socket]:
        """Return the sockets by the gateway's command line option."""
        found = {"--fd": self.scep, "--tls-fd": self.tls, "--mtls-fd": self.mtls}
        return {option: sock for option, sock in found.items() if sock is not None}


@dataclass(frozen=True)
class Plan:
    """What to run: bound sockets, numbers of replicas, addresses."""

    layout: Layout
    host: str
    gateways: tuple[GatewaySockets, ...]
    admin: socket.socket
    nats_port: int
    validators: int
    issuers: int

    def ports(self) -> Ports:
        """Return the ports to keep for later starts."""
        return Ports(
            tuple(s.scep.getsockname()[1] for s in self.gateways),
            self.admin.getsockname()[1],
            self.nats_port,
        )
