"""The table of every bound on input to the system, from which docs/limits.md is generated. Pure.

A bound is an `int` that also carries its unit, what it bounds and what happens above it. Code
compares with it as with any number. To add a bound, add a line here.
"""

from typing import Final, Self


class Bound(int):
    """The largest accepted value of `of`, in `unit`; `beyond` says what happens above it."""

    unit: str
    of: str
    beyond: str

    def __new__(cls, value: int, unit: str, of: str, beyond: str) -> Self:
        """Create a bound; `value` is the number itself."""
        bound = super().__new__(cls, value)
        bound.unit, bound.of, bound.beyond = unit, of, beyond
        return bound


_BAD_REQUEST: Final = "FAILURE badRequest that names what is too large"

# CSRs. Together these bounds keep a verdict far below EVENT_BYTES, whatever the bytes are: JSON
# writes one control character in six bytes, base64 three bytes in four.
NAME_BYTES: Final = Bound(4096, "bytes", "the subject of a CSR, as DER", _BAD_REQUEST)
SAN_BYTES: Final = Bound(16 * 1024, "bytes", "the subjectAltName of a CSR, as DER", _BAD_REQUEST)
SAN_ENTRIES: Final = Bound(256, "entries", "the subjectAltName of a CSR", _BAD_REQUEST)
CSR_ATTRIBUTES: Final = Bound(32, "attributes", "a CSR", _BAD_REQUEST)
CSR_EXTENSIONS: Final = Bound(64, "extensions", "what a CSR asks for", _BAD_REQUEST)
CHALLENGE_BYTES: Final = Bound(32 * 1024, "bytes", "a challengePassword", _BAD_REQUEST)
OID_BYTES: Final = Bound(
    64, "bytes", "an object identifier, as DER", "FAILURE badMessageCheck, or HTTP 400"
)

# Events. Larger ones would exceed the bus's max_payload of 1 MB.
EVENT_BYTES: Final = Bound(
    768 * 1024, "bytes", "an event, payload and headers", "not written; counts towards poison"
)
SERIES_LENGTH: Final = Bound(
    1024,
    "events",
    "forged ones in a series (status of a certificate, mark of a key, record of a challenge)",
    "nothing is decided by the series: counts towards poison; security event",
)
REPLICA_NAMES: Final = Bound(
    1024, "names", "heartbeats of replicas, and CA chains, on the bus", "new names are refused"
)
DETAIL_CHARACTERS: Final = Bound(
    500, "characters", "a sentence or a comparison in an event", "cut, and ended with ..."
)

# Connections and HTTP requests, at every port.
BACKLOG: Final = Bound(
    256, "connections", "what the kernel keeps until a service accepts", "the client sends again"
)
CONNECTIONS: Final = Bound(
    16384,
    "connections",
    "a process, all sources together",
    "the longest silent one of the source that holds most is closed",
)
UNFINISHED_REQUESTS: Final = Bound(
    1024,
    "requests",
    "heads and bodies under way in a process",
    "the longest silent one of the source that holds most is closed",
)
DESCRIPTOR_RESERVE: Final = Bound(
    128,
    "descriptors",
    "what connections leave free of the process's limit",
    "the longest silent connection of the source that holds most is closed",
)
HEAD_BYTES: Final = Bound(
    128 * 1024, "bytes", "all of an HTTP request that is not its body", "the connection is closed"
)
HEAD_SECONDS: Final = Bound(
    10, "seconds", "from a connection or a request's first byte to the end of its head", "HTTP 408"
)
PIPELINED: Final = Bound(
    16, "requests", "what a connection sends before it has its answers", "the connection is closed"
)
BODY_SECONDS: Final = Bound(30, "seconds", "a request's body, as it arrives", "HTTP 408")
BODY_STALL_SECONDS: Final = Bound(
    10, "seconds", "silence within a body, or an answer that is not taken", "HTTP 408, or closed"
)
START_SECONDS: Final = Bound(
    10,
    "seconds",
    "a gateway's start, until the bus is connected and the CA chains are read",
    "it accepts all the same, and answers 503 to what it cannot serve",
)
IDLE_SECONDS: Final = Bound(
    75, "seconds", "a connection without a request after an answer", "the connection is closed"
)
RATE_SOURCES: Final = Bound(
    65536, "sources", "the table of request rates", "the one not heard of longest is forgotten"
)
FORWARDED_HOPS: Final = Bound(
    32, "addresses", "X-Forwarded-For, read from its end", "the address of the proxy is taken"
)

PLANTED_ATTEMPTS: Final = Bound(
    256,
    "attempts",
    "one enrollment, looked through where some are planted",
    "the next attempt gets a random number",
)
PROFILE_PLACES: Final = Bound(
    128,
    "requests",
    "one profile or issuer that wait in one process for an external service",
    "refused at once (webhook, device state, verifiers of packages), delivered again later "
    "(external CA), or left to other replicas (profile not served)",
)
SAME_CSR_PLACES: Final = Bound(
    128,
    "requests",
    "one CSR under several signers that wait for the first of them, in one validator",
    "FAILURE badRequest (rate_limited)",
)
SAME_CSR_RECORDS: Final = Bound(
    64,
    "requests",
    "one CSR under several signers, or tried again, that used a challenge and failed",
    "FAILURE badRequest (rate_limited) until the challenge's record ends",
)
WAITING_PLACES: Final = Bound(
    256,
    "requests",
    "one profile that wait for others with the same CSR, in one validator",
    "FAILURE badRequest (rate_limited)",
)
TRIALS: Final = Bound(
    128,
    "processes",
    "validators, restarted ones too, that meet one request which waits for another",
    "FAILURE badRequest (poison), and a dead letter",
)


# How long operators wait, and how many requests of theirs may wait.
ADMIN_SECONDS: Final = Bound(
    8, "seconds", "a query at the admin port", "HTTP 503: the database does not answer"
)
ADMIN_ORDER_SECONDS: Final = Bound(
    90, "seconds", "an order at the admin port, with its body and its answer", "HTTP 503"
)
ADMIN_PROVIDER_SECONDS: Final = Bound(
    45, "seconds", "a login's questions to the identity provider", "HTTP 503"
)
ADMIN_UNANSWERED: Final = Bound(
    16,
    "requests",
    "queries, and orders, that a silent database owes an answer",
    "HTTP 503 at once",
)
ADMIN_SIGNING_IN: Final = Bound(
    32,
    "requests",
    "logins under way, by token and by identity provider",
    "HTTP 503 at once; who is signed in goes on",
)
CLOCK_SKEW_SECONDS: Final = Bound(
    60, "seconds", "a local clock's distance from the log's", "not ready; decisions go by the log"
)
# The admin port.
ADMIN_BODY_BYTES: Final = Bound(
    64 * 1024, "bytes", "the body of a request at the admin port", "HTTP 413, unread"
)
FORM_BYTES: Final = Bound(4096, "bytes", "a form of the operators' page", "HTTP 413")
PAGE_BYTES: Final = Bound(
    1024 * 1024, "bytes", "the rows of one page of a list", "the rest is on the next page"
)
LOGIN_FAILURES: Final = Bound(
    10, "failures", "logins at the page from one address in a minute", "HTTP 429 for the rest of it"
)
TOKEN_FAILURES: Final = Bound(
    60,
    "failures",
    "unknown API tokens from one address in a minute",
    "HTTP 401 unlooked at; tokens that were good before go on",
)
FAILURES_IN_ALL: Final = Bound(
    600,
    "failures",
    "logins, and unknown API tokens, from everywhere in a minute",
    "as above for addresses that had one themselves",
)
THROTTLED_SOURCES: Final = Bound(
    10_000, "sources", "the table of failures", "the oldest is forgotten"
)


def shortened(text: str) -> str:
    """Return a text from another party, cut to the length that an event may hold."""
    return text if len(text) <= DETAIL_CHARACTERS else f"{text[: DETAIL_CHARACTERS - 3]}..."


def bounds() -> dict[str, Bound]:
    """Return every bound of this table by name, in table order."""
    return {name: value for name, value in globals().items() if isinstance(value, Bound)}
