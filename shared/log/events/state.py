"""Events about used challenges and device quotas, running replicas, and the log itself."""

import msgspec

from shared.log.events.base import NO_REQUEST, EventPayload, SignedEvent


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What vouched for the device: a signed challenge or an operator's one-time challenge.

    `record` names the subject under which its use is recorded; times are Unix seconds.
    """

    issuer: str
    subject: str
    device: str = ""
    issued_at: int = 0
    expires_at: int = 0
    record: str = ""


class ChallengeClaimed(SignedEvent, frozen=True, kw_only=True):
    """A challenge, or one CSR's use of a challenge, was claimed by this enrollment (REPLAYS).

    The record expires some time after `expires_at` (Unix seconds), when the challenge that it
    guards is no longer usable.
    """

    request_sha256: str
    kind: str
    enrollment: str
    spki_sha256: str
    expires_at: int


class NoticeBegun(SignedEvent, frozen=True, kw_only=True):
    """A validator is about to notify a connection's service of a certificate, once (REPLAYS).

    If there is no confirmation later, it is unknown whether the service was notified.
    """

    request_sha256: str
    connection: str
    enrollment: str
    replica: str


class LeaseTaken(SignedEvent, frozen=True, kw_only=True):
    """A replica alone does a connection's recurring work until `until` (Unix seconds)."""

    connection: str
    replica: str
    until: int
    request_sha256: str = NO_REQUEST


class RevocationRequested(SignedEvent, frozen=True, kw_only=True):
    """A connection's service asked to revoke a certificate; `context` identifies the request there.

    `serial` is as the service wrote it. What is asked for is recorded before anything is done.
    """

    connection: str
    context: str
    serial: str
    request_sha256: str = NO_REQUEST


class RevocationReported(SignedEvent, frozen=True, kw_only=True):
    """The service received the result of its request to revoke; `error` is its code, or ""."""

    connection: str
    context: str
    succeeded: bool
    error: str = ""
    detail: str = ""
    request_sha256: str = NO_REQUEST


class CountedEnrollment(msgspec.Struct, frozen=True, kw_only=True):
    """An enrollment counted in its device's window, and since when (Unix seconds)."""

    enrollment: str
    at: int


class DeviceCounted(SignedEvent, frozen=True, kw_only=True):
    """The enrollments of one device within a day; each event supersedes the one before."""

    request_sha256: str
    entries: tuple[CountedEnrollment, ...]


class TenantReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a replica's connection to a tenant of Intune does; times are Unix seconds, 0 for never.

    `credential` counts from 1, the one in use; `calls` counts them by result since the start. The
    last three are about the pull of revocations.
    """

    connection: str
    tenant: str
    cloud: str
    credential_kind: str
    credential: int
    credential_not_after: int = 0
    token_at: int = 0
    token_error: str = ""
    discovered_at: int = 0
    last_ok: int = 0
    last_error: str = ""
    last_error_at: int = 0
    breaker_until: int = 0
    throttled_until: int = 0
    calls: dict[str, int] = msgspec.field(default_factory=dict)
    pulled_at: int = 0
    pull_open: int = 0
    pull_error: str = ""


class LoadedAnchor(msgspec.Struct, frozen=True, kw_only=True):
    """An anchor that a validator trusts: of a profile, in the bundle of an issuer (`iss`).

    `issuer` is None in the common bundle; times are Unix seconds.
    """

    profile: str
    subject: str
    sha256: str
    not_before: int
    not_after: int
    issuer: str | None = None


class Heartbeat(SignedEvent, frozen=True, kw_only=True):
    """A running replica's report: the digest (SHA-256) of each profile's anchors, and tenants.

    `loaded` has the anchors that expire first, of all profiles (see `HEARTBEAT_ANCHORS`).
    """

    role: str
    name: str
    since: int
    anchors: dict[str, str]
    tenants: tuple[TenantReport, ...] = ()
    request_sha256: str = NO_REQUEST
    loaded: tuple[LoadedAnchor, ...] = ()


class GatewayHeartbeat(EventPayload, frozen=True, kw_only=True):
    """A running gateway's report, with the digest (SHA-256) of each profile's RA certificates.

    `command` is the sequence of the last command to reload RA certificates that it carried out,
    `error` what went wrong then. Gateways have no signing key: only their account can write here.
    """

    name: str
    since: int
    ra: dict[str, str]
    command: int = 0
    error: str = ""
    request_sha256: str = NO_REQUEST


class StreamMeasured(SignedEvent, frozen=True, kw_only=True):
    """A stream's size and limit in bytes (`most` is 0 if unlimited) at a time (Unix seconds).

    Never stored: the audit service sends it to gateways every few seconds.
    """

    stream: str
    used: int
    most: int
    at: int
    request_sha256: str = NO_REQUEST


class CheckpointSigned(SignedEvent, frozen=True, kw_only=True):
    """A hex digest over a stream's events up to a sequence, signed by the audit service.

    Whoever rewrites the log cannot sign matching checkpoints, and the old ones reveal the change.
    """

    stream: str
    sequence: int
    digest: str
    request_sha256: str = NO_REQUEST


class DeadLetter(EventPayload, frozen=True, kw_only=True):
    """A message that a worker gave up: where it is stored and how often it was delivered."""

    subject: str
    stream: str
    sequence: int
    deliveries: int
    role: str
