"""Operators' decisions on held enrollments."""

from services.audit.commands.context import ConflictError, NotFoundError, OperatorContext
from shared.bus.log import read_stage
from shared.log.events.enrollment import EnrollmentHeld, HoldDecided
from shared.log.stages import Stage
from shared.log.streams import enroll_stream
from shared.log.subjects import parse_prefix


async def decide(context: OperatorContext, enrollment: str, note: str, *, approved: bool) -> None:
    """Approve or deny a held enrollment; the validator turns the decision into a verdict.

    Raises `NotFoundError` if there is no such enrollment, `ConflictError` if it is not held or is
    already decided.
    """
    try:
        found = parse_prefix(enrollment)
    except ValueError:
        raise NotFoundError(f"{enrollment}: no such enrollment") from None
    place = found.subject(Stage.HOLD)
    held = await context.bus.get_last_or_leader(enroll_stream(found.shard), place)
    event = read_stage(held, context.validators, Stage.HOLD) if held is not None else None
    if not isinstance(event, EnrollmentHeld):
        request = found.subject(Stage.REQUEST)
        if await context.bus.get_last_or_leader(enroll_stream(found.shard), request) is None:
            raise NotFoundError(f"{enrollment}: no such enrollment")
        raise ConflictError(f"{enrollment} is not held")
    decided = HoldDecided(
        request_sha256=event.request_sha256, approved=approved, operator=context.operator, note=note
    )
    subject = found.subject(Stage.DECISION)
    if not await context.append(subject, decided, held):
        raise ConflictError(f"{enrollment} has already been decided")
