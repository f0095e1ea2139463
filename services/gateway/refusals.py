"""HTTP refusals: status, message, and the reason that is counted and logged."""

from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import structlog
from starlette.responses import Response

from shared.observe.metrics import REFUSED
from shared.runtime.edge import closing_answer

_log = structlog.get_logger()
_LINES: Final = 20  # per second, profile and reason


def text(status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    """Return a text/plain response. It has no charset: clients compare the type literally."""
    return Response(sentence.encode(), status, {"content-type": "text/plain", **(headers or {})})


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP answer instead of a CertRep; `reason` is a metric label."""

    status: int
    reason: str
    sentence: str
    headers: tuple[tuple[str, str], ...] = ()

    def response(self) -> Response:
        """Return the response. It never echoes input or internal errors."""
        return text(self.status, f"{self.sentence}\n", dict(self.headers))

    def closing(self) -> bytes:
        """Return the raw bytes of the same answer, with `Connection: close`."""
        headers = (f"{name}: {value}" for name, value in self.headers)
        return closing_answer(HTTPStatus(self.status), self.sentence, *headers)


class RefusedError(Exception):
    """Raised to end a request with a refusal."""

    def __init__(self, refusal: Refusal) -> None:
        """Keep the refusal to answer with."""
        super().__init__(refusal.sentence)
        self.refusal = refusal


_RETRY: Final = (("retry-after", "5"),)
_CLOSE: Final = (("connection", "close"),)
NO_PROFILE: Final = Refusal(404, "no_profile", "no such SCEP profile")
LEFT_OUT: Final = Refusal(
    503, "profile_left_out", "this SCEP profile is currently unavailable", _RETRY
)
NO_OPERATION: Final = Refusal(400, "no_operation", "unknown or missing operation")
NO_CRL: Final = Refusal(404, "no_crl", "no such CRL")
NO_OCSP: Final = Refusal(404, "no_ocsp", "no such OCSP responder")
NO_CLIENT: Final = Refusal(401, "no_client_certificate", "client certificate required")
TWO_CLIENTS: Final = Refusal(
    400,
    "repeated_client_cert",
    "more than one Client-Cert header: the proxy must replace the client's header",
)
METHOD: Final = Refusal(405, "method", "send GET, HEAD or POST", (("allow", "GET, HEAD, POST"),))
HEAD: Final = Refusal(405, "head", "send PKIOperation by GET or POST", (("allow", "GET, POST"),))
NO_NEXT_CA: Final = Refusal(404, "no_next_ca", "no next CA certificate")
EMPTY: Final = Refusal(400, "empty_message", "empty message")
TOO_LARGE: Final = Refusal(413, "too_large", "message too large", _CLOSE)
BROKEN_OFF: Final = Refusal(400, "broken_off", "incomplete request body", _CLOSE)
CLIENT_GONE: Final = Refusal(499, "client_gone", "client disconnected", _CLOSE)  # never read
OVERLOAD: Final = Refusal(503, "overload", "too many requests in flight", _RETRY)
NO_CHAIN: Final = Refusal(503, "no_ca_chain", "CA chain not available yet", _RETRY)
NO_BUS: Final = Refusal(503, "no_bus", "the event log is not reachable", _RETRY)
LOG_FULL: Final = Refusal(503, "log_full", "the event log accepts no new requests", _RETRY)
NO_TOKEN: Final = Refusal(503, "no_token", "the RA's key is not reachable", _RETRY)


def rate_limited(seconds: int) -> Refusal:
    """Return a 503 for a source over its rate limit. SCEP clients do not understand 429."""
    retry = (("retry-after", str(seconds)),)
    return Refusal(503, "rate", "too many requests from this address", retry)


@dataclass(slots=True)
class _Second:
    """Lines logged and not logged for one profile and reason in the second since `start`."""

    start: float
    lines: int = 0
    unlogged: int = 0


@dataclass
class RefusalLog:
    """Counts refusals and logs them, at most `_LINES` per second for each profile and reason.

    Otherwise a flood of refused requests would flood the log file. The next line says how many
    were left out before it; the metric is exact. `clock` returns monotonic seconds.
    """

    clock: Callable[[], float]
    _seconds: dict[tuple[str, str], _Second] = field(default_factory=dict)

    def add(self, profile: str, reason: str, **details: str | int) -> None:
        """Count a refusal and log it within the limit; `profile` is a served one or ""."""
        REFUSED.labels(profile, reason).inc()
        now = self.clock()
        second = self._seconds.setdefault((profile, reason), _Second(now))
        if now - second.start >= 1:
            second.start, second.lines = now, 0
        if second.lines >= _LINES:
            second.unlogged += 1
            return
        left_out = {"unlogged": second.unlogged} if second.unlogged else {}
        second.lines, second.unlogged = second.lines + 1, 0
        _log.info("refused", profile=profile, reason=reason, **details, **left_out)
