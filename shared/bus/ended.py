"""Whether an attempt has ended without a certificate, according to its authentic events."""

import structlog

from shared.bus.core import Bus
from shared.log.envelope import Trusted, UnreadableEventError, authenticate
from shared.log.events.enrollment import (
    ConfirmationFailed,
    EnrollmentRejected,
    IssuanceFailed,
)
from shared.log.stages import Stage
from shared.log.streams import enroll_stream
from shared.log.subjects import parse_prefix
from shared.observe.metrics import SECURITY_EVENTS

_log = structlog.get_logger()


async def has_failed(bus: Bus, prefix: str, validators: Trusted, issuers: Trusted) -> bool:
    """Return whether an attempt has ended without a certificate or can never get one.

    It has if our own signed verdict, outcome or confirmation says so, and it never can if a forged
    event occupies the verdict's subject, because no issuer acts on that. `prefix` is the attempt's
    subject prefix.
    """
    enrollment = parse_prefix(prefix)
    stream = enroll_stream(enrollment.shard)
    for stage, trusted, failure in (
        (Stage.CONFIRMATION, validators, ConfirmationFailed),
        (Stage.OUTCOME, issuers, IssuanceFailed),
        (Stage.VERDICT, validators, EnrollmentRejected),
    ):
        stored = await bus.get_last_or_leader(stream, enrollment.subject(stage))
        if stored is None:
            continue
        try:
            return isinstance(authenticate(stored, trusted, stage), failure)
        except UnreadableEventError as error:
            SECURITY_EVENTS.labels(stage).inc()
            _log.error("event_not_authentic", about=stored.subject, detail=str(error))
            if stage is Stage.VERDICT:
                return True
    return False
