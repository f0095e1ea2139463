"""Events that stand outside the enrollments' stages, and events from before a field was added."""

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from shared.log.catalog import EVENT_TYPES
from shared.log.envelope import (
    KEY,
    STAGE_TYPES,
    Stored,
    UnreadableEventError,
    authenticate,
    authenticate_as,
    decode,
    encode,
    sign,
)
from shared.log.events.base import NO_REQUEST
from shared.log.events.certificates import (
    CertificateRecorded,
    CertificateStatusChanged,
    CrlPublished,
    KeyCompromised,
    OcspResponseSigned,
    OrderChanged,
    OrphanSettled,
    OrphanSuspected,
    ServiceCertificateIssued,
)
from shared.log.events.commands import (
    ApiTokenCreated,
    ApiTokenRevoked,
    ChallengeCancelled,
    ChallengeCreated,
    CommandAnswered,
    OrphanReported,
    ReloadOrdered,
    ResumeOrdered,
    RetryOrdered,
    RevocationOrdered,
    WithdrawalOrdered,
)
from shared.log.events.enrollment import CertificateIssued, EnrollmentHeld, HoldDecided
from shared.log.events.state import (
    ChallengeClaimed,
    CheckpointSigned,
    DeviceCounted,
    Heartbeat,
    LeaseTaken,
    NoticeBegun,
    RevocationReported,
    RevocationRequested,
    StreamMeasured,
)
from shared.log.stages import Stage
from tests.support import golden
from tests.support.world import STRANGER, signed_event

TRUSTED = {golden.SIGNER.id: golden.SIGNER.key.public_key()}
SIGNED: tuple[type[Any], ...] = (
    CertificateRecorded,
    CertificateStatusChanged,
    KeyCompromised,
    OrderChanged,
    OcspResponseSigned,
    ServiceCertificateIssued,
    OrphanSuspected,
    OrphanSettled,
    OrphanReported,
    RevocationOrdered,
    WithdrawalOrdered,
    RevocationRequested,
    RevocationReported,
    NoticeBegun,
    LeaseTaken,
    CommandAnswered,
    CrlPublished,
    CertificateIssued,
    ChallengeClaimed,
    DeviceCounted,
    ChallengeCreated,
    ChallengeCancelled,
    RetryOrdered,
    ReloadOrdered,
    ResumeOrdered,
    ApiTokenCreated,
    ApiTokenRevoked,
    Heartbeat,
    StreamMeasured,
    CheckpointSigned,
)
STAGED = [(EnrollmentHeld, Stage.HOLD), (HoldDecided, Stage.DECISION)]
UNSIGNED = ("EnrollmentRequested", "CaChain", "DeadLetter", "GatewayHeartbeat")


def stored(kind: type[Any]) -> Stored:
    """The golden event of this kind as the log holds it."""
    subject, _ = golden.EVENTS[kind.__name__, 1]
    message = golden.write(kind.__name__, 1)
    return Stored(subject, message.payload, message.headers, 7, 1)


def refused(found: Stored, kind: type[Any]) -> str:
    with pytest.raises(UnreadableEventError) as error:
        authenticate_as(kind, found, TRUSTED)
    return str(error.value)


@pytest.mark.parametrize("kind", SIGNED)
def test_an_event_of_a_trusted_key_at_its_place_is_authentic(kind: type[Any]) -> None:
    event = golden.EVENTS[kind.__name__, 1][1]

    assert authenticate_as(kind, stored(kind), TRUSTED) == event


@pytest.mark.parametrize("kind", SIGNED)
def test_moved_to_another_place_it_is_not(kind: type[Any]) -> None:
    moved = replace(stored(kind), subject=stored(kind).subject + "0")

    assert refused(moved, kind) == "signature does not verify"


@pytest.mark.parametrize("kind", SIGNED)
def test_altered_it_is_not(kind: type[Any]) -> None:
    altered = replace(stored(kind), payload=stored(kind).payload + b" ")

    assert refused(altered, kind) == "signature does not verify"


@pytest.mark.parametrize("kind", SIGNED)
def test_signed_by_a_stranger_it_is_not(kind: type[Any]) -> None:
    subject, event = golden.EVENTS[kind.__name__, 1]
    message = sign(event, subject, STRANGER)  # type: ignore[union-attr]
    found = Stored(subject, message.payload, message.headers, 7, 1)

    assert refused(found, kind) == "signed by an unknown key"
    message.headers[KEY] = golden.SIGNER.id
    assert refused(found, kind) == "signature does not verify"


@pytest.mark.parametrize("kind", SIGNED)
def test_signed_over_another_request_than_it_names_it_is_not(kind: type[Any]) -> None:
    subject, event = golden.EVENTS[kind.__name__, 1]
    message = signed_event(event, subject, golden.SIGNER, request_sha256="77" * 32)

    found = Stored(subject, message.payload, message.headers, 7, 1)
    assert refused(found, kind) == "signature does not verify"


@pytest.mark.parametrize("kind", SIGNED)
def test_an_event_of_another_kind_is_not_taken_for_it(kind: type[Any]) -> None:
    for other in EVENT_TYPES.values():
        if other is not kind:
            assert refused(stored(other), kind) == "unexpected event type"


@pytest.mark.parametrize(("kind", "stage"), STAGED)
def test_holds_and_decisions_are_authentic_at_their_stage_alone(
    kind: type[Any], stage: Stage
) -> None:
    event = golden.EVENTS[kind.__name__, 1][1]

    assert authenticate(stored(kind), TRUSTED, stage, golden.REQUEST) == event
    for other in set(Stage) - {stage}:
        with pytest.raises(UnreadableEventError, match="does not belong"):
            authenticate(stored(kind), TRUSTED, other)


def test_a_decision_is_no_hold_and_a_hold_no_verdict() -> None:
    """Each stage is another role's word."""
    kinds = [kind for kinds in STAGE_TYPES.values() for kind in kinds]

    assert len(kinds) == len(set(kinds))
    assert set(STAGE_TYPES) == set(Stage)


def test_every_event_is_staged_or_signed_or_unsigned_on_purpose() -> None:
    staged = {kind for kinds in STAGE_TYPES.values() for kind in kinds}
    named = {kind.__name__ for kind in SIGNED}

    assert staged | named | set(UNSIGNED) == set(EVENT_TYPES)


# Events from before a field was added


def added(kind: str) -> list[str]:
    """Fields with a default: those that an older writer did not know."""
    fields = msgspec.structs.fields(EVENT_TYPES[kind])
    return [f.name for f in fields if not f.required]


LATER = [(kind, name) for kind in sorted(EVENT_TYPES) for name in added(kind)]


@pytest.mark.parametrize(("kind", "name"), LATER)
def test_an_event_from_before_a_field_was_added_has_its_default(kind: str, name: str) -> None:
    message = golden.write(kind, 1)
    table = json.loads(message.payload)
    del table[name]
    event = decode(json.dumps(table).encode(), message.headers)
    (field,) = (f for f in msgspec.structs.fields(type(event)) if f.name == name)

    assert getattr(event, name) == field.default
    assert (
        msgspec.structs.replace(event, **{name: getattr(golden.EVENTS[kind, 1][1], name)})
        == (golden.EVENTS[kind, 1][1])
    )


def test_the_fields_of_the_first_events_are_still_all_that_must_be_there() -> None:
    """What was written before renewals, holds and rollovers."""
    known = {
        "EnrollmentApproved": {
            "request_sha256", "gateway", "facts", "gates", "template", "valid_until",
        },
        "CertificateRecorded": {
            "request_sha256", "enrollment", "spki_sha256", "subject", "not_before", "not_after",
        },
        "CaChain": {"certificates"},
    }  # fmt: skip
    required = {
        kind: {f.name for f in msgspec.structs.fields(EVENT_TYPES[kind]) if f.required}
        for kind in known
    }

    assert required == known


def test_an_order_is_about_no_request() -> None:
    event = golden.EVENTS["RevocationOrdered", 1][1]
    assert isinstance(event, RevocationOrdered)

    assert event.request_sha256 == NO_REQUEST
    assert b"operator" in encode(event).payload
