"""Events about who may enroll, the replicas that are there, and the log itself."""

import msgspec

from shared.log.events.base import NO_REQUEST, EventPayload, SignedEvent


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Who vouched for the device: a connector's token or an operator's one-time challenge.

    `record` names the subject under which its use is recorded; times are Unix seconds.
    """

    issuer: str
    subject: str
    device: str = ""
    issued_at: int = 0
    expires_at: int = 0
    record: str = ""


class ChallengeClaimed(SignedEvent, frozen=True, kw_only=True):
    """A token or one-time challenge belongs to this enrollment from now on (REPLAYS).

    The record leaves the stream some time after `expires_at` (Unix seconds), when what it guards
    is of no use any more.
    """

    request_sha256: str
    kind: str
    enrollment: str
    spki_sha256: str
    expires_at: int


class CountedEnrollment(msgspec.Struct, frozen=True, kw_only=True):
    """An enrollment that takes a place in its device's window, and since when (Unix seconds)."""

    enrollment: str
    at: int


class DeviceCounted(SignedEvent, frozen=True, kw_only=True):
    """The enrollments of one device within a day; each write replaces the one before."""

    request_sha256: str
    entries: tuple[CountedEnrollment, ...]


class Heartbeat(SignedEvent, frozen=True, kw_only=True):
    """A running replica says that it is there, and which anchors (SHA-256) each profile has."""

    role: str
    name: str
    since: int
    anchors: dict[str, str]
    request_sha256: str = NO_REQUEST


class GatewayHeartbeat(EventPayload, frozen=True, kw_only=True):
    """A running gateway says that it is there, and which RA certificates (SHA-256) profiles have.

    `command` is the sequence of the last command to reload them that it carried out, `error` what
    was wrong then. Gateways have no key to sign with: only their account can write here.
    """

    name: str
    since: int
    ra: dict[str, str]
    command: int = 0
    error: str = ""
    request_sha256: str = NO_REQUEST


class StreamMeasured(SignedEvent, frozen=True, kw_only=True):
    """How full a stream is (bytes; `most` is 0 where it has no limit), at a time (Unix seconds).

    Never stored: the audit service sends it to gateways every few seconds.
    """

    stream: str
    used: int
    most: int
    at: int
    request_sha256: str = NO_REQUEST


class CheckpointSigned(SignedEvent, frozen=True, kw_only=True):
    """What a stream held up to a sequence: one digest (hex) over all of it, signed by the auditor.

    Who rewrites the log cannot write a checkpoint that fits, and the old ones tell of it.
    """

    stream: str
    sequence: int
    digest: str
    request_sha256: str = NO_REQUEST


class DeadLetter(EventPayload, frozen=True, kw_only=True):
    """A message that a worker gave up on: where it stands and how often it was tried."""

    subject: str
    stream: str
    sequence: int
    deliveries: int
    role: str
