"""The `scepstream` command."""

import io
import sys

import typer

from cli import anchors, audit, challenge, config, provision, reconcile, services, tokens
from cli import verify as proof
from cli.ca.command import app as ca
from cli.connector.command import app as connector
from cli.decide import approve, deny
from cli.enroll.command import enroll
from cli.up.command import up

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="SCEP certificate enrollment (RFC 8894) as an event log.",
)
app.command()(up)
app.command()(enroll)
app.command()(approve)
app.command()(deny)
app.add_typer(ca, name="ca")
app.add_typer(connector, name="connector")
app.add_typer(challenge.app, name="challenge")
app.add_typer(anchors.app, name="anchors")
audit.app.add_typer(tokens.app, name="token")
audit.app.command()(proof.replay)
audit.app.command()(reconcile.reconcile)
audit.app.command()(proof.verify)
audit.app.command()(proof.checkpoint)
audit.app.command()(proof.export)
audit.app.command()(proof.asyncapi)
app.add_typer(audit.app, name="audit")
app.add_typer(config.app, name="config")
app.add_typer(provision.app, name="provision")
for command in (services.gateway, services.validator, services.issuer):
    app.command()(command)


def main() -> None:
    """Run the `scepstream` script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # no command fails on text outside the locale
            stream.reconfigure(errors="backslashreplace")
    app()


if __name__ == "__main__":
    main()
