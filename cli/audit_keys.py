"""`scepstream audit keys`: find recorded certificates whose RSA keys share a prime."""

from collections.abc import Sequence
from datetime import UTC, datetime

import typer

from cli.config_option import Config, config_path
from cli.operator import with_operator
from cli.output import counted, say
from cli.verify import bar
from services.audit.commands.context import OperatorContext
from services.audit.proof.rsa_keys import RsaCertificate, moduli, rsa_certificates
from shared.x509.shared_primes import shared_primes


def keys(config: Config = None) -> None:
    """Find recorded certificates whose RSA keys share a prime, and so can be factored.

    Exit status 1 if there are any.
    """
    count, found = with_operator(config_path(config), _shared)
    for line in report(found):
        say(line)
    if found:
        raise typer.Exit(1)
    print(f"no shared primes: {counted(count, 'RSA key')}")


def report(found: Sequence[RsaCertificate]) -> list[str]:
    """Return a line for each certificate with a shared prime, and what to do about them."""
    lines = [
        f"{each.subject or 'no subject'}: serial {each.serial}, issuer {each.issuer}, "
        f"until {datetime.fromtimestamp(each.not_after, UTC):%Y-%m-%d}"
        for each in sorted(found, key=lambda each: (each.subject, each.not_after))
    ]
    if lines:
        lines.append(
            f"{counted(len(found), 'certificate')} with a key that shares a prime with another "
            "one: anybody can compute the private keys. Revoke each: "
            "scepstream ca revoke SERIAL --reason keyCompromise"
        )
    return lines


async def _shared(context: OperatorContext) -> tuple[int, list[RsaCertificate]]:
    """Return how many keys there are, and the certificates whose key shares a prime."""
    bus, streams, issuers = context.bus, context.settings.streams, context.issuers
    async with bar("certificates", None) as advance:
        known = await moduli(bus, streams, issuers, advance)
    weak = shared_primes(known)
    if not weak:
        return len(known), []
    return len(known), [each async for each in rsa_certificates(bus, streams, issuers, weak)]
