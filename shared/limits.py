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
CSR_EXTENSIONS: Final = Bound(64, "extensions", "requested by a CSR", _BAD_REQUEST)
CHALLENGE_BYTES: Final = Bound(32 * 1024, "bytes", "a challengePassword, as UTF-8", _BAD_REQUEST)
OID_BYTES: Final = Bound(
    64, "bytes", "an object identifier, as DER", "FAILURE badMessageCheck, or HTTP 400"
)

# Lists of blocked keys, which a validator keeps in memory.
BLOCKED_KEYS: Final = Bound(
    1_000_000, "entries", "the lists of blocked keys of a validator", "the validator does not start"
)
BLOCKED_KEYS_BYTES: Final = Bound(
    96 * 1024 * 1024, "bytes", "one list of blocked keys", "the validator does not start"
)

# What verifiers prove about a device, for the names of its certificate.
CLAIM_CHARACTERS: Final = Bound(
    255, "characters", "a claim that names are built from", "the claim counts as missing"
)
CLAIM_VALUES: Final = Bound(
    64, "values", "a claim that names are built from", "the claim counts as missing"
)

# Events. Larger ones would exceed the bus's max_payload of 1 MB.
EVENT_BYTES: Final = Bound(
    768 * 1024,
    "bytes",
    "an event, payload and headers",
    "not written; counts as a failed attempt to handle the message",
)
WITHDRAWALS: Final = Bound(
    16,
    "commands",
    "to withdraw one certificate, after refusals or forged ones",
    "not repeated; the service that asked for it gets an error",
)
SERIES_LENGTH: Final = Bound(
    1024,
    "events",
    "forged events in a series (status of a certificate, mark of a key, record of a challenge)",
    "the series is not used; counts as a failed attempt to handle the message; security event",
)
REPLICA_NAMES: Final = Bound(
    1024, "names", "heartbeats of replicas, and CA chains, on the bus", "new names are refused"
)
HEARTBEAT_ANCHORS: Final = Bound(
    200,
    "anchors",
    "of all profiles, those that expire first, in a heartbeat and on the page",
    "the page shows those of the audit service's own files, where a whole bundle is missing",
)
ANCHOR_CHARACTERS: Final = Bound(
    200, "characters", "an anchor's subject or issuer (`iss`) in a heartbeat", "truncated"
)
DETAIL_CHARACTERS: Final = Bound(
    500,
    "characters",
    "the detail or comparison of a result in an event",
    "truncated, with ... at the end",
)

# Connections and HTTP requests, at every port.
BACKLOG: Final = Bound(
    256, "connections", "waiting in the kernel to be accepted", "the client retries the connection"
)
CONNECTIONS: Final = Bound(
    16384,
    "connections",
    "all sources of a process together",
    "the longest idle one of the source with the most is closed",
)
UNFINISHED_REQUESTS: Final = Bound(
    1024,
    "requests",
    "being received by a process, heads and bodies",
    "the longest idle one of the source with the most is closed",
)
DESCRIPTOR_RESERVE: Final = Bound(
    128,
    "descriptors",
    "of the process's limit that connections may not use",
    "the longest idle connection of the source with the most is closed",
)
HEAD_BYTES: Final = Bound(
    128 * 1024, "bytes", "an HTTP request without its body", "the connection is closed"
)
HEAD_SECONDS: Final = Bound(
    10, "seconds", "from a connection or a request's first byte to the end of its head", "HTTP 408"
)
PIPELINED: Final = Bound(
    16, "requests", "sent on a connection before their answers", "the connection is closed"
)
BODY_SECONDS: Final = Bound(
    30, "seconds", "from the first to the last byte of a request's body", "HTTP 408"
)
BODY_STALL_SECONDS: Final = Bound(
    10,
    "seconds",
    "pause within a body, or an answer that the client does not read",
    "HTTP 408, or closed",
)
START_SECONDS: Final = Bound(
    10,
    "seconds",
    "a gateway's start, until the bus is connected and the CA chains are read",
    "it accepts connections anyway, and answers 503 to what it cannot serve yet",
)
IDLE_SECONDS: Final = Bound(
    75, "seconds", "a connection without a new request after an answer", "the connection is closed"
)
RATE_SOURCES: Final = Bound(
    65536, "sources", "the table of request rates", "the least recently seen source is dropped"
)
FORWARDED_HOPS: Final = Bound(
    32, "addresses", "X-Forwarded-For, read from the end", "the address of the proxy is used"
)

PLANTED_ATTEMPTS: Final = Bound(
    256,
    "attempts",
    "of one enrollment that are searched if some are forged",
    "the next attempt gets a random number",
)
PROFILE_PLACES: Final = Bound(
    128,
    "requests",
    "of one profile or issuer that wait in one process for an external service",
    "refused at once (webhook, device state, verifiers of packages), redelivered later "
    "(external CA, Intune), or left to other replicas (profile not served)",
)
SAME_CSR_PLACES: Final = Bound(
    128,
    "requests",
    "with one CSR and several signers that wait for the first of them, in one validator",
    "FAILURE badRequest (rate_limited)",
)
SAME_CSR_RECORDS: Final = Bound(
    64,
    "requests",
    "with one CSR, of several signers or retried, that used a challenge and failed",
    "FAILURE badRequest (rate_limited) until the challenge's record expires",
)
WAITING_PLACES: Final = Bound(
    256,
    "requests",
    "of one profile that wait for others with the same CSR, in one validator",
    "FAILURE badRequest (rate_limited)",
)
TRIALS: Final = Bound(
    128,
    "processes",
    "validator processes, including restarted ones, that defer one request for another",
    "FAILURE badRequest (poison), and a dead letter",
)


# How long operators wait, and how many requests of theirs may wait.
ADMIN_SECONDS: Final = Bound(
    8, "seconds", "a query at the admin port", "HTTP 503: the database does not answer"
)
ADMIN_COMMAND_SECONDS: Final = Bound(
    90, "seconds", "a command at the admin port, including its body and its answer", "HTTP 503"
)
ADMIN_PROVIDER_SECONDS: Final = Bound(
    45, "seconds", "the requests of a login to the identity provider", "HTTP 503"
)
ADMIN_UNANSWERED: Final = Bound(
    16,
    "requests",
    "queries and commands that wait for a database that does not answer",
    "HTTP 503 at once",
)
ADMIN_SIGNING_IN: Final = Bound(
    32,
    "requests",
    "logins in progress, by API token and by identity provider",
    "HTTP 503 at once; existing sessions are not affected",
)
CLOCK_SKEW_SECONDS: Final = Bound(
    60,
    "seconds",
    "a local clock's distance from the log's",
    "not ready; decisions use the log's time",
)
# The admin port.
ADMIN_BODY_BYTES: Final = Bound(
    64 * 1024, "bytes", "the body of a request at the admin port", "HTTP 413, unread"
)
FORM_BYTES: Final = Bound(4096, "bytes", "a form of the operator page", "HTTP 413")
PAGE_BYTES: Final = Bound(
    1024 * 1024, "bytes", "the rows of one page of a list", "the rest is on the next page"
)
REFUSALS_SEARCHED: Final = Bound(
    50_000,
    "refusals",
    "signed challenges refused within 24 hours, of first requests and of renewals each, that are "
    "searched for rate-limited devices",
    "older ones are not counted, and the list says so",
)
NOTICE_CERTIFICATES: Final = Bound(
    100, "certificates", "one notice of certificates that expire", "the rest is in the next notice"
)
LOGIN_FAILURES: Final = Bound(
    10, "failures", "logins on the page from one address in a minute", "HTTP 429 for the rest of it"
)
TOKEN_FAILURES: Final = Bound(
    60,
    "failures",
    "unknown API tokens from one address in a minute",
    "HTTP 401 without a lookup; tokens already verified still work",
)
FAILURES_IN_ALL: Final = Bound(
    600,
    "failures",
    "logins and unknown API tokens from all addresses in a minute",
    "as above, for addresses with at least one failure",
)
THROTTLED_SOURCES: Final = Bound(
    10_000, "sources", "the table of failures", "the oldest is dropped"
)


# OCSP.
OCSP_REQUEST_BYTES: Final = Bound(
    4096, "bytes", "an OCSP request", "OCSP malformedRequest, or HTTP 413"
)
OCSP_READS: Final = Bound(
    64, "requests", "OCSP requests of one gateway that wait for the log", "OCSP tryLater"
)
OCSP_CACHED: Final = Bound(
    10_000, "responses", "OCSP responses that a gateway keeps in memory", "the oldest is dropped"
)
MAX_OCSP_DAYS: Final = 10  # of `ocsp_validity`, and until a response leaves the log


def shortened(text: str) -> str:
    """Return a text from another party, cut to the length that an event may hold."""
    return text if len(text) <= DETAIL_CHARACTERS else f"{text[: DETAIL_CHARACTERS - 3]}..."


def bounds() -> dict[str, Bound]:
    """Return every bound of this table by name, in table order."""
    return {name: value for name, value in globals().items() if isinstance(value, Bound)}
