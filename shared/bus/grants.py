"""The table of which role may call what; accounts and permissions are generated from it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from shared.bus.topology import (
    ConsumerSpec,
    ask_subject,
    channels_of,
    confirmers,
    consumers,
    notifiers,
    size_subject,
)
from shared.log.catalog import HEARTBEAT
from shared.log.roles import SERVICES, Role
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


@dataclass(frozen=True, slots=True)
class Grant:
    """One subject of the log's account that a role may call.

    `answers` is "stream" if one call can get several replies. `local` is the subject under which
    the role calls it. STREAM.INFO needs one: called under its own name, the server would look for
    the stream in the calling account.
    """

    role: Role
    subject: str
    answers: Literal["one", "stream"] = "one"
    local: str = ""

    @property
    def called(self) -> str:
        """The subject that the role publishes to."""
        return self.local or self.subject


@dataclass(frozen=True, slots=True)
class HintGrant:
    """Core NATS subjects that one role publishes to and another subscribes to."""

    publisher: Role
    listener: Role
    subject: str


_GET: Final = "$JS.API.DIRECT.GET"
HINTS: Final = (
    HintGrant(Role.VALIDATOR, Role.GATEWAY, "gw.*"),
    HintGrant(Role.ISSUER, Role.GATEWAY, "gw.*"),
    HintGrant(Role.ISSUER, Role.GATEWAY, "chain.*"),
    HintGrant(Role.ISSUER, Role.VALIDATOR, "chain.*"),
    HintGrant(Role.ISSUER, Role.GATEWAY, "status.*"),
    HintGrant(Role.AUDIT, Role.VALIDATOR, "command.*"),
    HintGrant(Role.AUDIT, Role.GATEWAY, "command.*"),
    HintGrant(Role.AUDIT, Role.GATEWAY, "quota.*"),
)


@dataclass(frozen=True, slots=True)
class Reading:
    """The roles that may read a stream: `get` by subject, `scan` in order, `ask` its leader.

    The leader is asked where the absence of a message decides something: see shared/bus/leader.py.
    """

    get: tuple[Role, ...]
    scan: tuple[Role, ...]
    ask: tuple[Role, ...]


# Gateways are not included because they face the Internet: they may read only the kinds of events
# that they reply with (`readers` in the catalogue).
_INNER: Final = (Role.VALIDATOR, Role.ISSUER, Role.AUDIT)
_ENROLL: Final = Reading(_INNER, (), SERVICES)
_READINGS: Final[Mapping[str, Reading]] = {
    CERTS: Reading(_INNER, (Role.VALIDATOR, Role.ISSUER), SERVICES),
    CRLS: Reading(*((Role.GATEWAY, Role.ISSUER),) * 3),
    OCSP: Reading(*((Role.GATEWAY, Role.ISSUER),) * 3),
    OPS: Reading(_INNER, (Role.VALIDATOR,), SERVICES),
    CA_CHAINS: Reading((Role.GATEWAY, Role.VALIDATOR, Role.AUDIT), (), SERVICES),
    REPLAYS: Reading(*((Role.VALIDATOR, Role.AUDIT),) * 3),
    DEVICES: Reading(*((Role.VALIDATOR,),) * 3),
    REPLICAS: Reading((Role.AUDIT,), (Role.AUDIT,), ()),
    DEAD_LETTERS: Reading((Role.AUDIT,), (), (Role.AUDIT,)),
}


def grants(shards: Sequence[str]) -> tuple[Grant, ...]:
    """Return everything that any role may call; a role can call nothing else."""
    readings = {**{enroll_stream(s): _ENROLL for s in shards}, **_READINGS}
    return (
        *(g for stream, reading in readings.items() for g in _stream_grants(stream, reading)),
        *(
            Grant(Role.AUDIT, f"$JS.API.STREAM.INFO.{stream}", local=size_subject(stream))
            for stream in map(enroll_stream, shards)
        ),
        # A role reads back its own heartbeat for its storage time: see shared/runtime/log_clock.py.
        *(
            Grant(role, f"{_GET}.{REPLICAS}.{HEARTBEAT.wildcard(role=role)}")
            for role in (Role.GATEWAY, Role.VALIDATOR, Role.ISSUER)
        ),
        # Probes of whether appends work: see shared/runtime/moving.py.
        *(Grant(role, HEARTBEAT.wildcard(role=f"probe-{role}")) for role in SERVICES),
        *(
            Grant(Role.READER, f"{_GET}.{stream}{form}")
            for stream in (*map(enroll_stream, shards), CERTS, OPS, DEAD_LETTERS)
            for form in ("", ".>")
        ),
        *(
            grant
            for spec in (*consumers(shards), *notifiers(shards, ()), *confirmers(shards, ()))
            for grant in _consumer_grants(spec)
        ),
    )


def _stream_grants(stream: str, reading: Reading) -> Iterator[Grant]:
    """Yield the grants of a stream: writers and readers of its channels, and its `reading`."""
    for row, wildcard in channels_of(stream):
        for role in row.writers:
            own = row.wildcard(role=role) if "role" in row.fields() else wildcard
            yield Grant(role, own)
        for role in row.readers:
            yield Grant(role, f"{_GET}.{stream}.{wildcard}")
    for role in reading.get:
        yield Grant(role, f"{_GET}.{stream}.>")
    for role in reading.scan:
        yield Grant(role, f"{_GET}.{stream}")
    for role in reading.ask:
        yield Grant(role, ask_subject(stream))


def _consumer_grants(spec: ConsumerSpec) -> tuple[Grant, ...]:
    role = spec.role
    common = (
        Grant(role, f"$JS.API.CONSUMER.MSG.NEXT.{spec.stream}.{spec.durable}", "stream"),
        Grant(role, f"$JS.ACK.{spec.stream}.{spec.durable}.>"),
    )
    if role is not Role.AUDIT:
        return common
    return (*common, Grant(role, f"{_GET}.{spec.stream}"))
