"""Streams and durable consumers, derived from the catalogue of the log (shared/log/catalog.py)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from shared.limits import MAX_OCSP_DAYS, REPLICA_NAMES
from shared.log.catalog import CHANNELS, CONFIRMATION, OUTCOME, VERDICT
from shared.log.channels import Channel
from shared.log.roles import Role
from shared.log.streams import (
    CA_CHAINS,
    CERTS,
    CRLS,
    DEAD_LETTERS,
    DEVICES,
    OCSP,
    OPS,
    REPLAYS,
    REPLICAS,
    enroll_stream,
)

ACK_WAIT_SECONDS: Final = 5.0
HEARTBEAT_SECONDS: Final = 20
NOTIFIER: Final = "notifier"
CONFIRMER: Final = "confirmer"
_GATEWAY: Final = re.compile("[a-zA-Z0-9-]{1,64}")


def ask_subject(stream: str) -> str:
    """Return the subject on which a stream's leader is asked for sequences; stores nothing."""
    return f"ask.{stream}"


def size_subject(stream: str) -> str:
    """Return the subject on which the audit service asks how full a stream is."""
    return f"size.{stream}"


def ocsp_hints(issuer: str) -> str:
    """Return the subject on which a new OCSP response is announced by its serial number."""
    return f"status.{issuer}"


def quota_hints(stream: str) -> str:
    """Return the subject on which the audit service tells gateways how full a stream is."""
    return f"quota.{stream}"


def gateway_hints(gateway: str) -> str:
    """Return the subject on which terminal events are announced to a gateway.

    The name comes from an unsigned event, so one that is not a valid token is replaced.
    """
    return f"gw.{gateway if _GATEWAY.fullmatch(gateway) else 'nobody'}"


class Quota(StrEnum):
    """Classes of streams that share a configured maximum size."""

    ENROLLMENTS = "enrollments"
    CERTIFICATES = "certificates"
    CRLS = "crls"
    OCSP = "ocsp"
    COMMANDS = "commands"
    SHARED = "shared"
    DEAD_LETTERS = "dead_letters"


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A stream to create.

    `keep` says whether a second message on a subject is refused ("first") or replaces the first
    one ("latest"). Messages expire after `max_age` seconds (0: never) and, with `own_ends`, after
    their own TTL. With `max_msgs`, a full stream that keeps the latest refuses new subjects but
    still accepts messages on those that it has.
    """

    name: str
    subjects: tuple[str, ...]
    quota: Quota = Quota.SHARED
    keep: Literal["first", "latest"] = "first"
    max_age: float = 0.0
    own_ends: bool = False
    max_msgs: int = 0

    @property
    def compressed(self) -> bool:
        """Whether the server compresses what is no longer written to.

        Enrollments are most of the log, and few are read again. Reading one of the others, such as
        the record of a key, must not mean decompressing the megabytes that it is stored among.
        """
        return self.quota is Quota.ENROLLMENTS


@dataclass(frozen=True, slots=True)
class ConsumerSpec:
    """A durable pull consumer to create.

    With `ack_all` an acknowledgement covers all messages up to that one. With `from_now` the
    consumer delivers only messages stored after its creation.
    """

    stream: str
    durable: str
    filters: tuple[str, ...]
    ack_all: bool = False
    from_now: bool = False

    @property
    def role(self) -> Role:
        """The role that uses the consumer."""
        return Role.VALIDATOR if self.durable in (NOTIFIER, CONFIRMER) else Role(self.durable)


_CRL_DAYS: Final = 90
_WINDOW_SECONDS: Final = 2 * 86400.0  # a device's window of 24 hours, kept for another 24


def streams(shards: Sequence[str]) -> tuple[StreamSpec, ...]:
    """Return all streams."""
    return (
        *(StreamSpec(enroll_stream(s), _subjects(enroll_stream(s)), Quota.ENROLLMENTS)
          for s in shards),
        StreamSpec(CERTS, _subjects(CERTS), Quota.CERTIFICATES),
        StreamSpec(CRLS, _subjects(CRLS), Quota.CRLS, max_age=_CRL_DAYS * 86400.0),
        StreamSpec(
            OCSP, _subjects(OCSP), Quota.OCSP, own_ends=True, max_age=MAX_OCSP_DAYS * 86400.0
        ),
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
    """Return the channels whose messages a stream stores, each with its wildcard there."""
    kept = ((row, row.kept_by(stream)) for row in CHANNELS.rows)
    return [(row, row.wildcard(**fields)) for row, fields in kept if fields is not None]


def _subjects(stream: str) -> tuple[str, ...]:
    """Return a stream's subjects: one wildcard per first token and number of tokens."""
    groups: dict[tuple[str, int], list[list[str]]] = {}
    for _, wildcard in channels_of(stream):
        tokens = wildcard.split(".")
        groups.setdefault((tokens[0], len(tokens)), []).append(tokens)
    return tuple(
        ".".join(at[0] if len(set(at)) == 1 else "*" for at in zip(*group, strict=True))
        for group in groups.values()
    )


def _everything(stream: str) -> tuple[str, ...]:
    """Return filters that match everything in a stream, a single one where possible."""
    subjects = _subjects(stream)
    if len(subjects) > 1:
        return subjects
    fixed = subjects[0].split(".*")[0]
    return (f"{fixed}.>",)


def consumers(shards: Sequence[str]) -> tuple[ConsumerSpec, ...]:
    """Return all durable consumers: each role's by the catalogue, the audit service's for all."""
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
    """Return the consumers of what ends these profiles' enrollments, for notifications."""
    return _of_profiles(NOTIFIER, shards, profiles, (VERDICT, OUTCOME, CONFIRMATION))


def confirmers(shards: Sequence[str], profiles: Sequence[str]) -> tuple[ConsumerSpec, ...]:
    """Return the consumers of these profiles' results, for their connections' services."""
    return _of_profiles(CONFIRMER, shards, profiles, (VERDICT, OUTCOME))


def _of_profiles(
    durable: str, shards: Sequence[str], profiles: Sequence[str], channels: Sequence[Channel]
) -> tuple[ConsumerSpec, ...]:
    """Return a consumer of some profiles' new messages on these channels for each shard."""
    return tuple(
        ConsumerSpec(
            enroll_stream(shard),
            durable,
            tuple(
                row.wildcard(shard=shard, profile=profile)
                for profile in profiles
                for row in channels
            ),
            from_now=True,
        )
        for shard in shards
    )


def recorded(shards: Sequence[str]) -> tuple[str, ...]:
    """Return the streams that the audit service records, given these shards."""
    return tuple(spec.stream for spec in consumers(shards) if spec.durable == "audit")
