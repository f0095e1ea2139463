"""`scepstream gateway|validator|issuer`, `audit serve`: run one service, alone or under `up`."""

import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import structlog
import typer

from cli.output import say
from shared.bus.core import BusError, BusUnavailableError
from shared.config.apart import load_apart
from shared.config.load import SettingsError, load
from shared.config.sections import Configuration, TracingSection
from shared.log.roles import Role
from shared.observe.logs import configure_logging, log_failure
from shared.observe.tracing import MissingExtraError, tracing
from shared.runtime.process import CONFIGURATION_STATUS, Signals, inherited, listen, now, run
from shared.runtime.reload import Source

Config = Annotated[Path, typer.Option(envvar="SCEPSTREAM_CONFIG", help="configuration file")]
Name = Annotated[str, typer.Option(help="replica name: letters, digits, hyphens")]
OperationsListen = Annotated[str, typer.Option(help="HOST:PORT for health and metrics")]
AdminListen = Annotated[
    str, typer.Option(help="HOST:PORT for the page, the API, health and metrics")
]
OperationsFd = Annotated[int | None, typer.Option(help="or an inherited socket", hidden=True)]
_DEFAULT = Path("scepstream.toml")
_S = TypeVar("_S")


def gateway(
    config: Config = _DEFAULT,
    name: Name = "gateway-0",
    listen_on: Annotated[str, typer.Option("--listen", help="HOST:PORT for SCEP")] = (
        "127.0.0.1:8080"
    ),
    tls_listen: Annotated[
        str | None, typer.Option(help="HOST:PORT for SCEP over TLS (default: none)")
    ] = None,
    mtls_listen: Annotated[
        str | None, typer.Option(help="HOST:PORT for SCEP with client certificates (default: none)")
    ] = None,
    fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    tls_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    mtls_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    operations_listen: OperationsListen = "127.0.0.1:9101",
    operations_fd: OperationsFd = None,
) -> None:
    """Run a gateway, which serves SCEP over HTTP."""
    from services.gateway import service  # noqa: PLC0415 - only this service's extra
    from services.gateway.settings import read_settings  # noqa: PLC0415

    configure_logging("gateway", name)
    source, traces = _source(config, Role.GATEWAY, lambda c: read_settings(c, now()))
    listeners = service.Listeners(
        _socket(fd, listen_on),
        _socket(operations_fd, operations_listen),
        _optional_socket(tls_fd, tls_listen),
        _optional_socket(mtls_fd, mtls_listen),
    )
    _run(
        (traces, "gateway", name),
        lambda signals: service.serve(source, name, listeners, signals),
    )


def validator(
    config: Config = _DEFAULT,
    name: Name = "validator-0",
    operations_listen: OperationsListen = "127.0.0.1:9102",
    operations_fd: OperationsFd = None,
) -> None:
    """Run a validator, which decides who may enroll."""
    from services.validator import service  # noqa: PLC0415
    from services.validator.settings import read_settings  # noqa: PLC0415

    configure_logging("validator", name)
    source, traces = _source(config, Role.VALIDATOR, lambda c: read_settings(c, now()))
    operations = _socket(operations_fd, operations_listen)
    _run(
        (traces, "validator", name),
        lambda signals: service.serve(source, name, operations, signals),
    )


def issuer(
    config: Config = _DEFAULT,
    name: Name = "issuer-0",
    operations_listen: OperationsListen = "127.0.0.1:9103",
    operations_fd: OperationsFd = None,
) -> None:
    """Run an issuer, which signs certificates and CRLs."""
    from services.issuer import service  # noqa: PLC0415
    from services.issuer.settings import read_settings  # noqa: PLC0415

    configure_logging("issuer", name)
    source, traces = _source(config, Role.ISSUER, read_settings)
    operations = _socket(operations_fd, operations_listen)
    _run(
        (traces, "issuer", name),
        lambda signals: service.serve(source, name, operations, signals),
    )


def audit(
    config: Config = _DEFAULT,
    name: Name = "audit-0",
    operations_listen: AdminListen = "127.0.0.1:8090",
    operations_fd: OperationsFd = None,
) -> None:
    """Run the audit service: read model, operators' API and page."""
    from services.audit import service  # noqa: PLC0415
    from services.audit.settings import read_settings  # noqa: PLC0415

    configure_logging("audit", name)
    source, traces = _source(config, Role.AUDIT, read_settings)
    operations = _socket(operations_fd, operations_listen)
    _run(
        (traces, "audit", name),
        lambda signals: service.serve(
            source, lambda: load(config, role=Role.AUDIT), name, operations, signals
        ),
    )


def _source(
    config: Path, role: Role, read: Callable[[Configuration], _S]
) -> tuple[Source[_S], TracingSection]:
    """Return the settings with how to reload them, and the section on traces.

    Print one line and exit on an error.
    """

    def part() -> Configuration:
        return load_apart(config, role) if role is Role.GATEWAY else load(config, role=role)

    try:
        first = part()
        return Source(read(first), lambda: read(part())), first.tracing
    except SettingsError as error:
        say(error, err=True)
        raise typer.Exit(CONFIGURATION_STATUS) from None


def _run(
    which: tuple[TracingSection, str, str], main: Callable[[Signals], Awaitable[None]]
) -> None:
    """Run a service; `which` is (where its traces go, the service, the replica's name)."""
    traces, service, name = which
    try:
        with tracing(traces.endpoint, traces.sample_ratio, service, name):
            run(main)
    except MissingExtraError as error:
        say(f"tracing.endpoint: {error}", err=True)
        raise typer.Exit(CONFIGURATION_STATUS) from None
    except (BusError, SettingsError) as error:
        say(error, err=True)
        outage = isinstance(error, BusUnavailableError)
        raise typer.Exit(1 if outage else CONFIGURATION_STATUS) from None
    except Exception as error:
        log_failure("service_failed", error)
        raise
    structlog.get_logger().info("service_stopped")


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdigit():
        raise typer.BadParameter(f"{text}: must be HOST:PORT")
    return host.strip("[]"), int(port)


def _socket(fd: int | None, address: str) -> socket.socket:
    return inherited(fd) if fd is not None else listen(*_address(address))


def _optional_socket(fd: int | None, address: str | None) -> socket.socket | None:
    return None if fd is None and address is None else _socket(fd, address or "")
