"""The `up` command: options, first start, sockets, then the supervisor."""

import asyncio
import socket
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cli.output import failed, say
from cli.up.announce import announce
from cli.up.authority import CA_KINDS
from cli.up.firststart import ensure_nkeys, first_start, is_first, read_given
from cli.up.layout import Layout, UpError, open_directory
from cli.up.plan import GatewaySockets, Plan
from cli.up.ports import bind, config_port, nats_port, read_ports, wanted_port, write_ports
from cli.up.renewal import ensure_admin_token, ensure_tls, renew_connector, renew_ra
from cli.up.supervisor import Supervisor
from shared.config.load import SettingsError
from shared.runtime.process import now

_PORT = 8080
_ADMIN_PORT = 8090
_FREE_PORT = "0: choose a free port and keep it for later starts"
_NEXT = "each further gateway uses the next port"
_HOST = "address to listen on, for SCEP and for operators"
_PORT_HELP = f"port of the first gateway (default: 8080), {_NEXT}; {_FREE_PORT}"
_ADMIN_HELP = f"port of the operators' page and API (default: 8090); {_FREE_PORT}"
_TLS_PORT = f"port of SCEP over TLS (default: none); {_NEXT}"
_MTLS_PORT = f"port of SCEP with client certificates (default: none); {_NEXT}"


def up(
    data: Annotated[Path, typer.Option(help="data directory")] = Path("data"),
    host: Annotated[str, typer.Option(help=_HOST)] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help=_PORT_HELP)] = None,
    admin_port: Annotated[int | None, typer.Option(help=_ADMIN_HELP)] = None,
    tls_port: Annotated[int | None, typer.Option(help=_TLS_PORT)] = None,
    mtls_port: Annotated[int | None, typer.Option(help=_MTLS_PORT)] = None,
    gateways: Annotated[int, typer.Option(min=1, max=64)] = 1,
    validators: Annotated[int, typer.Option(min=1, max=64)] = 1,
    issuers: Annotated[int, typer.Option(min=1, max=64)] = 1,
    ca: Annotated[
        str, typer.Option(help="CA to create at the first start: " + ", ".join(CA_KINDS))
    ] = "rsa:2048",
    ca_cert: Annotated[
        Path | None,
        typer.Option(help="PEM file of an existing CA to use instead, with its chain"),
    ] = None,
    ca_key: Annotated[Path | None, typer.Option(help="key of --ca-cert, mode 0600")] = None,
    show_secrets: Annotated[
        bool,
        typer.Option(
            "--show-secrets", help="print challenges even if the output is not a terminal"
        ),
    ] = False,
) -> None:
    """Run nats-server and all services.

    Keys, CA and configuration are created at the first start.
    """
    try:
        announce_run = partial(announce, secrets=show_secrets or sys.stdout.isatty())
        given = _given(ca, ca_cert, ca_key)
        if given and is_first(Layout(data)):
            read_given(*given, now())  # before anything is created: an unusable CA leaves no files
        layout = open_directory(data)
        bus_port = _prepare(layout, ca, given)
        if tls_port is not None or mtls_port is not None:
            ensure_tls(layout, host, now())
        wanted = Wanted(host, port, admin_port, tls_port, mtls_port)
        plan = _plan(layout, wanted, (gateways, validators, issuers), bus_port)
        asyncio.run(Supervisor(plan).run(announce_run))
    except (UpError, SettingsError) as error:
        raise failed(f"scepstream up: {error}") from None


def _given(ca: str, cert: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    """Return the CA's certificate and key files if they were given."""
    if ca not in CA_KINDS:
        raise UpError(f"--ca {ca}: choose one of {', '.join(CA_KINDS)}")
    if bool(cert) != bool(key):
        raise UpError("--ca-cert and --ca-key require each other")
    return (cert, key) if cert and key else None


def _prepare(layout: Layout, ca: str, given: tuple[Path, Path] | None) -> int:
    """Set up the data directory or renew its certificates; return this start's port of the bus."""
    bus_port = nats_port(read_ports(layout).nats)
    try:
        if is_first(layout):
            first_start(layout, ca, given, bus_port, now())
        ensure_nkeys(layout)
        ensure_admin_token(layout)
        for use in renew_ra(layout, now()):
            say(f"renewed the RA {use} certificate")
        if renew_connector(layout, now()):
            say("renewed the stand-in connector's certificate")
        config_port(layout.config, bus_port)
    except OSError as error:
        raise UpError(f"cannot write to the data directory: {error.strerror}") from None
    return bus_port


@dataclass(frozen=True)
class Wanted:
    """Where `up` was asked to listen; None: the kept or default port, for TLS and mTLS none."""

    host: str
    port: int | None
    admin_port: int | None
    tls_port: int | None
    mtls_port: int | None


def _plan(layout: Layout, wanted: Wanted, replicas: tuple[int, int, int], bus_port: int) -> Plan:
    """Bind every socket, before anything is started."""
    kept, host = read_ports(layout), wanted.host
    gateways, validators, issuers = replicas
    listeners = []
    for index in range(gateways):
        before = kept.gateways[index] if index < len(kept.gateways) else None
        port = wanted_port(wanted.port, _PORT, index, before)
        listeners.append(
            GatewaySockets(
                bind(host, port, "the gateway"),
                _optional(host, wanted.tls_port, index, "TLS"),
                _optional(host, wanted.mtls_port, index, "mTLS"),
            )
        )
    admin_port = wanted_port(wanted.admin_port, _ADMIN_PORT, 0, kept.admin or None)
    admin = bind(host, admin_port, "the admin port")
    plan = Plan(layout, host, tuple(listeners), admin, bus_port, validators, issuers)
    write_ports(layout, plan.ports())
    return plan


def _optional(host: str, port: int | None, index: int, what: str) -> socket.socket | None:
    """Bind a listener if it was requested; 0 is any free port."""
    if port is None:
        return None
    return bind(host, port + index if port else 0, f"the gateway's {what} listener")
