"""NTLM and Kerberos for HTTP (RFC 4559), bound to the TLS connection (RFC 5929).

Theory of operation. A first call without content and without credentials shows what the server
accepts and, on its TLS connection, its certificate. The hash of that certificate is signed into the
messages that follow (tls-server-end-point), which is what IIS demands with Extended Protection for
Authentication. NTLM authenticates a connection, so all calls of one `Negotiation` have to use the
same one: it belongs to one call of an `HttpClient` of its own.

Only the last call has the content. As long as `sent` is False, the CA has certainly got nothing.
"""

import asyncio
import base64
import binascii
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, cast

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from services.issuer.connectors.connector import CaUnavailableError
from shared.limits import shortened
from shared.text.printable import visible

if TYPE_CHECKING:
    from spnego.channel_bindings import GssChannelBindings

_T = TypeVar("_T")
_MOST_LEGS: Final = 4
_MAX_PAGE: Final = 64 * 1024
_UNAUTHORIZED: Final = 401
_CONTENT_HEADERS: Final = ("content-length", "content-type", "transfer-encoding")
_REASON: Final = 300


class SecurityContext(Protocol):
    """One login, as `spnego` has it; both parts may block."""

    @property
    def complete(self) -> bool:
        """Whether the client has nothing more to say."""

    def step(self, in_token: bytes | None = None) -> bytes | None:
        """Return the client's next message, in answer to one of the server."""


# Called with the data of the channel binding, b"" without TLS.
Login = Callable[[bytes], SecurityContext]


@dataclass
class Negotiation(httpx.Auth):
    """Logs in for one call; `schemes` are accepted in this order, `seconds` is for each step.

    `sent` says whether the content of the call was passed on.
    """

    schemes: tuple[str, ...]
    login: Login = field(repr=False)
    seconds: float
    sent: bool = field(default=False, init=False)

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """See `httpx.Auth`; raises `CaUnavailableError` if the login fails."""
        response = yield _bare(request)
        if response.status_code != _UNAUTHORIZED:
            return
        scheme = self._scheme(response)
        bound = channel_binding(_certificate(response))
        context = await self._blocking(lambda: self.login(bound))
        token = await self._blocking(context.step)
        for _ in range(_MOST_LEGS):
            if context.complete:
                break
            _limit(response)
            response = yield _bare(request, _header(scheme, token))
            challenge = _challenge(response, scheme)
            token = await self._blocking(partial(context.step, challenge))
        else:
            raise CaUnavailableError("the login does not come to an end")
        _limit(response)
        self.sent = True
        request.headers["authorization"] = _header(scheme, token)
        yield request

    def _scheme(self, response: httpx.Response) -> str:
        offered = {
            value.strip().split(" ", 1)[0].lower()
            for value in response.headers.get_list("www-authenticate", split_commas=True)
        }
        found = next((each for each in self.schemes if each.lower() in offered), "")
        if not found:
            raise CaUnavailableError(
                f"the server does not offer {' or '.join(self.schemes)}: "
                "enable it in IIS, or choose another auth"
            )
        return found

    async def _blocking(self, work: Callable[[], _T]) -> _T:
        """Run a step of the login in a thread, for a bounded time."""
        try:
            async with asyncio.timeout(self.seconds):
                return await asyncio.to_thread(work)
        except TimeoutError:
            raise CaUnavailableError("the login took too long: is the KDC reachable?") from None
        except Exception as error:  # noqa: BLE001 - a package's errors, of several libraries
            words = shortened(" ".join(visible(str(error)).split())[:_REASON])
            raise CaUnavailableError(f"the login failed: {words}") from None


def channel_binding(certificate: bytes) -> bytes:
    """Return tls-server-end-point of a server's certificate (DER), b"" without one.

    The hash is that of the certificate's signature, SHA-256 for MD5 and SHA-1 (RFC 5929 4.1).
    """
    if not certificate:
        return b""
    found = x509.load_der_x509_certificate(certificate).signature_hash_algorithm
    if found is None or isinstance(found, hashes.MD5 | hashes.SHA1):
        found = hashes.SHA256()
    digest = hashes.Hash(found)
    digest.update(certificate)
    return b"tls-server-end-point:" + digest.finalize()


def ntlm_login(user: str, password: str, host: str) -> Login:
    """Return logins with NTLMv2, which need the package `pyspnego`."""
    import spnego  # noqa: PLC0415 - an extra

    def login(bound: bytes) -> SecurityContext:
        return cast(
            "SecurityContext",
            spnego.client(
                user,
                password,
                hostname=host,
                service="http",
                channel_bindings=_bindings(bound),
                protocol="ntlm",
                options=spnego.NegotiateOptions.use_ntlm,
            ),
        )

    return login


def kerberos_login(user: str | None, password: str | None, host: str) -> Login:
    """Return logins with a ticket for HTTP/host: with a password, or from the ticket cache.

    They need `pyspnego[kerberos]`. The TLS certificate proves the server, so its answer to the
    ticket is not awaited, and one message completes the login.
    """
    import spnego  # noqa: PLC0415 - an extra

    def login(bound: bytes) -> SecurityContext:
        return cast(
            "SecurityContext",
            spnego.client(
                user,
                password,
                hostname=host,
                service="HTTP",
                channel_bindings=_bindings(bound),
                context_req=spnego.ContextReq.integrity,
                protocol="kerberos",
            ),
        )

    return login


def _bindings(bound: bytes) -> "GssChannelBindings | None":
    from spnego.channel_bindings import GssChannelBindings  # noqa: PLC0415 - an extra

    return GssChannelBindings(application_data=bound) if bound else None


def _bare(request: httpx.Request, authorization: str = "") -> httpx.Request:
    """Return the same call without its content."""
    headers = request.headers.copy()
    for name in _CONTENT_HEADERS:
        headers.pop(name, None)
    if authorization:
        headers["authorization"] = authorization
    return httpx.Request(
        request.method, request.url, headers=headers, extensions=request.extensions
    )


def _header(scheme: str, token: object) -> str:
    if not isinstance(token, bytes) or not token:
        raise CaUnavailableError("the login gave no message for the server")
    return f"{scheme} {base64.b64encode(token).decode('ascii')}"


def _challenge(response: httpx.Response, scheme: str) -> bytes:
    """Return the server's message to the client; raises `CaUnavailableError` without one."""
    for value in response.headers.get_list("www-authenticate", split_commas=True):
        name, _, text = value.strip().partition(" ")
        if response.status_code == _UNAUTHORIZED and name.lower() == scheme.lower() and text:
            try:
                return base64.b64decode(text.strip(), validate=True)
            except (ValueError, binascii.Error):
                break
    raise CaUnavailableError(f"the server does not continue the login with {scheme}")


def _certificate(response: httpx.Response) -> bytes:
    """Return the server's certificate (DER) on the connection of an answer, b"" without TLS."""
    stream = response.extensions.get("network_stream")
    found = stream.get_extra_info("ssl_object") if stream is not None else None
    if not isinstance(found, ssl.SSLObject | ssl.SSLSocket):
        return b""
    return found.getpeercert(binary_form=True) or b""


def _limit(response: httpx.Response) -> None:
    """Bound the content of an answer that is read only to keep its connection."""
    assert isinstance(response.stream, httpx.AsyncByteStream)
    response.stream = _Bounded(response.stream)


@dataclass
class _Bounded(httpx.AsyncByteStream):
    inner: httpx.AsyncByteStream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        length = 0
        async for part in self.inner:
            length += len(part)
            if length > _MAX_PAGE:
                raise CaUnavailableError("the server's answer to the login is too long")
            yield part

    async def aclose(self) -> None:
        await self.inner.aclose()
