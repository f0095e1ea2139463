"""google-auth for connectors: tokens for Google's APIs, obtained in a thread.

Of what a token endpoint or a key file says, errors show codes alone.
"""

import asyncio
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from services.issuer.connectors.connector import CaUnavailableError
from shared.config.load import SettingsError, read_secret_file
from shared.config.sections import Configuration

_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_TOKEN_SECONDS: Final = 30.0
_NEW_SECONDS: Final = 60.0
_ERROR_CODE: Final = re.compile(r"[a-z_]{1,40}")


@dataclass
class GoogleCredentials:
    """Headers with a token of google-auth, which blocks: one thread at a time obtains it.

    `account` is the parsed key file of a service account; without it, the credentials are the
    Application Default Credentials.
    """

    account: dict[str, Any] | None = field(repr=False)
    timeout: float = _TOKEN_SECONDS
    _found: Any = field(default=None, init=False, repr=False)
    _stale: bool = field(default=False, init=False)
    _since: float = field(default_factory=time.monotonic, init=False)
    _task: asyncio.Task[dict[str, str]] | None = field(default=None, init=False, repr=False)

    async def headers(self) -> dict[str, str]:
        """Return the headers of an authenticated call; raises `CaUnavailableError`."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(asyncio.to_thread(self._fetch))
            self._task.add_done_callback(_retrieved)
        task = self._task
        await asyncio.wait({task}, timeout=self.timeout)
        if not task.done():
            raise CaUnavailableError(f"no Google token within {self.timeout:.0f} s")
        return dict(task.result())

    def forget(self) -> None:
        """Obtain another token before the next call, unless this one is new."""
        self._stale = time.monotonic() - self._since > _NEW_SECONDS

    def _fetch(self) -> dict[str, str]:
        transport = partial(_send, import_module("google.auth.exceptions").TransportError)
        headers: dict[str, str] = {}
        try:
            if self._found is None:
                self._found = self._load(transport)
            if self._stale:
                self._stale, self._since = False, time.monotonic()
                self._found.refresh(transport)
            self._found.before_request(transport, "POST", "", headers)
        except Exception as error:  # noqa: BLE001 - of files, metadata servers or token endpoints
            raise CaUnavailableError(_no_token(error)) from None
        return headers

    def _load(self, transport: Any) -> Any:
        if self.account is not None:
            kind = import_module("google.oauth2.service_account").Credentials
            return kind.from_service_account_info(self.account, scopes=[_SCOPE])
        return import_module("google.auth").default(scopes=[_SCOPE], request=transport)[0]


@dataclass(frozen=True)
class _Response:
    """An answer as google-auth reads it."""

    status: int
    headers: Mapping[str, str]
    data: bytes


def _send(
    failure: type[Exception],
    url: str,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float | None = None,
    **_: Any,
) -> _Response:
    """Send a request of google-auth; raises `failure` if there is no answer."""
    try:
        with httpx.Client(
            verify=ssl.create_default_context(),
            timeout=min(timeout or _TOKEN_SECONDS, _TOKEN_SECONDS),
            trust_env=False,
        ) as client:
            sent = client.request(method, url, content=body, headers=dict(headers or {}))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise failure(type(error).__name__) from None
    return _Response(sent.status_code, sent.headers, sent.content)


def _no_token(error: Exception) -> str:
    """Return why no token was obtained; of what the token endpoint says, only its error code."""
    name = type(error).__name__
    if name == "DefaultCredentialsError":
        return "there are no usable Google credentials: set credentials_path, or give the host one"
    code = str(error.args[0]).partition(":")[0] if error.args else ""
    detail = f"{name} {code}" if _ERROR_CODE.fullmatch(code) else name
    return f"the Google credentials give no token: {detail}"


def _retrieved(task: asyncio.Task[dict[str, str]]) -> None:
    """Read the outcome, which nobody may be waiting for any more."""
    if not task.cancelled():
        task.exception()


def google_credentials(
    configuration: Configuration, name: str, path: Path | None, timeout: float
) -> GoogleCredentials:
    """Return the credentials of an issuer; raises `SettingsError`. `timeout` is in seconds.

    `path` is the key of a service account; None stands for Application Default Credentials.
    """
    try:
        import_module("google.auth")
        import_module("google.oauth2.service_account")
    except ImportError:
        raise SettingsError(
            f'issuers.{name}: google-cas needs google-auth: pip install "scepstream[google]"'
        ) from None
    account = _account(configuration.path(path)) if path is not None else None
    return GoogleCredentials(account, min(_TOKEN_SECONDS, timeout))


def _account(path: Path) -> dict[str, Any]:
    """Return the key of a service account; raises `SettingsError` without quoting the file."""
    content = read_secret_file(path)
    kind = import_module("google.oauth2.service_account").Credentials
    try:
        found = msgspec.json.decode(content, type=dict[str, Any])
        kind.from_service_account_info(found, scopes=[_SCOPE])
    except Exception:  # noqa: BLE001 - of msgspec, google-auth and cryptography; may quote the key
        raise SettingsError(f"{path}: not the JSON key of a service account") from None
    return found
