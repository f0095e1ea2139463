"""Self-test at start: a role starts only if the bus refuses what the role must not do."""

from shared.bus.core import BusError, NobodyListensError, NotAllowedError
from shared.bus.jetstream import JetStreamBus
from shared.log.roles import SERVICES, Role

# Keeps the message out of the log even if the publish is allowed.
_NEVER = {"Nats-Expected-Last-Subject-Sequence": "18446744073709551615"}
_FOREIGN_INBOX = "_INBOX.self-test"
_FORBIDDEN = dict(zip(SERVICES, ("verdict", "outcome", "verdict", "request"), strict=True))


def forbidden_subject(role: Role, shard: str) -> str:
    """Return a subject that this role must not be able to append to, for the self-test."""
    return f"enroll.{shard}.self-test.none.none.0.{_FORBIDDEN[role]}"


class PrivilegeError(BusError):
    """Raised if the bus lets a role use a subject that it must not use."""


async def assert_least_privilege(bus: JetStreamBus, role: Role, shard: str) -> None:
    """Raise `PrivilegeError` unless the bus refuses all that this role must not do.

    Tries to append another role's event, to forge a reply and to subscribe to others' replies.
    """
    await _assert_refused(bus, role, forbidden_subject(role, shard))
    await _assert_refused(bus, role, f"{_FOREIGN_INBOX}.1")
    if await _may_hear(bus, "_INBOX.>"):
        raise PrivilegeError(f"the bus lets role {role} read other users' replies: re-provision it")


async def _assert_refused(bus: JetStreamBus, role: Role, subject: str) -> None:
    """Publish and require a refusal; "nothing listens" is not one: another replica could listen."""
    try:
        await bus.request(subject, b"", dict(_NEVER))
    except NotAllowedError:
        return
    except NobodyListensError:
        pass
    raise PrivilegeError(f"the bus lets role {role} publish {subject}: re-provision it")


async def _may_hear(bus: JetStreamBus, subject: str) -> bool:
    """Return whether the server lets this role subscribe to a subject."""
    subscription = await bus.client.subscribe(subject)
    for _ in range(2):  # nats-py's first ping overtakes what is still waiting to be sent
        await bus.client.flush()
    await subscription.unsubscribe()
    return subject.lower() not in bus.unheard
