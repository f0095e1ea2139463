"""At start: prove that what this role must not do is refused, or do not start."""

from shared.bus.core import BusError, NobodyListensError
from shared.bus.jetstream import JetStreamBus
from shared.bus.topology import Role, forbidden_subject

# Were the publish allowed after all, this would still keep it out of the log.
_NEVER = {"Nats-Expected-Last-Subject-Sequence": "18446744073709551615"}


class LooseBusError(BusError):
    """Raised where the bus let a role reach a subject that is not its own."""


async def assert_least_privilege(bus: JetStreamBus, role: Role, shard: str) -> None:
    """Publish to a forbidden subject; anything but "nobody listens there" is an error."""
    subject = forbidden_subject(role, shard)
    try:
        await bus.request(subject, b"", dict(_NEVER))
    except NobodyListensError:
        return
    raise LooseBusError(f"the bus lets the {role} reach {subject}: provision it again")
