"""Prometheus metrics, and the HTTP application that serves them with liveness and readiness."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

REQUESTS: Final = Counter(
    "scepstream_requests_total",
    "SCEP operations answered, by HTTP status",
    ["profile", "operation", "status"],
)
REPLIES: Final = Counter(
    "scepstream_replies_total",
    "CertReps sent, by message type, status, reason and client software",
    ["profile", "message_type", "status", "reason", "client"],
)
REFUSED: Final = Counter(
    "scepstream_refused_total",
    "Requests refused before they were appended to the log",
    ["profile", "reason"],
)
CONNECTIONS_OPEN: Final = Gauge("scepstream_connections_open", "Open HTTP connections")
CONNECTIONS_CLOSED: Final = Counter(
    "scepstream_connections_closed_total",
    "HTTP connections closed by the server, by cause",
    ["cause"],
)
VERDICTS: Final = Counter(
    "scepstream_verdicts_total", "Verdicts written, by result and reason", ["profile", "reason"]
)
OUTCOMES: Final = Counter(
    "scepstream_outcomes_total", "Outcomes written, by issuer and reason", ["issuer", "reason"]
)
CHALLENGES: Final = Counter(
    "scepstream_challenges_total",
    "Challenges by kind and result: the reason of a refusal, success once a certificate is issued",
    ["profile", "kind", "result"],
)
CONFIRMATIONS: Final = Counter(
    "scepstream_confirmations_total",
    "Withheld certificates by connection and result: confirmed, or failed and revoked",
    ["connection", "result"],
)
SECURITY_EVENTS: Final = Counter(
    "scepstream_security_events_total",
    "Stored events that do not authenticate, and challenges that Intune finds forged",
    ["stage"],
)
DEAD_LETTERS: Final = Counter("scepstream_dead_letters_total", "Messages given up on", ["role"])
ORPHANS: Final = Counter(
    "scepstream_orphans_suspected_total",
    "Orders whose answer was lost, so that the CA may have a certificate that no device got",
    ["issuer"],
)
ORPHANS_OPEN: Final = Gauge(
    "scepstream_orphans_open", "Possible orphans that are not settled, from the read model"
)
RESUMES: Final = Counter(
    "scepstream_resumes_ordered_total",
    "Commands to resume an attempt whose message was not delivered, by missing stage",
    ["stage", "give_up"],
)
REDELIVERIES: Final = Counter(
    "scepstream_redeliveries_total", "Deliveries after the first", ["role"]
)
BUS_LAG: Final = Gauge(
    "scepstream_bus_lag",
    "Undelivered messages at the consumer's last delivery; audit service: not yet stored",
    ["stream", "consumer"],
)
WAITING: Final = Gauge(
    "scepstream_waiting_enrollments",
    "Enrollments of the last 24 hours that wait for a service, from the read model",
    ["role"],
)
OLDEST_WAITING: Final = Gauge(
    "scepstream_oldest_waiting_seconds",
    "How long the oldest waiting enrollment has waited",
    ["role"],
)
FAILURES: Final = Counter("scepstream_failures_total", "Unexpected errors in a handler", ["role"])
HANDLING: Final = Histogram(
    "scepstream_handling_seconds",
    "Time to handle one message or request; audit service: one batch",
    ["role"],
)
IN_FLIGHT: Final = Gauge("scepstream_in_flight", "Messages or requests in progress", ["role"])
CLOCK_SKEW: Final = Gauge(
    "scepstream_clock_skew_seconds",
    "Seconds that the local clock is ahead of the log",
)
EVENTS_STORED: Final = Counter(
    "scepstream_audit_events_total", "Events written to the database", ["stream"]
)
STREAM_BYTES: Final = Gauge(
    "scepstream_stream_bytes", "Size of a stream of enrollments in bytes", ["stream"]
)
STREAM_FILL: Final = Gauge(
    "scepstream_stream_fill_ratio",
    "Share of its maximum size in use; from 0.8 on gateways refuse new requests",
    ["stream"],
)
EXPIRY_DAYS: Final = Gauge(
    "scepstream_certificate_expiry_days",
    "Days until one of our certificates or credentials expires",
    ["kind", "name"],
)
BUNDLE_EXPIRY_DAYS: Final = Gauge(
    "scepstream_anchor_bundle_expiry_days",
    "Days until the first trust anchor of a profile's bundle expires: common, or tenant ISS",
    ["profile", "bundle"],
)

CERTIFICATES_EXPIRING: Final = Gauge(
    "scepstream_certificates_expiring",
    "Devices' certificates that end within so many days and were not replaced, from the read model",
    ["profile", "days"],
)
CERTIFICATES_NOT_RENEWED: Final = Gauge(
    "scepstream_certificates_not_renewed",
    "Devices' valid certificates that should have been renewed by now, from the read model",
    ["profile"],
)
EXPIRY_NOTICES: Final = Counter(
    "scepstream_expiry_notices_total",
    "Notices of certificates that expire, posted to the expiry webhook",
    ["accepted"],
)
MICROSOFT_CALLS: Final = Counter(
    "scepstream_microsoft_calls_total",
    "Calls to Microsoft by result: success, refused (Intune said no), or why there was no answer",
    ["connection", "operation", "result"],
)
MICROSOFT_SECONDS: Final = Histogram(
    "scepstream_microsoft_call_seconds",
    "Time that a call to Microsoft took, with all its retries",
    ["connection", "operation"],
)
MICROSOFT_BREAKER: Final = Gauge(
    "scepstream_microsoft_breaker_open",
    "1 while a service of Microsoft failed repeatedly and no call has succeeded since",
    ["connection", "service"],
)
REVOCATIONS_OPEN: Final = Gauge(
    "scepstream_revocation_requests_open",
    "Revocations that Intune asked for and that are not done, at the replica that pulls them",
    ["connection"],
)
REVOCATION_PULL_FAILING: Final = Gauge(
    "scepstream_revocation_pull_failing",
    "1 if the last pull of revocations from Intune failed, at the replica that pulls them",
    ["connection"],
)

_DAY: Final = 86400
_measured: Final[dict[str, set[tuple[str, ...]]]] = {}
# Kinds of stored events that may fail to authenticate. Their series must begin at 0: increase()
# misses the first event of a series that begins at 1.
for _stage in (
    "request",
    "hold",
    "decision",
    "verdict",
    "outcome",
    "order",
    "command",
    "certificate",
    "crl",
):
    SECURITY_EVENTS.labels(_stage)


def measure_expiry(kind: str, ends: Mapping[str, float], clock: Callable[[], float]) -> None:
    """Export the days until each of these certificates of a kind expires, and of no others.

    `ends` maps names to Unix seconds; the days are computed at each scrape.
    """
    _measure(kind, EXPIRY_DAYS, {(kind, name): end for name, end in ends.items()}, clock)


def measure_bundle_expiry(
    ends: Mapping[tuple[str, str], float], clock: Callable[[], float]
) -> None:
    """Export the days until these bundles' first anchors expire, as `measure_expiry` does.

    `ends` maps profile and bundle to Unix seconds.
    """
    _measure("bundle", BUNDLE_EXPIRY_DAYS, {(*labels,): end for labels, end in ends.items()}, clock)


def _measure(
    what: str, gauge: Gauge, ends: Mapping[tuple[str, ...], float], clock: Callable[[], float]
) -> None:
    for labels in _measured.get(what, set()) - ends.keys():
        gauge.remove(*labels)
    for labels, end in ends.items():
        gauge.labels(*labels).set_function(partial(_days_until, end, clock))
    _measured[what] = set(ends)


def _days_until(end: float, clock: Callable[[], float]) -> float:
    return (end - clock()) / _DAY


Ready = Callable[[], str]


def operations_routes(ready: Ready) -> list[Route]:
    """Return /healthz and /readyz; `ready` returns what is missing, "" if nothing is."""

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        missing = ready()
        return PlainTextResponse(f"{missing or 'ready'}\n", 503 if missing else 200)

    return [Route("/healthz", healthz), Route("/readyz", readyz)]


def operations_app(ready: Ready) -> Starlette:
    """Return the application for operators and Prometheus: health, readiness and metrics."""

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    app = Starlette(routes=[*operations_routes(ready), Route("/metrics", metrics)])
    app.router.redirect_slashes = False  # a redirect would follow the Host header
    return app
