"""`scepstream doctor`: try what the configuration names, and say what to do."""

import asyncio
from typing import Annotated

import typer

from cli.config_option import Config, config_path
from cli.output import failed, say
from services.issuer.connectors.connector import AnswerLostError, CaUnavailableError, Connector
from services.issuer.connectors.registry import read_connector
from services.validator.microsoft.client import Intune
from services.validator.microsoft.connection import read_connection
from services.validator.microsoft.examine import examine
from shared.config.load import SettingsError, load
from shared.config.pkcs11 import TokenUnavailableError
from shared.config.sections import Configuration
from shared.log.roles import Role
from shared.runtime.process import now

_DAY = 86400
app = typer.Typer(
    no_args_is_help=True, help="Try what the configuration names, and say what to do."
)


@app.callback()
def doctor() -> None:
    """Try what the configuration names, and say what to do."""


@app.command()
def issuer(
    name: Annotated[str, typer.Argument(help="name of an issuer in the configuration")],
    config: Config = None,
) -> None:
    """Try an issuer's CA: credentials, permissions, and whether it is the pinned CA.

    Nothing is ordered. Run it where the issuer runs, with the same configuration.
    """
    try:
        configuration = load(config_path(config), role=Role.ISSUER)
        if name not in configuration.issuers:
            known = ", ".join(configuration.issuers)
            raise failed(f"no such issuer: {name}; configured: {known}")
        connector = read_connector(configuration, name)
    except (SettingsError, TokenUnavailableError) as error:
        raise failed(error) from None
    for line in _about(configuration, name, connector):
        say(line)
    try:
        say(f"ok: {asyncio.run(_check(connector))}")
    except (CaUnavailableError, AnswerLostError, TokenUnavailableError) as error:
        raise failed(error) from None
    except TimeoutError:
        raise failed(f"the CA did not answer within {connector.lease:.0f} s (lease)") from None
    except Exception as error:  # noqa: BLE001 - a package's error
        raise failed(f"the connector failed: {type(error).__name__}") from None


@app.command()
def intune(
    name: Annotated[str, typer.Argument(help="name of an Intune connection in the configuration")],
    device: Annotated[
        str, typer.Option(help="also read this device, by its Intune device ID")
    ] = "",
    config: Config = None,
) -> None:
    """Try a connection to Microsoft: credentials, permissions, services.

    Nothing is changed. Run it where the validator runs, with the same configuration.
    """
    try:
        configuration = load(config_path(config), role=Role.VALIDATOR)
        if name not in configuration.intune:
            known = ", ".join(configuration.intune) or "none"
            raise failed(f"no such Intune connection: {name}; configured: {known}")
        connection = read_connection(configuration, name)
    except SettingsError as error:
        raise failed(error) from None
    if not asyncio.run(_examine(Intune(connection), device)):
        raise failed(f"connection {name}: a step failed")


async def _examine(client: Intune, device: str) -> bool:
    """Print each step's result; return whether none failed."""
    ok = True
    try:
        async for finding in examine(client, device):
            ok = ok and finding.ok
            result = ("unclear" if finding.hint else "ok") if finding.ok else "failed"
            say(f"{result}: {finding.step}: {finding.detail}")
            if finding.hint:
                say(f"    {finding.hint}")
    finally:
        await client.close()
    return ok


async def _check(connector: Connector) -> str:
    try:
        async with asyncio.timeout(connector.lease or None):
            return await connector.check()
    finally:
        await connector.close()


def _about(configuration: Configuration, name: str, connector: Connector) -> list[str]:
    """Return what is known without the CA: its kind, its end, and which profiles use it."""
    ceilings = connector.current.ceilings
    days = int((ceilings.ca_not_after - now()) / _DAY)
    profiles = [n for n, p in configuration.profiles.items() if p.issuer_id == name]
    unpinned = [
        n for n in profiles if connector.current.pin not in configuration.profiles[n].ca_spki_sha256
    ]
    lines = [
        f"kind: {configuration.issuers[name].kind}; orders are found again: {connector.recovery}",
        f"CA: SPKI SHA-256 {connector.current.pin}; expires in {days} days",
        f"SCEP profiles: {', '.join(profiles) or 'none'}",
    ]
    if unpinned:
        lines.append(f"not pinned by: {', '.join(unpinned)} (set ca_spki_sha256)")
    return lines
