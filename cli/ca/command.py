"""The `ca` commands."""

from pathlib import Path
from typing import Annotated

import typer

from cli.ca.rollover import activate_next, make_next
from cli.config_option import Config, config_path
from cli.database import with_database
from cli.operator import with_operator
from cli.output import failed, say, show_table
from cli.up.layout import UpError
from services.audit.commands.context import MalformedError
from services.audit.commands.revoke import revoke_certificate
from services.audit.commands.settle import read_report, settle_orphan
from services.audit.query.orphans import list_orphans
from services.audit.web.labels import moment
from shared.config.load import SettingsError
from shared.log.events.commands import RevocationReason
from shared.runtime.process import now

app = typer.Typer(no_args_is_help=True, help="Revoke certificates, settle orphans, roll over a CA.")
Issuer = Annotated[str, typer.Option(help="issuer")]
_MAX_REPORT = 90_000


@app.command()
def revoke(
    serial: Annotated[str, typer.Argument(help="serial number in hex")],
    reason: Annotated[RevocationReason, typer.Option(help="reason code (RFC 5280 5.3.1)")] = (
        RevocationReason.UNSPECIFIED
    ),
    issuer: Issuer = "local",
    config: Config = None,
) -> None:
    """Revoke a certificate, put it on hold, or release it from a hold (removeFromCRL).

    When the command succeeds, the change is on the published CRL, unless an external CA publishes
    the CRL itself.
    """
    say(
        with_operator(
            config_path(config),
            lambda context: revoke_certificate(context, issuer, serial, reason),
        )
    )


@app.command()
def orphans(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="most lines")] = 100,
    config: Config = None,
) -> None:
    """List possible orphans: the CA may have made a certificate that no device got."""
    found = with_database(config_path(config), lambda connection: list_orphans(connection, limit))
    show_table(
        ("suspected (UTC)", "issuer", "order", "device", "SHA-256 of the key", "status"),
        (
            (
                moment(row["suspected_at"]) if row["suspected_at"] else "",
                row["issuer"],
                row["key"],
                row["device"] or "",
                row["spki_sha256"] or "",
                "open" if row["open"] else " ".join((row["detail"] or "settled", *row["serials"])),
            )
            for row in found
        ),
    )


@app.command()
def settle(
    order: Annotated[str, typer.Argument(help="key of the order, as `ca orphans` lists it")],
    issuer: Issuer,
    certificate: Annotated[
        list[Path] | None,
        typer.Option(help="PEM file of a certificate to revoke at the CA; repeatable"),
    ] = None,
    none: Annotated[
        bool, typer.Option("--none", help="the CA made no certificate beside the device's")
    ] = False,
    config: Config = None,
) -> None:
    """Settle a possible orphan: revoke its certificates at the CA, or report that there are none.

    Wait until the enrollment has ended. The certificate that the device received is not an orphan.
    """
    if bool(certificate) is none:
        raise failed("give either --certificate FILE or --none")
    ders = tuple(der for path in certificate or () for der in _read_report(path))
    say(
        with_operator(
            config_path(config), lambda context: settle_orphan(context, issuer, order, ders)
        )
    )


def _read_report(path: Path) -> tuple[bytes, ...]:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_REPORT + 1).decode()
        found = read_report(text) if len(text) <= _MAX_REPORT else ()
    except (OSError, UnicodeDecodeError, MalformedError) as error:
        raise failed(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if not found:
        raise failed(f"{path}: empty, or longer than {_MAX_REPORT} bytes")
    return found


@app.command("next")
def next_ca(
    kind: Annotated[str, typer.Option(help="rsa:2048, rsa:3072, rsa:4096 or ec:p256")] = "rsa:2048",
    issuer: Issuer = "local",
    data: Annotated[Path, typer.Option(help="data directory of `up`")] = Path("data"),
) -> None:
    """Create the next CA and its RA certificates, and announce it with GetNextCACert."""
    try:
        say(make_next(data, issuer, kind, now()))
    except (UpError, SettingsError) as error:
        raise failed(error) from None


@app.command()
def activate(
    issuer: Issuer = "local",
    data: Annotated[Path, typer.Option(help="data directory of `up`")] = Path("data"),
) -> None:
    """Activate the next CA. The previous one keeps signing the CRL for its certificates."""
    try:
        say(activate_next(data, issuer))
    except (UpError, SettingsError) as error:
        raise failed(error) from None
