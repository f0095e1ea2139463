"""The HTTP answers to what is no request for the log: status, sentence, and the counted reason."""

from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import structlog
from starlette.responses import Response

from shared.observe.metrics import REFUSED
from shared.runtime.edge import closing_answer

_log = structlog.get_logger()
_LINES: Final = 20  # a second, profile and reason


def text(status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    """Return a sentence as bare text/plain: clients compare it literally, without a charset."""
    return Response(sentence.encode(), status, {"content-type": "text/plain", **(headers or {})})


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is no CertRep; `reason` is counted."""

    status: int
    reason: str
    sentence: str
    headers: tuple[tuple[str, str], ...] = ()

    def response(self) -> Response:
        """Return the sentence and nothing else: neither what was sent nor what went wrong."""
        return text(self.status, f"{self.sentence}\n", dict(self.headers))

    def closing(self) -> bytes:
        """Return the same answer as bytes that also close the connection."""
        headers = (f"{name}: {value}" for name, value in self.headers)
        return closing_answer(HTTPStatus(self.status), self.sentence, *headers)


class RefusedError(Exception):
    """Raised to leave with a refusal."""

    def __init__(self, refusal: Refusal) -> None:
        """Carry the answer."""
        super().__init__(refusal.sentence)
        self.refusal = refusal


_RETRY: Final = (("retry-after", "5"),)
_CLOSE: Final = (("connection", "close"),)
NO_PROFILE: Final = Refusal(404, "no_profile", "no such SCEP profile")
LEFT_OUT: Final = Refusal(503, "profile_left_out", "this SCEP profile is not served now", _RETRY)
NO_OPERATION: Final = Refusal(400, "no_operation", "unknown or missing operation")
NO_CRL: Final = Refusal(404, "no_crl", "no such CRL")
NO_CLIENT: Final = Refusal(401, "no_client_certificate", "a client certificate is needed here")
TWO_CLIENTS: Final = Refusal(
    400, "repeated_client_cert", "the Client-Cert header is repeated: the proxy must replace it"
)
METHOD: Final = Refusal(405, "method", "send GET, HEAD or POST", (("allow", "GET, HEAD, POST"),))
HEAD: Final = Refusal(405, "head", "send PKIOperation by GET or POST", (("allow", "GET, POST"),))
NO_NEXT_CA: Final = Refusal(404, "no_next_ca", "no next CA certificate")
EMPTY: Final = Refusal(400, "empty_message", "empty message")
TOO_LARGE: Final = Refusal(413, "too_large", "message too large", _CLOSE)
BROKEN_OFF: Final = Refusal(400, "broken_off", "the upload broke off", _CLOSE)
CLIENT_GONE: Final = Refusal(499, "client_gone", "the client is gone", _CLOSE)  # nobody reads it
OVERLOAD: Final = Refusal(503, "overload", "too many requests in flight", _RETRY)
NO_CHAIN: Final = Refusal(503, "no_ca_chain", "the CA chain was not read yet", _RETRY)
NO_BUS: Final = Refusal(503, "no_bus", "the event log is not reachable", _RETRY)
LOG_FULL: Final = Refusal(503, "log_full", "the event log has no room for new requests", _RETRY)
NO_TOKEN: Final = Refusal(503, "no_token", "the RA's key is not reachable", _RETRY)


def rate_limited(seconds: int) -> Refusal:
    """Return the refusal of a source that sends too much; SCEP clients do not understand 429."""
    retry = (("retry-after", str(seconds)),)
    return Refusal(503, "rate", "too many requests from this address", retry)


@dataclass(slots=True)
class _Second:
    """What was logged of one profile and reason in the second since `start`, and what was not."""

    start: float
    lines: int = 0
    unlogged: int = 0


@dataclass
class RefusalLog:
    """Counts refusals and logs them, of each profile and reason `_LINES` a second at most.

    To be refused is all that a flood needs. The next line says how many were left out before it;
    the metric has the exact number. `profile` is one that is served, or "". `clock` gives seconds
    that only grow.
    """

    clock: Callable[[], float]
    _seconds: dict[tuple[str, str], _Second] = field(default_factory=dict)

    def add(self, profile: str, reason: str, **details: str | int) -> None:
        """Count one, and log it where there is room."""
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
