"""A URL that a service posts JSON to: an operator's own service, signed for and bounded."""

import asyncio
import hashlib
import hmac
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from shared.config.keys import read_certificates
from shared.config.load import SettingsError, read_file, read_secret_file
from shared.config.sections import Configuration

SIGNATURE: Final = "Scepstream-Signature"
TIMESTAMP: Final = "Scepstream-Timestamp"
_MAX_ANSWER: Final = 64 * 1024


class AnswerTooLongError(Exception):
    """Raised for an answer that is longer than any yes or no needs to be."""


# What `Endpoint.post` raises if the other side does not answer as it should.
POST_ERRORS: Final = (
    httpx.HTTPError,
    httpx.InvalidURL,
    AnswerTooLongError,
    ValueError,
    OSError,
)


@dataclass(frozen=True)
class Endpoint:
    """Where to post, and how to authenticate: HMAC key, bearer token, client certificate.

    `tls` is None for plain HTTP, which the settings allow on loopback only; `timeout` in seconds.
    """

    url: str
    timeout: float
    secret: bytes = field(default=b"", repr=False)
    bearer: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None

    async def post(self, body: Mapping[str, Any], now: int) -> tuple[int, bytes]:
        """Post a body with the time `now` (Unix seconds); return (status, content).

        Follows no redirects and uses no proxy from the environment. Raises `httpx.HTTPError`,
        `TimeoutError` or `AnswerTooLongError`.
        """
        content = msgspec.json.encode(body)
        async with asyncio.timeout(self.timeout), self._client() as client:
            headers = self.headers(content, now)
            request = client.build_request("POST", self.url, content=content, headers=headers)
            response = await client.send(request, stream=True)
            try:
                return response.status_code, await _bounded(response)
            finally:
                await response.aclose()

    def headers(self, content: bytes, now: int) -> dict[str, str]:
        """Return the headers for a body.

        These are content type, time and, if configured, bearer token and HMAC-SHA256 of
        "<time>.<body>".
        """
        found = {"content-type": "application/json", TIMESTAMP: str(now)}
        if self.secret:
            mac = hmac.new(self.secret, f"{now}.".encode() + content, hashlib.sha256)
            found[SIGNATURE] = f"sha256={mac.hexdigest()}"
        if self.bearer:
            found["authorization"] = f"Bearer {self.bearer}"
        return found

    def _client(self) -> httpx.AsyncClient:
        # Without `tls` it is plain HTTP on loopback, where there is nothing to verify.
        verify = self.tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return httpx.AsyncClient(verify=verify, trust_env=False, timeout=self.timeout)


async def _bounded(response: httpx.Response) -> bytes:
    content = b""
    async for part in response.aiter_bytes():
        content += part
        if len(content) > _MAX_ANSWER:
            raise AnswerTooLongError
    return content


def client_tls(
    configuration: Configuration,
    ca: Path | None,
    cert: Path | None = None,
    key: Path | None = None,
) -> ssl.SSLContext:
    """Return a context: TLS 1.2 or newer, server name checked, client certificate if configured.

    Without `ca` the system's CAs are trusted. Raises `SettingsError`.
    """
    roots = None
    if ca is not None:
        read_certificates(configuration.path(ca))  # an empty file would mean the system's roots
        roots = read_file(configuration.path(ca)).decode("ascii", "replace")
    try:
        context = ssl.create_default_context(cadata=roots)
    except (ValueError, ssl.SSLError):
        raise SettingsError(f"{ca}: no PEM certificate") from None
    if cert is not None and key is not None:
        key_path = configuration.path(key)
        read_secret_file(key_path)
        try:
            context.load_cert_chain(configuration.path(cert), key_path, password="")
        except (OSError, ssl.SSLError):
            raise SettingsError(f"{cert}: no certificate matches the key {key}") from None
    return context
