"""The `ca` commands."""

from pathlib import Path
from typing import Annotated

import typer

from cli.ca.rollover import activate_next, make_next
from cli.config_option import Config, config_path
from cli.operator import with_operator
from cli.output import failed, say
from cli.up.layout import UpError
from services.audit.commands.revoke import revoke_certificate
from shared.config.load import SettingsError
from shared.log.events.commands import RevocationReason
from shared.runtime.process import now

app = typer.Typer(no_args_is_help=True, help="Revoke certificates and roll over a CA.")
Issuer = Annotated[str, typer.Option(help="issuer")]


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
