"""Who may call what: the table that accounts, permissions and self-tests are made from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from shared.bus.topology import (
    CA_CHAINS,
    CERTS,
    CERTS_SUBJECTS,
    CRLS,
    DEAD_LETTERS,
    DEVICES,
    OPS,
    REPLAYS,
    REPLICAS,
    RESUME_ORDERS,
    SERVICES,
    ConsumerSpec,
    Role,
    ask_subject,
    consumers,
    enroll_stream,
    notifiers,
    size_subject,
)


@dataclass(frozen=True, slots=True)
class Grant:
    """One subject of the log's account that a role may call; `stream` answers come in numbers.

    `local` is what the role itself calls it. STREAM.INFO needs one: under its own name the server
    would look for the stream in the asking account.
    """

    role: Role
    subject: str
    answers: Literal["one", "stream"] = "one"
    local: str = ""

    @property
    def called(self) -> str:
        """The subject that the role publishes."""
        return self.local or self.subject


@dataclass(frozen=True, slots=True)
class HintGrant:
    """Core subjects that one role publishes and another hears."""

    publisher: Role
    listener: Role
    subject: str


_ORDERS: Final = (
    "ops.revoke.*.*.*.order",
    "ops.reload.*.*.all.order",
    "ops.ra.*.*.all.order",
    "ops.ra.*.*.*.answer",
    "ops.redrive.*.*.*.order",
    RESUME_ORDERS,
    "ops.token.*.*.0.created",
    "ops.token.*.*.0.revoked",
    "ops.challenge.*.*.0.created",
    "ops.challenge.*.*.*.cancelled",
    "ops.checkpoint.*.*.audit.signed",
)

HINTS: Final = (
    HintGrant(Role.VALIDATOR, Role.GATEWAY, "gw.*"),
    HintGrant(Role.ISSUER, Role.GATEWAY, "gw.*"),
    HintGrant(Role.ISSUER, Role.GATEWAY, "chain.*"),
    HintGrant(Role.ISSUER, Role.VALIDATOR, "chain.*"),
    HintGrant(Role.AUDIT, Role.VALIDATOR, "order.*"),
    HintGrant(Role.AUDIT, Role.GATEWAY, "order.*"),
    HintGrant(Role.AUDIT, Role.GATEWAY, "quota.*"),
)


# Not the gateways, which face the Internet: they read what they answer with, by its subject.
_INNER: Final = (Role.VALIDATOR, Role.ISSUER, Role.AUDIT)


def grants(shards: Sequence[str]) -> tuple[Grant, ...]:
    """Everything any role may call; what is not here, no role can."""
    return (
        *(g for s in shards for g in _shard_grants(s)),
        *(
            Grant(role, f"$JS.API.DIRECT.GET.{CA_CHAINS}.>")
            for role in (Role.GATEWAY, Role.VALIDATOR, Role.AUDIT)
        ),
        *(Grant(role, f"$JS.API.DIRECT.GET.{CERTS}.>") for role in _INNER),
        *(Grant(role, f"$JS.API.DIRECT.GET.{CRLS}.>") for role in (Role.GATEWAY, Role.ISSUER)),
        *(Grant(role, f"$JS.API.DIRECT.GET.{OPS}.>") for role in _INNER),
        *_gateway_reads(),
        Grant(Role.VALIDATOR, f"$JS.API.DIRECT.GET.{OPS}"),  # orders after the last one seen
        Grant(Role.ISSUER, f"$JS.API.DIRECT.GET.{CERTS}"),  # the body form reads on and on
        *(Grant(role, f"$JS.API.DIRECT.GET.{CRLS}") for role in (Role.GATEWAY, Role.ISSUER)),
        Grant(Role.ISSUER, "$KV.CA_CHAINS.*"),
        *(Grant(Role.ISSUER, subject) for subject in CERTS_SUBJECTS),
        Grant(Role.ISSUER, "crl.*.*.*.*"),
        Grant(Role.ISSUER, "ops.revoke.*.*.*.answer"),
        *(Grant(Role.AUDIT, subject) for subject in _ORDERS),
        *_validator_grants(),
        *_asks((CERTS, OPS, CA_CHAINS), SERVICES),
        *_asks((CRLS,), (Role.GATEWAY, Role.ISSUER)),
        *_asks((REPLAYS,), (Role.VALIDATOR, Role.AUDIT)),
        *_asks((DEVICES,), (Role.VALIDATOR,)),
        *_asks((DEAD_LETTERS,), (Role.AUDIT,)),
        *(Grant(role, f"$KV.REPLICAS.{role}.*") for role in SERVICES),
        # Its own heartbeat, with the time it was stored at: see shared/runtime/log_clock.py.
        *(
            Grant(role, f"$JS.API.DIRECT.GET.{REPLICAS}.$KV.REPLICAS.{role}.*")
            for role in (Role.GATEWAY, Role.VALIDATOR, Role.ISSUER)
        ),
        *(Grant(role, f"$KV.REPLICAS.probe-{role}.*") for role in SERVICES),  # see moving.py
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


def _gateway_reads() -> tuple[Grant, ...]:
    """Certificates by serial, orders to read RA pairs anew and to drive a request again."""
    subjects = (
        f"{CERTS}.cert.*.*.issued",
        f"{OPS}.ops.ra.*.*.all.order",
        f"{OPS}.ops.redrive.*.*.*.order",
    )
    return tuple(Grant(Role.GATEWAY, f"$JS.API.DIRECT.GET.{subject}") for subject in subjects)


def _validator_grants() -> tuple[Grant, ...]:
    """What validators share among themselves, and their answers to operators."""
    return (
        Grant(Role.VALIDATOR, "replay.*.*.*"),
        Grant(Role.VALIDATOR, "$KV.DEVICES.*.*"),
        Grant(Role.VALIDATOR, "ops.reload.*.*.*.answer"),
        # The body form reads series from their beginning, past what does not authenticate.
        *(
            Grant(Role.VALIDATOR, f"$JS.API.DIRECT.GET.{stream}{form}")
            for stream in (REPLAYS, DEVICES)
            for form in ("", ".>")
        ),
        Grant(Role.VALIDATOR, f"$JS.API.DIRECT.GET.{CERTS}"),
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
        *(Grant(role, f"$JS.API.DIRECT.GET.{stream}.>") for role in _INNER),
        *(
            Grant(Role.GATEWAY, f"$JS.API.DIRECT.GET.{stream}.enroll.{shard}.*.*.*.*.{stage}")
            for stage in ("request", "hold", "verdict", "outcome")
        ),
        *_asks((stream,), SERVICES),
        Grant(Role.AUDIT, f"$JS.API.STREAM.INFO.{stream}", local=size_subject(stream)),
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
