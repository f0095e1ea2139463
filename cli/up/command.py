"""The `up` command: options, first start, sockets, then the supervisor."""

import asyncio
import hashlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cli.up.firststart import first_start, is_first
from cli.up.layout import Layout, UpError, open_directory
from cli.up.ports import bind, config_port, nats_port, read_ports, wanted_port, write_ports
from cli.up.renewal import renew_ra
from cli.up.supervisor import Plan, Supervisor
from shared.keys import read_certificates, spki
from shared.process import now
from shared.settings import SettingsError

_console = Console(highlight=False)
_PORT = 8080
_ADMIN_PORT = 8090
_CA_KINDS = ("rsa:2048", "rsa:3072", "rsa:4096", "ec:p256")


def up(
    data: Annotated[Path, typer.Option(help="data directory")] = Path("data"),
    host: Annotated[str, typer.Option(help="address of the SCEP and admin ports")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(help="port of the first gateway [8080]; 0: any free one, kept")
    ] = None,
    admin_port: Annotated[
        int | None, typer.Option(help="admin port [8090]; 0: any free one, kept")
    ] = None,
    gateways: Annotated[int, typer.Option(min=1, max=64)] = 1,
    validators: Annotated[int, typer.Option(min=1, max=64)] = 1,
    issuers: Annotated[int, typer.Option(min=1, max=64)] = 1,
    ca: Annotated[str, typer.Option(help="CA to make at first start: " + ", ".join(_CA_KINDS))] = (
        "rsa:2048"
    ),
    ca_cert: Annotated[
        Path | None, typer.Option(help="or use this CA: PEM, chain after it")
    ] = None,
    ca_key: Annotated[Path | None, typer.Option(help="and its key, mode 0600")] = None,
) -> None:
    """Run nats-server and all services; everything needed is made at first start and kept."""
    try:
        given = _given(ca, ca_cert, ca_key)
        layout = open_directory(data)
        sockets = _prepare(layout, ca, given)
        plan = _plan(layout, host, (port, admin_port), (gateways, validators, issuers), sockets)
        asyncio.run(Supervisor(plan).run(_announce))
    except (UpError, SettingsError) as error:
        Console(stderr=True, highlight=False).print(
            f"scepstream up: {error}", markup=False, soft_wrap=True
        )
        raise typer.Exit(1) from None


def _given(ca: str, cert: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    """The CA to use, if one was given."""
    if ca not in _CA_KINDS:
        raise UpError(f"--ca {ca}: choose one of {', '.join(_CA_KINDS)}")
    if bool(cert) != bool(key):
        raise UpError("--ca-cert and --ca-key go together")
    return (cert, key) if cert and key else None


def _prepare(layout: Layout, ca: str, given: tuple[Path, Path] | None) -> int:
    """First start or renewal, and the bus's port of this start."""
    bus_port = nats_port(read_ports(layout).nats)
    try:
        if is_first(layout):
            first_start(layout, ca, given, bus_port, now())
        for use in renew_ra(layout, now()):
            _console.print(f"renewed the RA {use} certificate")
        config_port(layout.config, bus_port)
    except OSError as error:
        raise UpError(f"cannot write to the data directory: {error.strerror}") from None
    return bus_port


def _plan(
    layout: Layout,
    host: str,
    ports: tuple[int | None, int | None],
    replicas: tuple[int, int, int],
    bus_port: int,
) -> Plan:
    """Bind every socket before anything is started."""
    kept = read_ports(layout)
    gateways, validators, issuers = replicas
    listeners = []
    for index in range(gateways):
        before = kept.gateways[index] if index < len(kept.gateways) else None
        wanted = wanted_port(ports[0], _PORT, index, before)
        listeners.append(bind(host, wanted, "the gateway"))
    admin = bind(host, wanted_port(ports[1], _ADMIN_PORT, 0, kept.admin or None), "the admin port")
    plan = Plan(layout, host, tuple(listeners), admin, bus_port, validators, issuers)
    write_ports(layout, plan.ports())
    return plan


def _announce(run: dict[str, Any]) -> None:
    """Say what runs and how to try it."""
    table = Table("profile", "SCEP URL", "challenge", box=None, padding=(0, 2, 0, 0))
    for name, profile in run["profiles"].items():
        table.add_row(name, profile["url"], profile["challenge"])
    ca = read_certificates(Path(run["ca_file"]))[0]
    demo = run["profiles"].get("demo") or next(iter(run["profiles"].values()))
    _console.print("[bold]scepstream is up[/bold]", table, sep="\n")
    for url in run["urls"][1:]:
        _console.print(f"also       {url}")
    _console.print(f"admin      {run['admin_url']}")
    _console.print(f"CA         {run['ca_file']}  SHA-256 of its key {_short(spki(ca))}")
    _console.print(
        f"try        {_program()} enroll {demo['url']} --challenge {demo['challenge']} "
        f"--cn device-1 --ca-file {run['ca_file']}",
        soft_wrap=True,
    )


def _program() -> str:
    """How this program was called, so that the line above can be pasted."""
    return sys.argv[0] if sys.argv[0].endswith("scepstream") else "scepstream"


def _short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
