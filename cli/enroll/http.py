"""SCEP over HTTP, client side."""

import base64
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import httpx

_TIMEOUT: Final = 60.0
_PKI_MESSAGE: Final = "application/x-pki-message"


class UnreachableError(Exception):
    """Raised if the server does not answer, or answers 503."""


class ServerError(Exception):
    """Raised if the server answers with another HTTP error."""


@dataclass(frozen=True)
class Server:
    """A server at a SCEP URL, and how to talk to it.

    `identifier` is the message of GETs other than a PKIOperation, whose base64 leaves the
    characters in `unescaped` as they are.
    """

    url: str
    user_agent: str | None = None
    identifier: str = "scepstream"
    unescaped: str = ""

    def get(self, operation: str) -> tuple[str, bytes]:
        """Return (Content-Type, body) of a GET operation."""
        return self._send("GET", f"operation={operation}&message={self.identifier}", None)

    def pki_operation(self, message: bytes, *, post: bool) -> bytes:
        """Send a pkiMessage by POST or GET and return the CertRep."""
        if post:
            return self._send("POST", "operation=PKIOperation", message)[1]
        parameter = quote(base64.b64encode(message), safe=self.unescaped)
        return self._send("GET", f"operation=PKIOperation&message={parameter}", None)[1]

    def _send(self, method: str, query: str, body: bytes | None) -> tuple[str, bytes]:
        separator = "&" if "?" in self.url else "?"
        headers = {"content-type": _PKI_MESSAGE} if body is not None else {}
        headers |= {"user-agent": self.user_agent} if self.user_agent is not None else {}
        try:
            with httpx.Client(timeout=_TIMEOUT) as client:
                url = f"{self.url}{separator}{query}"
                response = client.request(method, url, content=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UnreachableError(
                f"cannot reach the server: {type(error).__name__}: {error}"
            ) from None
        if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            raise UnreachableError(f"the server is unavailable: 503: {response.text.strip()[:200]}")
        if not response.is_success:
            raise ServerError(f"HTTP {response.status_code}: {response.text.strip()[:200]}")
        return response.headers.get("content-type", ""), response.content
