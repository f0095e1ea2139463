"""Streams and durable consumers, made from the catalogue of the log (shared/log/catalog.py)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from shared.limits import REPLICA_NAMES
from shared.log.catalog import CHANNELS, OUTCOME, VERDICT
from shared.log.channels import Channel
from shared.log.roles import Role
from shared.log.streams import (
    CA_CHAINS,
    CERTS,
    CRLS,
    DEAD_LETTERS,
    DEVICES,
    OPS,
    REPLAYS,
    REPLICAS,
    enroll_stream,
)

ACK_WAIT_SECONDS: Final = 5.0
HEARTBEAT_SECONDS: Final = 20
NOTIFIER: Final = "notifier"
_GATEWAY: Final = re.compile("[a-zA-Z0-9-]{1,64}")


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
    COMMANDS = "commands"
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


_CRL_DAYS: Final = 90
_WINDOW_SECONDS: Final = 2 * 86400.0  # a device's window is of 24 hours, and lives one more


def streams(shards: Sequence[str]) -> tuple[StreamSpec, ...]:
    """All streams."""
    return (
        *(StreamSpec(enroll_stream(s), _subjects(enroll_stream(s)), Quota.ENROLLMENTS)
          for s in shards),
        StreamSpec(CERTS, _subjects(CERTS), Quota.CERTIFICATES),
        StreamSpec(CRLS, _subjects(CRLS), Quota.CRLS, max_age=_CRL_DAYS * 86400.0),
        StreamSpec(OPS, _subjects(OPS), Quota.COMMANDS),
        StreamSpec(CA_CHAINS, _subjects(CA_CHAINS), keep="latest", max_msgs=REPLICA_NAMES),
        StreamSpec(REPLAYS, _subjects(REPLAYS), own_ends=True),
        StreamSpec(DEVICES, _subjects(DEVICES), own_ends=True, max_age=_WINDOW_SECONDS),
        StreamSpec(
            REPLICAS, _subjects(REPLICAS), keep="latest", max_age=HEARTBEAT_SECONDS,
            max_msgs=REPLICA_NAMES,
        ),
        StreamSpec(DEAD_LETTERS, _subjects(DEAD_LETTERS), Quota.DEAD_LETTERS),
    )  # fmt: skip


def channels_of(stream: str) -> list[tuple[Channel, str]]:
    """Return the channels whose messages a stream keeps, each with its wildcard there."""
    kept = ((row, row.kept_by(stream)) for row in CHANNELS.rows)
    return [(row, row.wildcard(**fields)) for row, fields in kept if fields is not None]


def _subjects(stream: str) -> tuple[str, ...]:
    """Return what a stream keeps: wildcards over the channels that begin alike and are as long."""
    groups: dict[tuple[str, int], list[list[str]]] = {}
    for _, wildcard in channels_of(stream):
        tokens = wildcard.split(".")
        groups.setdefault((tokens[0], len(tokens)), []).append(tokens)
    return tuple(
        ".".join(at[0] if len(set(at)) == 1 else "*" for at in zip(*group, strict=True))
        for group in groups.values()
    )


def _everything(stream: str) -> tuple[str, ...]:
    """Return filters for all that a stream keeps: one of its own where one can say it."""
    subjects = _subjects(stream)
    if len(subjects) > 1:
        return subjects
    fixed = subjects[0].split(".*")[0]
    return (f"{fixed}.>",)


def consumers(shards: Sequence[str]) -> tuple[ConsumerSpec, ...]:
    """All durable consumers: of each role what the catalogue hands it, of the auditor all."""
    found = []
    for stream in (*map(enroll_stream, shards), CERTS, OPS, DEAD_LETTERS):
        channels = channels_of(stream)
        for role in (Role.VALIDATOR, Role.ISSUER):
            filters = tuple(wildcard for row, wildcard in channels if role in row.consumers)
            if filters:
                found.append(ConsumerSpec(stream, role.value, filters))
        found.append(ConsumerSpec(stream, Role.AUDIT.value, _everything(stream), ack_all=True))
    return tuple(found)


def notifiers(shards: Sequence[str], profiles: Sequence[str]) -> tuple[ConsumerSpec, ...]:
    """Consumers of the ends of these profiles' enrollments, for who is told of them."""
    return tuple(
        ConsumerSpec(
            enroll_stream(shard),
            NOTIFIER,
            tuple(
                row.wildcard(shard=shard, profile=profile)
                for profile in profiles
                for row in (VERDICT, OUTCOME)
            ),
            from_now=True,
        )
        for shard in shards
    )


def recorded(shards: Sequence[str]) -> tuple[str, ...]:
    """The streams that the audit service records where these shards are."""
    return tuple(spec.stream for spec in consumers(shards) if spec.durable == "audit")
