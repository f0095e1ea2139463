"""At start: prove that what this role must not do is refused, or do not start."""

from shared.bus.core import BusError, NobodyListensError, NotAllowedError
from shared.bus.jetstream import JetStreamBus
from shared.log.roles import SERVICES, Role

# Were the publish allowed after all, this would still keep it out of the log.
_NEVER = {"Nats-Expected-Last-Subject-Sequence": "18446744073709551615"}
_FOREIGN_INBOX = "_INBOX.self-test"
_FORBIDDEN = dict(zip(SERVICES, ("verdict", "outcome", "verdict", "request"), strict=True))


def forbidden_subject(role: Role, shard: str) -> str:
    """A subject that this role must not be able to append to: for the self-test at start."""
    return f"enroll.{shard}.self-test.none.none.0.{_FORBIDDEN[role]}"


class PrivilegeError(BusError):
    """Raised where the bus let a role reach a subject that is not its own."""


async def assert_least_privilege(bus: JetStreamBus, role: Role, shard: str) -> None:
    """Try what must be refused: an event of another role, a forged reply, others' replies."""
    await _assert_refused(bus, role, forbidden_subject(role, shard))
    await _assert_refused(bus, role, f"{_FOREIGN_INBOX}.1")
    if await _may_hear(bus, "_INBOX.>"):
        raise PrivilegeError(
            f"the bus lets the {role} hear the replies of others: provision it again"
        )


async def _assert_refused(bus: JetStreamBus, role: Role, subject: str) -> None:
    """Publish; "nobody listens there" is no refusal: another replica could listen."""
    try:
        await bus.request(subject, b"", dict(_NEVER))
    except NotAllowedError:
        return
    except NobodyListensError:
        pass
    raise PrivilegeError(f"the bus lets the {role} publish {subject}: provision it again")


async def _may_hear(bus: JetStreamBus, subject: str) -> bool:
    """Whether the server lets this role subscribe here."""
    subscription = await bus.client.subscribe(subject)
    for _ in range(2):  # nats-py's first ping overtakes what waits to be sent
        await bus.client.flush()
    await subscription.unsubscribe()
    return subject.lower() not in bus.unheard
