"""SCEP over HTTP: routes, limits, status codes, literal content types (RFC 8894 s4)."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog
from fastapi import FastAPI, Request, Response
from starlette.requests import ClientDisconnect

from services.gateway.enroll import Enroller, UnanswerableError
from services.gateway.families import family
from services.gateway.routes import crl_of, decode_message, operation_of, query_values, target_of
from services.gateway.settings import Profile, Settings
from services.gateway.tls import is_client_of, read_client_cert
from shared.addresses import client_address
from shared.bus.core import Bus, BusUnavailableError
from shared.chains import Chain, ChainBook
from shared.edge import CLIENT_CERTIFICATE
from shared.process import log_failure
from shared.scep.cacaps import Capabilities, write_caps
from shared.scep.cacert import NEXT_CERTIFICATES, write_ca_certs
from shared.telemetry import HANDLING, IN_FLIGHT, REFUSED, REQUESTS, operations_routes
from shared.tokens import TokenUnavailableError
from shared.tracing import annotate, span

_log = structlog.get_logger()

_PKI_MESSAGE: Final = "application/x-pki-message"
_PKIX_CRL: Final = "application/pkix-crl"


def _text(status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    """A sentence as bare text/plain: clients compare it literally, without a charset."""
    return Response(sentence.encode(), status, {"content-type": "text/plain", **(headers or {})})


def _typed(content_type: str, body: bytes) -> Response:
    return Response(body, 200, {"content-type": content_type})


@dataclass(frozen=True, slots=True)
class Refusal:
    """The HTTP answer to what is no request for the log; `reason` is counted."""

    status: int
    reason: str
    sentence: str
    headers: tuple[tuple[str, str], ...] = ()

    def response(self) -> Response:
        """A sentence and nothing else: neither what was sent nor what went wrong inside."""
        return _text(self.status, f"{self.sentence}\n", dict(self.headers))


class RefusedError(Exception):
    """Raised to leave with a refusal."""

    def __init__(self, refusal: Refusal) -> None:
        """Carry the answer."""
        super().__init__(refusal.sentence)
        self.refusal = refusal


_RETRY: Final = (("retry-after", "5"),)
_CLOSE: Final = (("connection", "close"),)
_NO_PROFILE: Final = Refusal(404, "no_profile", "no such SCEP profile")
_LEFT_OUT: Final = Refusal(503, "profile_left_out", "this SCEP profile is not served now", _RETRY)
_NO_OPERATION: Final = Refusal(400, "no_operation", "unknown or missing operation")
_NO_CRL: Final = Refusal(404, "no_crl", "no such CRL")
_NO_CLIENT: Final = Refusal(401, "no_client_certificate", "a client certificate is needed here")
_TWO_CLIENTS: Final = Refusal(
    400, "repeated_client_cert", "the Client-Cert header is repeated: the proxy must replace it"
)
_HEAD: Final = Refusal(405, "head", "send PKIOperation by GET or POST", (("allow", "GET, POST"),))
_NO_NEXT_CA: Final = Refusal(404, "no_next_ca", "no next CA certificate")
_EMPTY: Final = Refusal(400, "empty_message", "empty message")
_TOO_LARGE: Final = Refusal(413, "too_large", "message too large", _CLOSE)
_BROKEN_OFF: Final = Refusal(400, "broken_off", "the upload broke off", _CLOSE)
_OVERLOAD: Final = Refusal(503, "overload", "too many requests in flight", _RETRY)
_NO_CHAIN: Final = Refusal(503, "no_ca_chain", "the CA chain was not read yet", _RETRY)
_NO_BUS: Final = Refusal(503, "no_bus", "the event log is not reachable", _RETRY)
_NO_TOKEN: Final = Refusal(503, "no_token", "the RA's key is not reachable", _RETRY)


@dataclass
class Gateway:
    """The HTTP side of the gateway."""

    bus: Bus
    settings: Settings
    chains: ChainBook
    enroller: Enroller
    clock: Callable[[], float]
    _in_flight: "Counter[str]" = field(default_factory=Counter)

    def ready(self) -> str:
        """What is missing before requests can be served."""
        missing = self.bus.problems()
        return ", ".join(missing + [f"CA chain of {name}" for name in self.chains.missing()])

    def is_proxy(self, peer: str) -> bool:
        """Return whether this address is a trusted proxy's."""
        return peer in self.settings.trusted_proxies

    def app(self) -> FastAPI:
        """The ASGI application: health, and everything else is SCEP."""
        app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
        app.router.routes.extend(operations_routes(self.ready))
        # A plain route: no parameter of a SCEP request is FastAPI's to parse.
        app.add_route("/{path:path}", self.serve, methods=["GET", "HEAD", "POST"])
        return app

    async def serve(self, request: Request) -> Response:
        """One SCEP request; whatever goes wrong, the client learns a status and a sentence."""
        query = query_values(request.scope["query_string"])
        target = target_of(request.scope["path"], self.settings.default_profile)
        profile = self.settings.profiles.get(target.profile or "")
        operation = operation_of(query)
        known = profile.name if profile else ""
        try:
            if crl := crl_of(request.scope["path"]):
                operation, response = "crl", await self._crl(*crl)
            else:
                self._admit(profile, request, mtls=target.mtls)
                response = await self._checked(profile, operation, query, request)
        except RefusedError as refused:
            refusal = refused.refusal
            REFUSED.labels(known, refusal.reason).inc()
            _log.info("refused", profile=known, reason=refusal.reason, status=refusal.status)
            response = refusal.response()
        except BusUnavailableError:
            response = _NO_BUS.response()
        except TokenUnavailableError as error:
            log_failure("token_away", error, profile=known)
            response = _NO_TOKEN.response()
        except UnanswerableError:
            response = _text(400, "not a SCEP message\n")
        except Exception as error:  # noqa: BLE001 - a bug is a 500 without a word of detail
            log_failure("request_failed", error, profile=known)
            response = _text(500, "internal error\n")
        REQUESTS.labels(known, operation or "", str(response.status_code)).inc()
        return response

    def _admit(self, profile: Profile | None, request: Request, *, mtls: bool) -> None:
        """By the mTLS sibling only a client of this very profile's CAs comes in.

        The listener that asks for client certificates serves nothing else.
        """
        if not mtls and CLIENT_CERTIFICATE in request.scope:
            raise RefusedError(_NO_PROFILE)
        if profile is None or not mtls:
            return
        if not profile.mtls_bundle:
            raise RefusedError(_NO_PROFILE)
        certificate = request.scope.get(CLIENT_CERTIFICATE) or self._forwarded_certificate(request)
        if certificate is None or not is_client_of(certificate, profile.mtls_bundle, self.clock()):
            raise RefusedError(_NO_CLIENT)

    def _forwarded_certificate(self, request: Request) -> bytes | None:
        """Return the certificate a trusted proxy names; which of two counts is not guessed."""
        peer = request.client.host if request.client else ""
        if peer not in self.settings.trusted_proxies:
            return None
        headers = request.headers.getlist("client-cert")
        if len(headers) > 1:
            raise RefusedError(_TWO_CLIENTS)
        return read_client_cert(headers[0]) if headers else None

    async def _crl(self, issuer: str, pin: str) -> Response:
        """The CRL of an issuer's current CA, or of the one with this key."""
        chains = [self.chains.get(*w) for w in self.settings.chains() if w[0] == issuer]
        found = (chain.ca_pinned(pin) for chain in chains if chain is not None)
        ca = next((der for der in found if der is not None), None)
        if ca is None:
            raise RefusedError(_NO_CRL)
        return _typed(_PKIX_CRL, await self.enroller.lookups.crl_of(issuer, ca))

    async def _checked(
        self,
        profile: Profile | None,
        operation: str | None,
        query: dict[bytes, bytes],
        request: Request,
    ) -> Response:
        """Within the limits on what may be in flight."""
        if profile is None:
            left_out = target_of(request.scope["path"], self.settings.default_profile).profile
            raise RefusedError(_LEFT_OUT if left_out in self.settings.left_out else _NO_PROFILE)
        if operation is None:
            raise RefusedError(_NO_OPERATION)
        address = self._address(request)
        limits = self.settings.limits
        if (
            self._in_flight.total() >= limits.in_flight
            or self._in_flight[address] >= limits.in_flight_per_source
        ):
            raise RefusedError(_OVERLOAD)
        self._in_flight[address] += 1
        try:
            with IN_FLIGHT.labels("gateway").track_inprogress():
                return await self._operate(profile, operation, query, request, address)
        finally:
            self._in_flight[address] -= 1
            if not self._in_flight[address]:
                del self._in_flight[address]

    async def _operate(
        self,
        profile: Profile,
        operation: str,
        query: dict[bytes, bytes],
        request: Request,
        address: str,
    ) -> Response:
        if operation == "GetCACaps":
            return _typed("text/plain", write_caps(self._capabilities(profile)))
        chain = self.chains.get(profile.issuer, profile.ca_spki_sha256)
        if chain is None:
            raise RefusedError(_NO_CHAIN)
        if operation == "GetNextCACert":
            if not chain.next_signed:
                raise RefusedError(_NO_NEXT_CA)
            return _typed(NEXT_CERTIFICATES, chain.next_signed)
        if operation == "GetCACert":
            return _typed(*write_ca_certs(_advertised(profile, chain)))
        message = await self._message(query, request)
        if not message:
            raise RefusedError(_EMPTY)
        client = family(request.headers.get("user-agent", ""))
        with span("gateway PKIOperation", "server"), HANDLING.labels("gateway").time():
            annotate(profile=profile.name, client=client)
            body = await self.enroller.answer(profile, chain, message, address, client)
        return _typed(_PKI_MESSAGE, body)

    def _capabilities(self, profile: Profile) -> Capabilities:
        chain = self.chains.get(profile.issuer, profile.ca_spki_sha256)
        next_ca = chain is not None and bool(chain.next_signed)
        return Capabilities(profile.legacy, profile.renewal, next_ca)

    async def _message(self, query: dict[bytes, bytes], request: Request) -> bytes | None:
        """The pkiMessage: a POST's raw body whatever its type says, or a GET's parameter."""
        if request.method == "HEAD":
            raise RefusedError(_HEAD)
        if request.method == "GET":
            return decode_message(query.get(b"message", b""))
        limit = self.settings.limits.body
        declared = request.headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > limit:
            raise RefusedError(_TOO_LARGE)
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise RefusedError(_TOO_LARGE)
        except ClientDisconnect:
            raise RefusedError(_BROKEN_OFF) from None
        return bytes(body)

    def _address(self, request: Request) -> str:
        """Return the client's address; a proxy's word for it counts only if it is trusted."""
        peer = request.client.host if request.client else ""
        forwarded = request.headers.getlist("x-forwarded-for")
        return client_address(peer, forwarded, self.settings.trusted_proxies)


def _advertised(profile: Profile, chain: Chain) -> list[bytes]:
    """RA certificates, the issuing CA, and by profile switch what stands above it."""
    above = chain.der if profile.include_chain else chain.der[:1]
    return [*profile.ra.under(chain.der[0]).certificates, *above]
