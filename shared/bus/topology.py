"""Streams, durable consumers, and who may touch what: the one table everything is made from."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from shared.limits import REPLICA_NAMES

ACK_WAIT_SECONDS: Final = 5.0
PRESENCE_SECONDS: Final = 20
CA_CHAINS: Final = "KV_CA_CHAINS"
CERTS: Final = "CERTS"
CRLS: Final = "CRLS"
OPS: Final = "OPS"
DEAD_LETTERS: Final = "DEAD_LETTERS"
REPLAYS: Final = "REPLAYS"
DEVICES: Final = "KV_DEVICES"
REPLICAS: Final = "KV_REPLICAS"
NOTIFIER: Final = "notifier"
RESUME_ORDERS: Final = "ops.resume.*.*.*.order"
_GATEWAY: Final = re.compile("[a-zA-Z0-9-]{1,64}")


class Role(StrEnum):
    """The services, each in an account of its own; the provisioner owns the log's account.

    The reader is whoever outside follows the log: it can read all of it and nothing else.
    """

    GATEWAY = "gateway"
    VALIDATOR = "validator"
    ISSUER = "issuer"
    AUDIT = "audit"
    PROVISIONER = "provisioner"
    READER = "reader"


SERVICES: Final = (Role.GATEWAY, Role.VALIDATOR, Role.ISSUER, Role.AUDIT)
ACCOUNTS: Final = (*SERVICES, Role.READER)


def enroll_stream(shard: str) -> str:
    """The stream of a shard."""
    return f"ENROLL_{shard}"


def stream_of(subject: str) -> str | None:
    """The stream that keeps the first message on this subject, where a role may read it back."""
    first, _, rest = subject.partition(".")
    if first == "enroll":
        return enroll_stream(rest.partition(".")[0])
    return {"cert": CERTS, "key": CERTS, "crl": CRLS, "ops": OPS, "replay": REPLAYS}.get(first)


def chain_subject(issuer: str) -> str:
    """Where an issuer publishes its CA chain: a key of the CA_CHAINS bucket."""
    return f"$KV.CA_CHAINS.{issuer}"


def device_subject(device: str, number: int | str) -> str:
    """Where a device's window stands; `*` for the number finds the last one."""
    return f"$KV.DEVICES.{device}.{number}"


def replica_subject(role: str, name: str) -> str:
    """Where a running replica says that it is there; `*` for the name is all of them."""
    return f"$KV.REPLICAS.{role}.{name}"


def ask_subject(stream: str) -> str:
    """Where a stream's leader is asked for sequences; nothing is ever stored there."""
    return f"ask.{stream}"


def size_subject(stream: str) -> str:
    """Where the audit service asks how full a stream is."""
    return f"size.{stream}"


def quota_hints(stream: str) -> str:
    """Where the audit service tells gateways how full a stream is."""
    return f"quota.{stream}"


def gateway_hints(gateway: str) -> str:
    """Where terminal events are announced to a gateway; its name came in an unsigned event."""
    return f"gw.{gateway if _GATEWAY.fullmatch(gateway) else 'nobody'}"


class Quota(StrEnum):
    """Classes of streams whose largest size is configured together."""

    ENROLLMENTS = "enrollments"
    CERTIFICATES = "certificates"
    CRLS = "crls"
    ORDERS = "orders"
    SHARED = "shared"
    DEAD_LETTERS = "dead_letters"


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A stream; `keep` says what a second message on a subject meets: refusal, or it replaces.

    `max_age` is in seconds; without one nothing ever leaves the stream by itself, unless
    `own_ends` lets each message say when. With `max_msgs` a stream that keeps the latest refuses
    new subjects once it is full, and goes on taking those it has.
    """

    name: str
    subjects: tuple[str, ...]
    quota: Quota = Quota.SHARED
    keep: Literal["first", "latest"] = "first"
    max_age: float = 0.0
    own_ends: bool = False
    max_msgs: int = 0


@dataclass(frozen=True, slots=True)
class ConsumerSpec:
    """A durable pull consumer; `ack_all` acknowledges everything up to a message.

    `from_now` begins with what comes after it was made.
    """

    stream: str
    durable: str
    filters: tuple[str, ...]
    ack_all: bool = False
    from_now: bool = False

    @property
    def role(self) -> Role:
        """Whose it is."""
        return Role.VALIDATOR if self.durable == NOTIFIER else Role(self.durable)


CERTS_SUBJECTS: Final = (
    "cert.*.*.issued",
    "cert.*.*.status.*",
    "key.*.issued.*.*",
    "key.*.compromised.*",
)
_CRL_DAYS: Final = 90
_WINDOW_SECONDS: Final = 2 * 86400.0  # a device's window is of 24 hours, and lives one more


def streams(shards: Sequence[str]) -> tuple[StreamSpec, ...]:
    """All streams."""
    return (
        *(
            StreamSpec(enroll_stream(s), (f"enroll.{s}.*.*.*.*.*",), Quota.ENROLLMENTS)
            for s in shards
        ),
        StreamSpec(CERTS, CERTS_SUBJECTS, Quota.CERTIFICATES),
        StreamSpec(CRLS, ("crl.*.*.*.*",), Quota.CRLS, max_age=_CRL_DAYS * 86400.0),
        StreamSpec(OPS, ("ops.*.*.*.*.*",), Quota.ORDERS),
        StreamSpec(CA_CHAINS, ("$KV.CA_CHAINS.*",), keep="latest", max_msgs=REPLICA_NAMES),
        StreamSpec(REPLAYS, ("replay.*.*.*",), own_ends=True),
        StreamSpec(DEVICES, ("$KV.DEVICES.*.*",), own_ends=True, max_age=_WINDOW_SECONDS),
        StreamSpec(
            REPLICAS, ("$KV.REPLICAS.*.*",), keep="latest", max_age=PRESENCE_SECONDS,
            max_msgs=REPLICA_NAMES,
        ),
        StreamSpec(DEAD_LETTERS, ("dead.*.*.*",), Quota.DEAD_LETTERS),
    )  # fmt: skip


def consumers(shards: Sequence[str]) -> tuple[ConsumerSpec, ...]:
    """All durable consumers."""
    enroll = [
        spec
        for s in shards
        for spec in (
            ConsumerSpec(
                enroll_stream(s),
                "validator",
                tuple(f"enroll.{s}.*.*.*.*.{stage}" for stage in ("request", "decision")),
            ),
            ConsumerSpec(enroll_stream(s), "issuer", (f"enroll.{s}.*.*.*.*.verdict",)),
            ConsumerSpec(enroll_stream(s), "audit", (f"enroll.{s}.>",), ack_all=True),
        )
    ]
    others = (
        ConsumerSpec(name, "audit", subjects, ack_all=True)
        for name, subjects in (
            (CERTS, CERTS_SUBJECTS),
            (OPS, ("ops.>",)),
            (DEAD_LETTERS, ("dead.>",)),
        )
    )
    orders = (
        ConsumerSpec(OPS, "validator", (RESUME_ORDERS,)),
        ConsumerSpec(OPS, "issuer", ("ops.revoke.*.*.*.order", RESUME_ORDERS)),
    )
    return (*enroll, *orders, *others)


def notifiers(shards: Sequence[str], profiles: Sequence[str]) -> tuple[ConsumerSpec, ...]:
    """Consumers of the ends of these profiles' enrollments, for who is told of them."""
    return tuple(
        ConsumerSpec(
            enroll_stream(shard),
            NOTIFIER,
            tuple(
                f"enroll.{shard}.{profile}.*.*.*.{stage}"
                for profile in profiles
                for stage in ("verdict", "outcome")
            ),
            from_now=True,
        )
        for shard in shards
    )
