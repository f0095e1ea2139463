"""The `scepstream` command."""

import io
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from cli.deferred import Deferred, group

_AUDIT = group(
    "audit",
    "Run the audit service, query enrollments, verify the event log and manage API tokens.",
    (
        Deferred(
            "serve",
            "Run the audit service: read model, operators' API and page.",
            "cli.services:audit",
        ),
        Deferred("list", "List enrollments, newest first.", "cli.audit:list_enrollments"),
        Deferred(
            "show",
            "Show every event of the newest enrollment with this name or ID.",
            "cli.audit:show",
        ),
        Deferred(
            "rate-limited",
            "List devices that hit their enrollment limit within 24 hours.",
            "cli.audit:rate_limited",
        ),
        Deferred(
            "replay",
            "Build a read model in another database from the event log.",
            "cli.verify:replay",
        ),
        Deferred(
            "reconcile",
            "Rebuild the database from the log, and report events that only the database had.",
            "cli.reconcile:reconcile",
        ),
        Deferred(
            "verify",
            "Verify the log's signatures and checkpoints, and compare the database with it.",
            "cli.verify:verify",
        ),
        Deferred(
            "keys",
            "Find recorded certificates whose RSA keys share a prime, and so can be factored.",
            "cli.audit_keys:keys",
        ),
        Deferred(
            "checkpoint",
            "Sign a checkpoint of every stream. Keep a copy of the output elsewhere.",
            "cli.verify:checkpoint",
        ),
        Deferred(
            "export",
            "Print the events of the log for a SIEM, as JSON Lines or CloudEvents 1.0.",
            "cli.verify:export",
        ),
        Deferred(
            "asyncapi",
            "Print the event log's AsyncAPI document (docs/asyncapi.json).",
            "cli.verify:asyncapi",
        ),
        Deferred("token", "Create, list and revoke API tokens.", "cli.tokens:app"),
    ),
)
_COMMANDS = (
    Deferred("up", "Run nats-server and all services.", "cli.up.command:up"),
    Deferred(
        "enroll",
        "Act as a SCEP client: enroll, renew, poll or query. Every reply is verified.",
        "cli.enroll.command:enroll",
    ),
    Deferred("approve", "Approve a held enrollment.", "cli.decide:approve"),
    Deferred("deny", "Deny a held enrollment.", "cli.decide:deny"),
    Deferred("gateway", "Run a gateway, which serves SCEP over HTTP.", "cli.services:gateway"),
    Deferred(
        "validator", "Run a validator, which decides who may enroll.", "cli.services:validator"
    ),
    Deferred("issuer", "Run an issuer, which signs certificates and CRLs.", "cli.services:issuer"),
    Deferred("ca", "Revoke certificates, settle orphans, roll over a CA.", "cli.ca.command:app"),
    Deferred("certs", "List certificates, and show what became of one.", "cli.certs:app"),
    Deferred("doctor", "Try what the configuration names, and say what to do.", "cli.doctor:app"),
    Deferred(
        "connector",
        "A stand-in for the service that signs challenges, for trials and tests.",
        "cli.connector.command:app",
    ),
    Deferred(
        "fake-microsoft",
        "Run a fake of Entra ID, Graph and Intune, for trials and tests.",
        "cli.fake_microsoft.command:app",
    ),
    Deferred("challenge", "Create, list and cancel one-time challenges.", "cli.challenge:app"),
    Deferred(
        "anchors",
        "Reload a profile's trust anchors, the certificates trusted to sign challenges.",
        "cli.anchors:app",
    ),
    _AUDIT,
    Deferred(
        "config",
        "Check or import a configuration, or print the reference of all keys.",
        "cli.config:app",
    ),
    Deferred("provision", "Set up NATS JetStream.", "cli.provision:app"),
)


class _Root(TyperGroup):
    """All commands; none of their modules is imported yet."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for command in _COMMANDS:
            self.add_command(command)


app = typer.Typer(pretty_exceptions_enable=False)


@app.callback(cls=_Root, no_args_is_help=True)
def scepstream() -> None:
    """SCEP certificate enrollment (RFC 8894) as an event log."""


def main() -> None:
    """Run the `scepstream` script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # no command fails on text outside the locale
            stream.reconfigure(errors="backslashreplace")
    app()


if __name__ == "__main__":
    main()
