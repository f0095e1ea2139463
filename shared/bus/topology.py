"""Streams, durable consumers, and who may touch what: the one table everything is made from."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

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


def device_subject(device: str) -> str:
    """Where a device's window stands: a key of the DEVICES bucket."""
    return f"$KV.DEVICES.{device}"


def replica_subject(role: str, name: str) -> str:
    """Where a running replica says that it is there; `*` for the name is all of them."""
    return f"$KV.REPLICAS.{role}.{name}"


def ask_subject(stream: str) -> str:
    """Where a stream's leader is asked for sequences; nothing is ever stored there."""
    return f"ask.{stream}"


def gateway_hints(gateway: str) -> str:
    """Where terminal events are announced to a gateway; its name came in an unsigned event."""
    return f"gw.{gateway if _GATEWAY.fullmatch(gateway) else 'nobody'}"


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A stream; `keep` says what a second message on a subject meets: refusal, or it replaces.

    `max_age` is in seconds; without one nothing ever leaves the stream by itself, unless
    `own_ends` lets each message say when.
    """

    name: str
    subjects: tuple[str, ...]
    keep: Literal["first", "latest"] = "first"
    max_age: float = 0.0
    own_ends: bool = False


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


@dataclass(frozen=True, slots=True)
class Grant:
    """One subject of the log's account that a role may call; `stream` answers come in numbers."""

    role: Role
    subject: str
    answers: Literal["one", "stream"] = "one"


@dataclass(frozen=True, slots=True)
class HintGrant:
    """Core subjects that one role publishes and another hears."""

    publisher: Role
    listener: Role
    subject: str


_CERTS_SUBJECTS: Final = (
    "cert.*.*.issued",
    "cert.*.*.revoked",
    "key.*.issued.*.*",
    "key.*.compromised",
)
_CRL_DAYS: Final = 90
_ORDERS: Final = (
    "ops.revoke.*.*.*.order",
    "ops.reload.*.*.all.order",
    "ops.ra.*.*.all.order",
    "ops.ra.*.*.*.answer",
    "ops.redrive.*.*.*.order",
    "ops.token.*.*.0.created",
    "ops.token.*.*.0.revoked",
    "ops.challenge.*.*.0.created",
    "ops.challenge.*.*.0.cancelled",
    "ops.checkpoint.*.*.audit.signed",
)

HINTS: Final = (
    HintGrant(Role.VALIDATOR, Role.GATEWAY, "gw.*"),
    HintGrant(Role.ISSUER, Role.GATEWAY, "gw.*"),
    HintGrant(Role.ISSUER, Role.GATEWAY, "chain.*"),
    HintGrant(Role.ISSUER, Role.VALIDATOR, "chain.*"),
    HintGrant(Role.AUDIT, Role.VALIDATOR, "order.*"),
    HintGrant(Role.AUDIT, Role.GATEWAY, "order.*"),
)


def streams(shards: Sequence[str]) -> tuple[StreamSpec, ...]:
    """All streams."""
    return (
        *(StreamSpec(enroll_stream(s), (f"enroll.{s}.*.*.*.*.*",)) for s in shards),
        StreamSpec(CERTS, _CERTS_SUBJECTS),
        StreamSpec(CRLS, ("crl.*.*.*.*",), max_age=_CRL_DAYS * 86400.0),
        StreamSpec(OPS, ("ops.*.*.*.*.*",)),
        StreamSpec(CA_CHAINS, ("$KV.CA_CHAINS.*",), keep="latest"),
        StreamSpec(REPLAYS, ("replay.*.*",), own_ends=True),
        StreamSpec(DEVICES, ("$KV.DEVICES.*",), keep="latest", own_ends=True),
        StreamSpec(REPLICAS, ("$KV.REPLICAS.*.*",), keep="latest", own_ends=True),
        StreamSpec(DEAD_LETTERS, ("dead.*.*.*",)),
    )


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
            (CERTS, _CERTS_SUBJECTS),
            (OPS, ("ops.>",)),
            (DEAD_LETTERS, ("dead.>",)),
        )
    )
    orders = ConsumerSpec(OPS, "issuer", ("ops.revoke.*.*.*.order",))
    return (*enroll, orders, *others)


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


def grants(shards: Sequence[str]) -> tuple[Grant, ...]:
    """Everything any role may call; what is not here, no role can."""
    return (
        *(g for s in shards for g in _shard_grants(s)),
        *(Grant(r, f"$JS.API.DIRECT.GET.{CA_CHAINS}.>") for r in SERVICES if r != Role.ISSUER),
        *(Grant(role, f"$JS.API.DIRECT.GET.{CERTS}.>") for role in SERVICES),
        *(Grant(role, f"$JS.API.DIRECT.GET.{CRLS}.>") for role in (Role.GATEWAY, Role.ISSUER)),
        *(Grant(role, f"$JS.API.DIRECT.GET.{OPS}.>") for role in SERVICES),
        Grant(Role.VALIDATOR, f"$JS.API.DIRECT.GET.{OPS}"),  # orders after the last one seen
        Grant(Role.ISSUER, f"$JS.API.DIRECT.GET.{CERTS}"),  # the body form reads on and on
        Grant(Role.ISSUER, "$KV.CA_CHAINS.*"),
        *(Grant(Role.ISSUER, subject) for subject in _CERTS_SUBJECTS),
        Grant(Role.ISSUER, "crl.*.*.*.*"),
        Grant(Role.ISSUER, "ops.revoke.*.*.*.answer"),
        *(Grant(Role.AUDIT, subject) for subject in _ORDERS),
        *_validator_grants(),
        *_asks((CERTS, OPS), SERVICES),
        *_asks((CRLS,), (Role.GATEWAY, Role.ISSUER)),
        *_asks((REPLAYS,), (Role.VALIDATOR, Role.AUDIT)),
        *_asks((DEVICES,), (Role.VALIDATOR,)),
        *_asks((DEAD_LETTERS,), (Role.AUDIT,)),
        Grant(Role.GATEWAY, f"$KV.REPLICAS.{Role.GATEWAY}.*"),
        *(Grant(Role.AUDIT, f"$JS.API.DIRECT.GET.{stream}.>") for stream in (REPLAYS, REPLICAS)),
        *(Grant(Role.AUDIT, f"$JS.API.DIRECT.GET.{stream}") for stream in (REPLAYS, REPLICAS)),
        Grant(Role.AUDIT, f"$JS.API.DIRECT.GET.{DEAD_LETTERS}.>"),
        *(
            Grant(Role.READER, f"$JS.API.DIRECT.GET.{stream}{form}")
            for stream in (*map(enroll_stream, shards), CERTS, OPS, DEAD_LETTERS)
            for form in ("", ".>")
        ),
        *(Grant(role, f"dead.{role}.*.*") for role in (Role.VALIDATOR, Role.ISSUER)),
        *(
            grant
            for spec in (*consumers(shards), *notifiers(shards, ()))
            for grant in _consumer_grants(spec)
        ),
    )


def _validator_grants() -> tuple[Grant, ...]:
    """What validators share among themselves, and their answers to operators."""
    return (
        Grant(Role.VALIDATOR, "replay.*.*"),
        Grant(Role.VALIDATOR, "$KV.DEVICES.*"),
        Grant(Role.VALIDATOR, f"$KV.REPLICAS.{Role.VALIDATOR}.*"),
        Grant(Role.VALIDATOR, "ops.reload.*.*.*.answer"),
        *(Grant(Role.VALIDATOR, f"$JS.API.DIRECT.GET.{stream}.>") for stream in (REPLAYS, DEVICES)),
    )


def _asks(names: Sequence[str], roles: Sequence[Role]) -> tuple[Grant, ...]:
    """The right to ask leaders: see shared/bus/leader.py."""
    return tuple(Grant(role, ask_subject(name)) for name in names for role in roles)


def _shard_grants(shard: str) -> tuple[Grant, ...]:
    stream = enroll_stream(shard)
    stages = (
        (Role.GATEWAY, "request"),
        (Role.VALIDATOR, "hold"),
        (Role.AUDIT, "decision"),
        (Role.VALIDATOR, "verdict"),
        (Role.ISSUER, "outcome"),
    )
    return (
        *(Grant(role, f"enroll.{shard}.*.*.*.*.{stage}") for role, stage in stages),
        *(Grant(role, f"$JS.API.DIRECT.GET.{stream}.>") for role in SERVICES),
        *_asks((stream,), SERVICES),
    )


def _consumer_grants(spec: ConsumerSpec) -> tuple[Grant, ...]:
    role = spec.role
    common = (
        Grant(role, f"$JS.API.CONSUMER.MSG.NEXT.{spec.stream}.{spec.durable}", "stream"),
        Grant(role, f"$JS.ACK.{spec.stream}.{spec.durable}.>"),
    )
    if role is not Role.AUDIT:
        return common
    return (*common, Grant(role, f"$JS.API.DIRECT.GET.{spec.stream}"))
