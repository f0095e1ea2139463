"""Check the result of each request of a load run: its certificate, or why it failed."""

from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from benchmarks.check import WrongReply, check
from benchmarks.enrollments import Enrollment
from benchmarks.figures import Answer
from benchmarks.fire import Shot


def evaluate(
    enrollments: Sequence[Enrollment],
    shots: Sequence[Shot],
    trusted: list[x509.Certificate],
    *,
    lenient: bool = False,
) -> tuple[Answer, ...]:
    """Check each answer in full; a serial number must be unique (RFC 5280 s4.1.2.2).

    With `lenient`, an answer with a repeated serial number is marked but is not a failure.
    """
    serials: set[int] = set()
    answers = []
    for enrollment, shot in zip(enrollments, shots, strict=True):
        certificate, failure = _evaluate(enrollment, shot, trusted, lenient=lenient)
        repeated = certificate is not None and certificate.serial_number in serials
        if certificate is not None:
            serials.add(certificate.serial_number)
        if repeated and not lenient:
            certificate, failure = None, "duplicate serial number"
        answers.append(_answer(enrollment, shot, certificate, failure, repeated=repeated))
    return tuple(answers)


def _evaluate(
    enrollment: Enrollment, shot: Shot, trusted: list[x509.Certificate], *, lenient: bool
) -> tuple[x509.Certificate | None, str]:
    """Return (certificate or None, reason of the failure or "")."""
    if shot.trouble:
        return None, f"gave up: {shot.trouble}"
    assert shot.response is not None
    if shot.response.status != 200:
        return None, f"HTTP {shot.response.status}"
    try:
        return check(enrollment, shot.response.body, trusted, lenient=lenient), ""
    except WrongReply as wrong:
        return None, str(wrong)


def _answer(
    enrollment: Enrollment,
    shot: Shot,
    certificate: x509.Certificate | None,
    failure: str,
    *,
    repeated: bool,
) -> Answer:
    return Answer(
        enrollment.common_name,
        enrollment.transaction_id,
        certificate.public_bytes(Encoding.DER) if certificate else None,
        failure,
        repeated,
        shot.seconds,
        shot.attempts,
    )
