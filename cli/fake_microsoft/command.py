"""The `fake-microsoft` commands."""

import signal
import ssl
import tempfile
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer

from cli.durations import DURATION, seconds
from cli.fake_microsoft.fake import FakeMicrosoft
from cli.output import failed, say
from cli.san import san_parts

_SIGNALS: Final = {signal.SIGINT, signal.SIGTERM}
app = typer.Typer()


@app.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    port: Annotated[int, typer.Option(help="port on 127.0.0.1 (default: a free one)")] = 0,
    directory: Annotated[
        Path | None,
        typer.Option(
            help="where to write ca.pem, credentials and intune.toml (default: temporary)"
        ),
    ] = None,
) -> None:
    """Run a fake of Entra ID, Graph and Intune, for trials and tests.

    It serves two tenants, contoso and fabrikam, over HTTPS on 127.0.0.1, and prints the
    configuration of both. POST JSON to /_fake/challenges, /_fake/faults, /_fake/answers,
    /_fake/devices, /_fake/users, /_fake/revocations, /_fake/clock, /_fake/tenants, /_fake/secrets
    or /_fake/switches to control it; GET /_fake/journal, /_fake/counts, /_fake/notifications,
    /_fake/results, /_fake/devices or /_fake/tenants to read what happened. docs/intune-fake.md
    describes their members.
    """
    if context.invoked_subcommand is not None:
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        if directory is None:
            with tempfile.TemporaryDirectory(prefix="fake-microsoft-") as made:
                _serve(Path(made), port)
        else:
            _serve(directory.resolve(), port)
    except (OSError, OverflowError) as error:
        raise failed(error) from None


def _serve(directory: Path, port: int) -> None:
    with FakeMicrosoft(directory, port) as fake:
        print(fake.configuration(), flush=True)
        say(f"serving {fake.url}; CA: {fake.ca_path}", err=True)
        signal.sigwait(_SIGNALS)


@app.command()
def challenge(
    url: Annotated[str, typer.Option(help="URL of the fake, as it printed it")],
    subject: Annotated[str, typer.Option(help="subject of the device, for example CN=device-1")],
    tenant: Annotated[str, typer.Option(help="contoso or fabrikam")] = "contoso",
    san: Annotated[list[str] | None, typer.Option(help="dns:, email:, ip:, uri: or upn:")] = None,
    device: Annotated[
        str | None, typer.Option(help="Intune ID of the device (default: a new one)")
    ] = None,
    key_bits: Annotated[int, typer.Option(help="size of the device's RSA key")] = 2048,
    ttl: Annotated[int, typer.Option(parser=seconds, help=f"validity, {DURATION}")] = (
        "60m"  # type: ignore[assignment]  # typer parses the default too
    ),
    ca: Annotated[
        Path | None, typer.Option(help="ca.pem that the fake wrote (default: the system's CAs)")
    ] = None,
) -> None:
    """Print a challenge for one enrollment, as Intune issues it to a device."""
    body = {
        "tenant": tenant, "subject": subject, "lifetime": ttl, "key_bits": key_bits,
        "sans": _sans(san or []), "device_id": device,
    }  # fmt: skip
    print(_post(url, "challenges", body, ca)["challenge"])


def _sans(given: list[str]) -> list[tuple[str, str]]:
    try:
        return [san_parts(each) for each in given]
    except ValueError as error:
        raise failed(f"--san {error}") from None


def _post(url: str, name: str, body: dict[str, Any], ca: Path | None) -> dict[str, Any]:
    try:
        verify = ssl.create_default_context(cafile=ca)
        response = httpx.post(
            f"{url.rstrip('/')}/_fake/{name}", json=body, verify=verify, trust_env=False
        )
        answer = dict(response.json())
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, TypeError) as error:
        raise failed(f"{url}: {error}") from None
    if response.is_error:
        raise failed(f"{url}: {answer.get('error', response.status_code)}")
    return answer
