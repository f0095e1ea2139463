"""The `connector` commands."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from cli.connector.signing import (
    CERTIFICATE,
    KEY,
    KINDS,
    ChallengeClaims,
    Connector,
    connector_files,
)
from cli.durations import DURATION, seconds
from cli.output import failed, say
from cli.up.layout import write_private
from shared.config.load import SettingsError
from shared.runtime.process import now

app = typer.Typer(
    no_args_is_help=True,
    help="A stand-in for the service that signs challenges, for trials and tests.",
)
Directory = Annotated[Path, typer.Option("--dir", help="directory of the connector's files")]
_DIRECTORY = Path("connector")


@app.command()
def init(
    directory: Directory = _DIRECTORY,
    key: Annotated[str, typer.Option(help=", ".join(KINDS))] = "rsa:2048",
    name: Annotated[str, typer.Option(help="`iss` of its challenges")] = "scepstream connector",
) -> None:
    """Create a key and its signing certificate. Set the certificate as a profile's trust anchor."""
    with _report_errors():
        if key not in KINDS:
            raise SettingsError(f"--key {key}: choose one of {', '.join(KINDS)}")
        for file in (CERTIFICATE, KEY):
            if (directory / file).exists():
                raise SettingsError(f"{directory / file} already exists")
        try:
            certificate, private = connector_files(key, name, now())
        except ValueError as error:
            raise SettingsError(f"--name: {error}") from None
        write_private(directory / KEY, private)
        write_private(directory / CERTIFICATE, certificate)
    say(f"anchor: {directory / CERTIFICATE} (intune_connector_cert_path)")


@app.command()
def token(
    cn: Annotated[str, typer.Option(help="common name of the device")],
    directory: Directory = _DIRECTORY,
    device: Annotated[
        str | None, typer.Option(help="`sub`, the device ID (default: the CN)")
    ] = None,
    san: Annotated[list[str] | None, typer.Option(help="dns:, email:, upn:")] = None,
    audience: Annotated[str | None, typer.Option(help="`aud` (default: none)")] = None,
    ttl: Annotated[int, typer.Option(parser=seconds, help=f"validity, {DURATION}")] = (
        "60m"  # type: ignore[assignment]  # typer parses the default too
    ),
) -> None:
    """Print a signed challenge for one device, valid for one enrollment."""
    with _report_errors():
        claims = _claims(device or cn, cn, san or [], audience, ttl)
        found = Connector.read(directory).mint(claims, secrets.token_hex(16), int(now()))
    print(found)


def _claims(
    device: str, cn: str, sans: list[str], audience: str | None, ttl: int
) -> ChallengeClaims:
    try:
        return ChallengeClaims.for_device(device, cn, sans, audience, ttl)
    except ValueError as error:
        raise SettingsError(f"--san {error}") from None


@contextmanager
def _report_errors() -> Iterator[None]:
    """Turn errors into one line on standard error and exit status 1."""
    try:
        yield
    except SettingsError as error:
        reason = str(error)
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}"
    except ValueError as error:
        reason = f"not a connector's certificate: {type(error).__name__}"
    else:
        return
    raise failed(reason)
