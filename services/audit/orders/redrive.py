"""What a worker gave up on, tried anew: an enrollment as its next attempt, an order once more."""

from typing import Final

from services.audit.office import NotThereError, Office, OrderError, TooLateError
from services.audit.orders.revoke import revoke_certificate
from shared.access_events import RedriveOrdered
from shared.bus.topology import DEAD_LETTERS, OPS, Role, enroll_stream
from shared.events import CertificateIssued, DeadLetter, EnrollmentRejected, RevocationOrdered
from shared.stored import (
    Message,
    Stored,
    UnreadableEventError,
    authenticate,
    authenticate_as,
    decode,
    sign,
)
from shared.subjects import EnrollmentId, Stage, parse_subject, redrive_order

_ANSWER_SECONDS: Final = 10.0
_DRIVEN: Final[dict[str, frozenset[Stage]]] = {
    Role.VALIDATOR: frozenset({Stage.REQUEST, Stage.DECISION}),
    Role.ISSUER: frozenset({Stage.VERDICT}),
}


async def redrive(office: Office, stream: str, sequence: int) -> str:
    """Have the message at this place worked on again; what there is to say of it."""
    letter = await _letter(office, stream, sequence)
    if letter.subject.startswith("ops.revoke."):
        return await _revoke(office, letter)
    try:
        enrollment, stage = parse_subject(letter.subject)
    except ValueError:
        raise NotThereError(f"{letter.subject}: nothing that can be driven again") from None
    if stage not in _DRIVEN.get(letter.role, frozenset()):
        raise TooLateError("a notification is not sent again: the enrollment itself has ended well")
    newest = await _newest(office, enrollment)
    await _check_failed(office, newest)
    return await _order(office, letter, newest)


async def _letter(office: Office, stream: str, sequence: int) -> DeadLetter:
    stored = await office.bus.get_last(DEAD_LETTERS, f"dead.*.{stream}.{sequence}")
    try:
        letter = decode(stored.payload, stored.headers) if stored is not None else None
    except UnreadableEventError:
        letter = None
    if not isinstance(letter, DeadLetter):
        raise NotThereError(f"no dead letter of {stream} {sequence}")
    return letter


async def _revoke(office: Office, letter: DeadLetter) -> str:
    """A revocation is ordered again, for the same reason."""
    stored = await office.bus.get_last(OPS, letter.subject)
    if stored is None:
        raise NotThereError(f"{letter.subject}: no such order")
    order = authenticate_as(RevocationOrdered, stored, office.operators)
    return await revoke_certificate(office, order.issuer, order.serial, order.reason)


async def _newest(office: Office, enrollment: EnrollmentId) -> EnrollmentId:
    """The device may have asked again by itself."""
    stream = enroll_stream(enrollment.shard)
    stored = await office.bus.get_last(stream, enrollment.any_attempt())
    try:
        return parse_subject(stored.subject)[0] if stored is not None else enrollment
    except ValueError:
        return enrollment


async def _check_failed(office: Office, enrollment: EnrollmentId) -> None:
    """`TooLateError` for one that has its certificate, or is being worked on."""
    stream = enroll_stream(enrollment.shard)
    outcome = await office.bus.get_last(stream, enrollment.subject(Stage.OUTCOME))
    if outcome is not None:
        event = authenticate(outcome, office.issuers, Stage.OUTCOME)
        if isinstance(event, CertificateIssued):
            raise TooLateError(f"attempt {enrollment.attempt} has got its certificate")
        return
    verdict = await office.bus.get_last(stream, enrollment.subject(Stage.VERDICT))
    if verdict is None or not _refuses(office, verdict):
        raise TooLateError(f"attempt {enrollment.attempt} is being worked on")


def _refuses(office: Office, verdict: Stored) -> bool:
    return isinstance(authenticate(verdict, office.validators, Stage.VERDICT), EnrollmentRejected)


async def _order(office: Office, letter: DeadLetter, newest: EnrollmentId) -> str:
    """The order stands on the log; a gateway that hears of it obeys."""
    following = newest.at(newest.attempt + 1)
    event = RedriveOrdered(
        stream=letter.stream,
        sequence=letter.sequence,
        enrollment=newest.prefix(),
        attempt=following.attempt,
        operator=office.operator,
    )
    subject = redrive_order(letter.stream, letter.sequence, following.attempt)
    await office.append(subject, sign(event, subject, event.request_sha256, office.settings.signer))
    await office.bus.hint("order.redrive", Message(subject.encode(), {}))
    stream, request = enroll_stream(following.shard), following.subject(Stage.REQUEST)
    if await office.until(stream, request, _ANSWER_SECONDS) is None:
        raise OrderError("the order stands on the log; no gateway has obeyed it yet")
    return f"driven again as attempt {following.attempt}"
