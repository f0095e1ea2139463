"""HTTP for connectors: bounded answers, no redirects, and whether a failed call did anything.

A call that orders or changes something must not be repeated blindly. `CaUnavailableError` says that
the CA certainly did not act on it: there was no connection, or it answered 401, 403, 429 or 503.
`AnswerLostError` says that it may have.
"""

import re
import ssl
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx
import msgspec

from services.issuer.connectors.connector import AnswerLostError, CaUnavailableError
from shared.limits import shortened
from shared.runtime.process import now
from shared.text.printable import visible

MAX_ANSWER: Final = 4 * 1024 * 1024
_CONNECT_SECONDS: Final = 10.0
_CONNECTIONS: Final = 64
_IDLE_SECONDS: Final = 2.0  # a connection that the CA closes meanwhile would lose an answer
_WORDS: Final = 300
_PEM: Final = re.compile(r"-----BEGIN .*?(-----END [^-]*-----|\Z)", re.DOTALL)
_ENCODED: Final = re.compile(r"[A-Za-z0-9+/_-]{40,}=*")
_REFUSED: Final = {
    401: "the CA does not accept the credentials (401): check them and their expiry",
    403: "the CA does not permit this call (403): check the permissions of the credentials",
    407: "a proxy wants credentials (407)",
    429: "the CA asks for fewer calls (429)",
    503: "the CA is not available (503)",
}
_ALERTS: Final = frozenset(
    {
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "TLSV1_ALERT_UNKNOWN_CA",
        "TLSV1_ALERT_ACCESS_DENIED",
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "SSLV3_ALERT_HANDSHAKE_FAILURE",
    }
)
_DENIED: Final = (401, 403)
_REDIRECTS: Final = range(300, 400)


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer of a CA; the names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004 - HTTP's classes

    def json(self) -> Any:
        """Return the decoded JSON; raises `AnswerLostError` if it is none."""
        try:
            return msgspec.json.decode(self.content)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise AnswerLostError(f"the CA's answer ({self.status}) is not JSON") from None

    def words(self) -> str:
        """Return what the CA says, as one printable line of limited length.

        Long base64 is left out: a CA may repeat the CSR, which contains the device's challenge.
        """
        text = self.content[: 64 * _WORDS].decode("utf-8", "replace")
        text = _ENCODED.sub("...", _PEM.sub("...", text))
        return shortened(" ".join(visible(text).split())[:_WORDS])


@dataclass
class HttpClient:
    """Calls one CA under `base_url`; `tls` is None for plain HTTP, which is for loopback only.

    `timeout` is in seconds, for each call. `headers` go with every call and may hold a secret.
    """

    base_url: str
    timeout: float
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    auth: httpx.Auth | None = field(default=None, repr=False)
    _client: httpx.AsyncClient | None = field(default=None, init=False, repr=False)

    async def call(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        answers: Container[int] = (),
    ) -> Answer:
        """Send one request and return the whole answer; redirects are not followed.

        `answers` are statuses that are answers of this CA, and no failure of the call. Raises
        `CaUnavailableError` and `AnswerLostError`: see the module.
        """
        if json is not None:
            content = msgspec.json.encode(json)
            headers = {"content-type": "application/json", **(headers or {})}
        try:
            request = self._http.build_request(
                method, path, content=content, params=params, headers=headers
            )
            response = await self._http.send(request, stream=True)
            try:
                answer = Answer(response.status_code, dict(response.headers), await _read(response))
            finally:
                await response.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            detail = f"the CA cannot be reached: {_cause(error)}"
            raise CaUnavailableError(detail) from None
        except (httpx.ReadError, httpx.WriteError, ssl.SSLError) as error:
            if alert := _alert(error):
                raise CaUnavailableError(f"the CA refuses the TLS connection: {alert}") from None
            raise AnswerLostError(f"no complete answer: {type(error).__name__}") from None
        except httpx.HTTPError as error:
            raise AnswerLostError(f"no complete answer: {type(error).__name__}") from None
        return answer if answer.status in answers else _checked(answer)

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    @property
    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            # Without `tls` it is plain HTTP on loopback, where there is nothing to verify.
            self._client = httpx.AsyncClient(
                base_url=self.base_url,
                headers=dict(self.headers),
                auth=self.auth,
                verify=self.tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
                timeout=httpx.Timeout(self.timeout, connect=min(_CONNECT_SECONDS, self.timeout)),
                limits=httpx.Limits(max_connections=_CONNECTIONS, keepalive_expiry=_IDLE_SECONDS),
                trust_env=False,
                follow_redirects=False,
            )
        return self._client


async def _read(response: httpx.Response) -> bytes:
    content = bytearray()
    async for part in response.aiter_bytes():
        content += part
        if len(content) > MAX_ANSWER:
            raise AnswerLostError(f"the CA's answer is longer than {MAX_ANSWER} bytes")
    return bytes(content)


def _checked(answer: Answer) -> Answer:
    if said := _REFUSED.get(answer.status):
        denied = answer.status in _DENIED
        raise CaUnavailableError(said, retry_after(answer.headers, now()), denied=denied)
    if answer.status in _REDIRECTS:
        raise CaUnavailableError(
            f"the CA redirects ({answer.status}): configure the URL that it redirects to"
        )
    if answer.status >= 500:  # noqa: PLR2004 - HTTP's classes
        raise AnswerLostError(f"the CA failed ({answer.status}): {answer.words()}")
    return answer


def retry_after(headers: Mapping[str, str], at: float) -> float:
    """Return the seconds of a Retry-After header, 0 without a valid one (RFC 9110 s10.2.3).

    `at` is the time in Unix seconds.
    """
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(min(int(value[:9]), 86400))
    try:
        return min(max(parsedate_to_datetime(value).timestamp() - at, 0.0), 86400.0)
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _alert(error: BaseException) -> str:
    """Return the TLS alert by which a server refuses a client certificate, "" without one.

    With TLS 1.3 it arrives after the handshake, instead of an answer (RFC 8446 s4.4.2.4).
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError) and seen.reason in _ALERTS:
            return (
                seen.reason.removeprefix("TLSV1_").removeprefix("TLSV13_").replace("_", " ").lower()
            )
        seen = seen.__cause__ or seen.__context__
    return ""


def _cause(error: BaseException) -> str:
    """Return what kept a connection from being made, in words without secrets."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return f"its TLS certificate is not trusted: {seen.verify_message}"
        if isinstance(seen, ssl.SSLError):
            return f"TLS failed: {seen.reason or 'handshake'}"
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror
        seen = seen.__cause__ or seen.__context__
    return "timeout" if isinstance(error, httpx.TimeoutException) else "no connection"
