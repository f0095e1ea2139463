"""The log of an enrollment as the audit service sees it."""

from typing import Any, Final

from shared.log.envelope import Message, Stored, encode
from shared.log.events.base import EventPayload
from shared.log.events.certificates import CertificateRecorded
from shared.log.events.enrollment import EnrollmentApproved, EnrollmentRequested, Facts
from shared.log.stages import Stage
from shared.log.subjects import EnrollmentId
from tests.support import golden
from tests.support.world import NANOSECONDS, NOW

STREAM: Final = "ENROLL_0"
_APPROVED: Final = golden.EVENTS["EnrollmentApproved", 1][1]
assert isinstance(_APPROVED, EnrollmentApproved)
_FACTS: Final = _APPROVED.facts


def event(kind: str, **changes: Any) -> EventPayload:
    """The golden event of a type, altered."""
    found = golden.EVENTS[kind, 1][1]
    values = {name: getattr(found, name) for name in found.__struct_fields__}
    return type(found)(**(values | changes))


def stored(
    sequence: int, subject: str, found: EventPayload | Message, seconds: float | None = None
) -> Stored:
    message = found if isinstance(found, Message) else encode(found)
    moment = NOW + (sequence if seconds is None else seconds)
    return Stored(subject, message.payload, message.headers, sequence, int(moment * NANOSECONDS))


def enrollment(number: int, profile: str = "corp") -> EnrollmentId:
    return EnrollmentId("0", profile, f"transaction{number}", "csr", 0)


def requested(sequence: int, number: int, profile: str = "corp", **changes: Any) -> Stored:
    found = event("EnrollmentRequested", **({"transaction_id": f"T{number}"} | changes))
    assert isinstance(found, EnrollmentRequested)
    return stored(sequence, enrollment(number, profile).subject(Stage.REQUEST), found)


def approved(sequence: int, number: int, device: str = "CN=device") -> Stored:
    """The golden approval of another device."""
    golden_facts = {n: getattr(_FACTS, n) for n in _FACTS.__struct_fields__}
    verdict = event("EnrollmentApproved", facts=Facts(**(golden_facts | {"subject": device})))
    return stored(sequence, enrollment(number).subject(Stage.VERDICT), verdict)


def issued(sequence: int, number: int, serial: str) -> Stored:
    outcome = event("CertificateIssued", serial=serial)
    return stored(sequence, enrollment(number).subject(Stage.OUTCOME), outcome)


def recorded(sequence: int, number: int, serial: str) -> Stored:
    found = event("CertificateRecorded", enrollment=enrollment(number).prefix(), serial=serial)
    assert isinstance(found, CertificateRecorded)
    return stored(sequence, f"cert.local.{serial}.issued", found)
