"""The HTTP application: routes, limits, status codes and exact content types (RFC 8894 s4)."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from services.gateway import refusals
from services.gateway.admission import Admission
from services.gateway.caching import caching_headers, is_unchanged
from services.gateway.early import read_target
from services.gateway.enroll import Enroller, UnanswerableError
from services.gateway.next_ca import NextCa
from services.gateway.ocsp import OCSP_RESPONSE, Statuses
from services.gateway.refusals import Refusal, RefusedError
from services.gateway.routes import (
    CrlTarget,
    Target,
    crl_of,
    decode_base64,
    decode_message,
    ocsp_of,
    operation_of,
    query_values,
    target_of,
)
from services.gateway.settings import Profile, Settings
from services.gateway.tls import is_client_of, read_client_cert
from services.gateway.user_agents import family
from shared.bus.core import Bus, BusUnavailableError
from shared.ca.chains import Chain, ChainBook
from shared.ca.partitions import find_partition
from shared.config.addresses import client_address
from shared.config.pkcs11 import TokenUnavailableError
from shared.limits import OCSP_REQUEST_BYTES
from shared.observe.logs import log_failure
from shared.observe.metrics import HANDLING, REQUESTS, operations_routes
from shared.observe.tracing import annotate, span
from shared.runtime.edge import CLIENT, CLIENT_CERTIFICATE, Client
from shared.runtime.live import Live
from shared.scep.cacaps import Capabilities, write_caps
from shared.scep.cacert import NEXT_CERTIFICATES, write_ca_certs

_PKI_MESSAGE: Final = "application/x-pki-message"
_PKIX_CRL: Final = "application/pkix-crl"
_METHODS: Final = frozenset({"GET", "HEAD", "POST"})


def _typed(content_type: str, body: bytes) -> Response:
    return Response(body, 200, {"content-type": content_type})


@dataclass
class Gateway:
    """The HTTP side of the gateway."""

    bus: Bus
    live: Live[Settings]
    chains: ChainBook
    enroller: Enroller
    clock: Callable[[], float]
    admission: Admission = field(default_factory=lambda: Admission(time.monotonic))
    next_ca: NextCa = field(default_factory=NextCa)

    def __post_init__(self) -> None:
        self.statuses = Statuses(self.bus, self.live, self.chains, self.clock, time.monotonic)

    def ready(self) -> str:
        """Return what is still missing before requests can be served, "" if nothing."""
        missing = self.bus.problems()
        return ", ".join(missing + [f"CA chain of {name}" for name in self.chains.missing()])

    def is_busy(self) -> bool:
        """Return whether the gateway is overloaded, so that `refuse` must be asked."""
        return self.admission.is_overloaded()

    def refuse(self, received: bytes) -> bytes | None:
        """Return a 503 for a complete PKIOperation that cannot be admitted, without an HTTP parser.

        `received` is everything that a new connection has sent so far. Return None if the request
        must be handled normally.
        """
        target = read_target(received, self.live.current.default_profile)
        profile = self.live.current.profiles.get(target.profile or "") if target else None
        if target is None or target.mtls or profile is None:
            return None
        if not self.admission.is_full(self.live.current.limits, profile.name):
            return None
        refusal = refusals.OVERLOAD
        self.enroller.refusals.add(profile.name, refusal.reason, status=refusal.status)
        REQUESTS.labels(profile.name, "PKIOperation", str(refusal.status)).inc()
        return refusal.closing()

    def is_proxy(self, peer: str) -> bool:
        """Return whether this address belongs to a trusted proxy."""
        return peer in self.live.current.trusted_proxies

    def app(self) -> ASGIApp:
        """Return the ASGI application: the health routes; every other path is SCEP.

        It uses no web framework, so nothing redirects and refusals are cheap.
        """
        health = {route.path: route for route in operations_routes(self.ready)}

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if route := health.get(scope["path"]):
                await route.handle(scope, receive, send)
                return
            request = Request(scope, receive)
            response = await self.serve(request)
            await response(scope, receive, send)

        return app

    async def serve(self, request: Request) -> Response:
        """Answer one SCEP request. Every error becomes a status code and a one-line message."""
        query = query_values(request.scope["query_string"])
        operation = operation_of(query)
        target = target_of(request.scope["path"], self.live.current.default_profile)
        profile = self.live.current.profiles.get(target.profile or "")
        known = profile.name if profile else ""
        crl, ocsp = crl_of(request.scope["path"]), ocsp_of(request.scope["path"])
        try:
            if crl is not None:
                response = await self._crl(request, crl)
            elif ocsp is not None:
                response = await self._ocsp(request, *ocsp)
            else:
                self._admit(profile, request, mtls=target.mtls)
                response = await self._checked(target, operation, query, request)
        except asyncio.CancelledError:
            if not _client(request).gone:
                raise
            _uncancel()
            response = self._refused(known, refusals.CLIENT_GONE)
        except RefusedError as error:
            response = self._refused(known, error.refusal)
        except Exception as error:  # noqa: BLE001 - a bug is a 500 without details
            response = _failed(known, error)
        label = "crl" if crl is not None else "ocsp" if ocsp is not None else operation or ""
        REQUESTS.labels(known, label, str(response.status_code)).inc()
        return response

    def _refused(self, profile: str, refusal: Refusal) -> Response:
        """Count and log a refusal and return its response."""
        self.enroller.refusals.add(profile, refusal.reason, status=refusal.status)
        return refusal.response()

    def _admit(self, profile: Profile | None, request: Request, *, mtls: bool) -> None:
        """Raise `RefusedError` for a wrong method or, on the mTLS path, an untrusted client.

        The mTLS path (`/scep-mtls/<profile>`) requires a client certificate from a CA of the
        profile's bundle. The mTLS listener serves SCEP only on these paths.
        """
        if request.method not in _METHODS:
            raise RefusedError(refusals.METHOD)
        if not mtls and CLIENT_CERTIFICATE in request.scope:
            raise RefusedError(refusals.NO_PROFILE)
        if profile is None or not mtls:
            return
        if not profile.mtls_bundle:
            raise RefusedError(refusals.NO_PROFILE)
        certificate = request.scope.get(CLIENT_CERTIFICATE) or self._forwarded_certificate(request)
        if certificate is None or not is_client_of(certificate, profile.mtls_bundle, self.clock()):
            raise RefusedError(refusals.NO_CLIENT)

    def _forwarded_certificate(self, request: Request) -> bytes | None:
        """Return the Client-Cert certificate (DER) of a trusted proxy; refuse a repeated header."""
        peer = request.client.host if request.client else ""
        if peer not in self.live.current.trusted_proxies:
            return None
        headers = request.headers.getlist("client-cert")
        if len(headers) > 1:
            raise RefusedError(refusals.TWO_CLIENTS)
        return read_client_cert(headers[0]) if headers else None

    async def _crl(self, request: Request, target: CrlTarget) -> Response:
        """Return the CRL of an issuer's current CA, or of the CA and partition that it names."""
        if request.method not in _METHODS:
            raise RefusedError(refusals.METHOD)
        issuer, pin, name = target
        chains = [self.chains.get(*w) for w in self.live.current.chains() if w[0] == issuer]
        found = (chain.ca_pinned(pin) for chain in chains if chain is not None)
        ca = next((der for der in found if der is not None), None)
        partition = find_partition(self.live.current.partitionings, issuer, name)
        if ca is None or (name and partition is None):
            raise RefusedError(refusals.NO_CRL)
        crl = await self.enroller.lookups.crl_of(issuer, ca, partition)
        head = crl.head
        headers = caching_headers(head.this_update, head.next_update, head.sha256, self.clock())
        if is_unchanged(request.headers, headers):
            return Response(None, 304, headers)
        return Response(crl.der, 200, {"content-type": _PKIX_CRL, **headers})

    async def _ocsp(self, request: Request, issuer: str, encoded: str) -> Response:
        """Return the OCSP response about a certificate of an issuer (RFC 6960 appendix A.1)."""
        if request.method == "POST":
            asked = await _body(request, OCSP_REQUEST_BYTES)
        elif request.method in _METHODS:
            asked = decode_base64(encoded.encode("utf-8", "replace")) or b""
        else:
            raise RefusedError(refusals.METHOD)
        if all(issuer != name for name, _ in self.live.current.chains()):
            raise RefusedError(refusals.NO_OCSP)
        reply = await self.statuses.answer(issuer, asked)
        if "etag" in reply.headers and is_unchanged(request.headers, reply.headers):
            return Response(None, 304, dict(reply.headers))
        return Response(reply.body, 200, {"content-type": OCSP_RESPONSE, **reply.headers})

    async def _checked(
        self,
        target: Target,
        operation: str | None,
        query: dict[bytes, bytes],
        request: Request,
    ) -> Response:
        """Answer an operation; refuse an unknown operation or a profile that is not served."""
        profile = self.live.current.profiles.get(target.profile or "")
        if profile is None:
            is_left_out = target.profile in self.live.current.left_out
            raise RefusedError(refusals.LEFT_OUT if is_left_out else refusals.NO_PROFILE)
        if operation is None:
            raise RefusedError(refusals.NO_OPERATION)
        return await self._operate(profile, operation, query, request)

    async def _operate(
        self,
        profile: Profile,
        operation: str,
        query: dict[bytes, bytes],
        request: Request,
    ) -> Response:
        if operation == "GetCACaps":
            return _typed("text/plain", write_caps(self._capabilities(profile)))
        chain = self.chains.get(profile.issuer, profile.ca_spki_sha256)
        if chain is None:
            raise RefusedError(refusals.NO_CHAIN)
        if operation == "GetNextCACert":
            if not chain.next_signed:
                raise RefusedError(refusals.NO_NEXT_CA)
            ra = profile.ra.under(chain.der[0])
            return _typed(NEXT_CERTIFICATES, self.next_ca.answer(ra, chain))
        if operation == "GetCACert":
            return _typed(*write_ca_certs(_advertised(profile, chain)))
        return await self._pki_operation(profile, chain, query, request)

    async def _pki_operation(
        self, profile: Profile, chain: Chain, query: dict[bytes, bytes], request: Request
    ) -> Response:
        """Answer a PKIOperation. It is admitted only after the whole message has arrived."""
        limits, address = self.live.current.limits, self._address(request)
        self.admission.check(limits, profile.name, address)
        message = await self._message(profile, query, request)
        if not message:
            raise RefusedError(refusals.EMPTY)
        name = family(request.headers.get("user-agent", ""))
        async with self.admission.place(limits, profile.name, address, _client(request)):
            with span("gateway PKIOperation", "server"), HANDLING.labels("gateway").time():
                annotate(profile=profile.name, client=name)
                body = await self.enroller.answer(profile, chain, message, address, name)
        return _typed(_PKI_MESSAGE, body)

    def _capabilities(self, profile: Profile) -> Capabilities:
        chain = self.chains.get(profile.issuer, profile.ca_spki_sha256)
        next_ca = chain is not None and bool(chain.next_signed)
        return Capabilities(profile.legacy, profile.renewal, next_ca)

    async def _message(
        self, profile: Profile, query: dict[bytes, bytes], request: Request
    ) -> bytes | None:
        """Return the pkiMessage: a POST's body of any Content-Type, or a GET's parameter."""
        if request.method == "HEAD":
            raise RefusedError(refusals.HEAD)
        limit = min(self.live.current.limits.body, profile.message_limit)
        if request.method == "GET":
            message = decode_message(query.get(b"message", b""))
            if message is not None and len(message) > limit:
                raise RefusedError(refusals.TOO_LARGE)
            return message
        return await _body(request, limit)

    def _address(self, request: Request) -> str:
        """Return the client's address. X-Forwarded-For counts only from a trusted proxy."""
        peer = request.client.host if request.client else ""
        forwarded = request.headers.getlist("x-forwarded-for")
        return client_address(peer, forwarded, self.live.current.trusted_proxies)


async def _body(request: Request, limit: int) -> bytes:
    """Return a request's body; refuse one of more than `limit` bytes."""
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > limit:
        raise RefusedError(refusals.TOO_LARGE)
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise RefusedError(refusals.TOO_LARGE)
    except ClientDisconnect:
        raise RefusedError(refusals.BROKEN_OFF) from None
    return bytes(body)


def _advertised(profile: Profile, chain: Chain) -> list[bytes]:
    """Return the RA certificates and the issuing CA, plus the CAs above it with `include_chain`."""
    above = chain.der if profile.include_chain else chain.der[:1]
    return [*profile.ra.under(chain.der[0]).certificates, *above]


def _client(request: Request) -> Client:
    """Return the connection's client, or under another HTTP server one that never disconnects."""
    client = request.scope.get(CLIENT)
    return client if isinstance(client, Client) else Client()


def _failed(profile: str, error: Exception) -> Response:
    """Return the response to an exception; log it unless it is the client's or the bus's fault."""
    if isinstance(error, UnanswerableError):
        return refusals.text(400, "not a SCEP message\n")
    if isinstance(error, BusUnavailableError):
        return refusals.NO_BUS.response()
    if isinstance(error, TokenUnavailableError):
        log_failure("token_unavailable", error, profile=profile)
        return refusals.NO_TOKEN.response()
    log_failure("request_failed", error, profile=profile)
    return refusals.text(500, "internal error\n")


def _uncancel() -> None:
    """Clear a cancellation that was meant only for the work, so that this task can respond."""
    task = asyncio.current_task()
    assert task is not None
    task.uncancel()
