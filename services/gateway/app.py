"""SCEP over HTTP: routes, limits, status codes, literal content types (RFC 8894 s4)."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from fastapi import FastAPI, Request, Response

from services.gateway.enroll import Enroller, UnanswerableError
from services.gateway.routes import decode_message, operation_of, profile_of, query_values
from services.gateway.settings import Profile, Settings
from shared.bus.core import Bus, BusUnavailableError
from shared.chains import Chain, ChainBook
from shared.process import log_failure
from shared.scep.cacaps import write_caps
from shared.scep.cacert import write_ca_certs
from shared.telemetry import IN_FLIGHT, REQUESTS, operations_routes

_PKI_MESSAGE: Final = "application/x-pki-message"
_RETRY_AFTER: Final = "5"


def _text(status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    """A sentence as bare text/plain: clients compare it literally, without a charset."""
    return Response(sentence.encode(), status, {"content-type": "text/plain", **(headers or {})})


def _unavailable(sentence: str) -> Response:
    return _text(503, sentence, {"retry-after": _RETRY_AFTER})


def _typed(content_type: str, body: bytes) -> Response:
    return Response(body, 200, {"content-type": content_type})


class TooLargeError(Exception):
    """Raised for a body over the limit, before the rest of it is read."""


@dataclass
class Gateway:
    """The HTTP side of the gateway."""

    bus: Bus
    settings: Settings
    chains: ChainBook
    enroller: Enroller
    _in_flight: "Counter[str]" = field(default_factory=Counter)

    def ready(self) -> str:
        """What is missing before requests can be served."""
        missing = [] if self.bus.connected else ["bus"]
        return ", ".join(missing + [f"CA chain of {name}" for name in self.chains.missing()])

    def app(self) -> FastAPI:
        """The ASGI application: health, and everything else is SCEP."""
        app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
        app.router.routes.extend(operations_routes(self.ready))
        # A plain route: no parameter of a SCEP request is FastAPI's to parse.
        app.add_route("/{path:path}", self.serve, methods=["GET", "POST"])
        return app

    async def serve(self, request: Request) -> Response:
        """One SCEP request; whatever goes wrong, the client learns a status and a sentence."""
        query = query_values(request.scope["query_string"])
        name = profile_of(request.scope["path"], self.settings.default_profile)
        profile = self.settings.profiles.get(name or "")
        operation = operation_of(query)
        if profile is None:
            response = _text(404, "no such SCEP profile\n")
        elif operation is None:
            response = _text(400, "unknown or missing operation\n")
        else:
            response = await self._guarded(profile, operation, query, request)
        labels = (profile.name if profile else "", operation or "", str(response.status_code))
        REQUESTS.labels(*labels).inc()
        return response

    async def _guarded(
        self, profile: Profile, operation: str, query: dict[bytes, bytes], request: Request
    ) -> Response:
        """Within the limits on what may be in flight, with every error turned into a status."""
        address = self._address(request)
        limits = self.settings.limits
        if (
            self._in_flight.total() >= limits.in_flight
            or self._in_flight[address] >= limits.in_flight_per_source
        ):
            return _unavailable("too many requests in flight\n")
        self._in_flight[address] += 1
        IN_FLIGHT.labels("gateway").inc()
        try:
            return await self._operate(profile, operation, query, request, address)
        except BusUnavailableError:
            return _unavailable("the event log is not reachable\n")
        except TooLargeError:
            return _text(413, "message too large\n", {"connection": "close"})
        except UnanswerableError:
            return _text(400, "not a SCEP message\n")
        except Exception as error:  # noqa: BLE001 - a bug is a 500 without a word of detail
            log_failure("request_failed", error, profile=profile.name)
            return _text(500, "internal error\n")
        finally:
            IN_FLIGHT.labels("gateway").dec()
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
            return _typed("text/plain", write_caps(legacy=profile.legacy))
        if operation == "GetNextCACert":
            return _text(404, "no next CA certificate\n")
        chain = self.chains.get(profile.issuer, profile.ca_spki_sha256)
        if chain is None:
            return _unavailable("the CA chain was not read yet\n")
        if operation == "GetCACert":
            return _typed(*write_ca_certs(_advertised(profile, chain)))
        message = await self._message(query, request)
        if not message:
            return _text(400, "empty message\n")
        body = await self.enroller.answer(profile, chain, message, address)
        return _typed(_PKI_MESSAGE, body)

    async def _message(self, query: dict[bytes, bytes], request: Request) -> bytes | None:
        """The pkiMessage: a POST's raw body whatever its type says, or a GET's parameter."""
        if request.method == "GET":
            return decode_message(query.get(b"message", b""))
        limit = self.settings.limits.body
        declared = request.headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > limit:
            raise TooLargeError
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise TooLargeError
        return bytes(body)

    def _address(self, request: Request) -> str:
        """The client's address; a proxy's word for it only if the proxy is configured."""
        peer = request.client.host if request.client else ""
        if peer not in self.settings.trusted_proxies:
            return peer
        hops = request.headers.get("x-forwarded-for", "").split(",")
        return next(
            (
                hop
                for h in reversed(hops)
                if (hop := h.strip()) not in self.settings.trusted_proxies
            ),
            peer,
        )


def _advertised(profile: Profile, chain: Chain) -> list[bytes]:
    """RA certificates, the issuing CA, and by profile switch what stands above it."""
    above = chain.der if profile.include_chain else chain.der[:1]
    return [*profile.ra.certificates, *above]
