import base64
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.log.catalog import EVENT_TYPES, VERSIONS
from shared.log.envelope import (
    KEY,
    SIGNATURE,
    STAGE_TYPES,
    TYPE,
    Message,
    Stored,
    UnreadableEventError,
    authenticate,
    decode,
    encode,
    key_id,
    sign,
    signed_bytes,
)
from shared.log.events.enrollment import EnrollmentRejected, IssuanceFailed
from shared.log.reasons import Reason
from shared.log.stages import Stage
from shared.log.subjects import (
    EnrollmentId,
    any_request,
    csr_token,
    parse_subject,
    token,
    transaction_token,
)
from shared.scep.errors import FailInfo
from tests.fakes.memory_bus import matches
from tests.support import golden
from tests.support.world import REQUEST_SHA256, STRANGER, TRUSTED_VALIDATORS, VALIDATOR

ENROLLMENT = golden.ENROLLMENT
VERDICT = ENROLLMENT.subject(Stage.VERDICT)
KINDS = sorted(EVENT_TYPES)
OLD_AND_NEW = [(kind, v) for kind in KINDS for v in range(1, VERSIONS[kind] + 1)]
CURRENT = sorted(VERSIONS.items())

tokens = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=30)
enrollments = st.builds(
    EnrollmentId, tokens, tokens, tokens, tokens, st.integers(min_value=0, max_value=10**6)
)


def rejected(**changes: Any) -> EnrollmentRejected:
    values: dict[str, Any] = {
        "request_sha256": REQUEST_SHA256,
        "reason": Reason.CHALLENGE_WRONG,
        "fail_info": FailInfo.BAD_MESSAGE_CHECK,
        "detail": "no",
    }
    return EnrollmentRejected(**(values | changes))


def stored(subject: str = VERDICT, message: Message | None = None) -> Stored:
    """A verdict as the log would hold it, signed by the trusted validator unless one is given."""
    message = message or sign(rejected(), subject, VALIDATOR)
    return Stored(subject, message.payload, message.headers, 7, 1)


def refused(found: Stored, stage: Stage = Stage.VERDICT, request: str | None = None) -> str:
    """The sentence with which an event is refused."""
    with pytest.raises(UnreadableEventError) as error:
        authenticate(found, TRUSTED_VALIDATORS, stage, request)
    return str(error.value)


# Encoding


@pytest.mark.parametrize(("kind", "version"), CURRENT)
def test_an_event_is_read_back_as_it_was_written(kind: str, version: int) -> None:
    event = golden.EVENTS[kind, version][1]
    message = encode(event)

    assert decode(message.payload, message.headers) == event


@pytest.mark.parametrize(("kind", "version"), OLD_AND_NEW)
def test_every_version_ever_written_is_still_read(kind: str, version: int) -> None:
    subject, message = golden.read(kind, version)

    assert (subject, decode(message.payload, message.headers)) == golden.EVENTS[kind, version]


@pytest.mark.parametrize(("kind", "version"), CURRENT)
def test_the_current_version_is_written_as_its_golden_file(kind: str, version: int) -> None:
    """Payload bytes and headers, signature included: what is on disk somewhere stays valid."""
    assert golden.write(kind, version) == golden.read(kind, version)[1]


def test_no_golden_file_is_left_without_an_event() -> None:
    assert {p.name for p in golden.DIRECTORY.iterdir()} == {
        golden.path(*key).name for key in OLD_AND_NEW
    }


@pytest.mark.parametrize("kind", KINDS)
def test_fields_of_a_later_version_are_ignored(kind: str) -> None:
    event = golden.EVENTS[kind, VERSIONS[kind]][1]
    later = encode(event).payload[:-1] + b',"added_later":{"deep":[1,2,null]}}'

    assert decode(later, {TYPE: kind}) == event


@pytest.mark.parametrize("headers", [{}, {TYPE: "Unheard"}, {TYPE: ""}, {TYPE: "cachain"}])
def test_an_unknown_type_is_unreadable(headers: dict[str, str]) -> None:
    with pytest.raises(UnreadableEventError, match="unknown event type"):
        decode(b"{}", headers)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"null", b"[]", b"{}", b'"text"', b"\xff\xfe", b'{"request_sha256":7}', b"{}{}"],
)
def test_a_payload_that_is_not_its_types_json_is_unreadable(kind: str, payload: bytes) -> None:
    with pytest.raises(UnreadableEventError, match="does not fit"):
        decode(payload, {TYPE: kind})


@pytest.mark.parametrize("kind", KINDS)
def test_json_nested_without_end_is_unreadable(kind: str) -> None:
    """A gateway taken over can append it: it must not break who reads the log."""
    deep = b'{"unknown":' + b"[" * 50_000 + b"]" * 50_000 + b"}"

    with pytest.raises(UnreadableEventError):
        decode(deep, {TYPE: kind})


@given(
    st.binary(max_size=200)
    | st.sampled_from([encode(e).payload for _, e in golden.EVENTS.values()]),
    st.dictionaries(st.sampled_from([TYPE, KEY, SIGNATURE]), st.text() | st.sampled_from(KINDS)),
)
def test_any_bytes_and_headers_give_an_event_or_one_error(
    payload: bytes, headers: dict[str, str]
) -> None:
    try:
        event = decode(payload, headers)
    except UnreadableEventError:
        return
    assert type(event) is EVENT_TYPES[headers[TYPE]]


@given(
    st.binary(max_size=300), st.sampled_from(KINDS), st.text(max_size=90), st.sampled_from(Stage)
)
def test_nothing_unsigned_is_ever_authentic(
    payload: bytes, kind: str, signature: str, stage: Stage
) -> None:
    headers = {TYPE: kind, KEY: VALIDATOR.id, SIGNATURE: signature}
    found = Stored(ENROLLMENT.subject(stage), payload, headers, 1, 1)

    with pytest.raises(UnreadableEventError):
        authenticate(found, TRUSTED_VALIDATORS, stage)


# Signatures


def test_an_event_of_a_trusted_key_is_authentic() -> None:
    assert authenticate(stored(), TRUSTED_VALIDATORS, Stage.VERDICT, REQUEST_SHA256) == rejected()
    assert authenticate(stored(), TRUSTED_VALIDATORS, Stage.VERDICT) == rejected()


def test_an_unknown_key_signs_nothing() -> None:
    message = sign(rejected(), VERDICT, STRANGER)

    assert refused(stored(message=message)) == "signed by an unknown key"


def test_a_trusted_keys_name_does_not_make_another_keys_signature_valid() -> None:
    message = sign(rejected(), VERDICT, STRANGER)
    message.headers[KEY] = VALIDATOR.id

    assert refused(stored(message=message)) == "signature does not verify"


@pytest.mark.parametrize(
    "subject",
    [
        ENROLLMENT.at(1).subject(Stage.VERDICT),
        replace(ENROLLMENT, profile="other").subject(Stage.VERDICT),
        replace(ENROLLMENT, shard="1").subject(Stage.VERDICT),
        replace(ENROLLMENT, transaction="other").subject(Stage.VERDICT),
    ],
)
def test_an_event_moved_to_another_subject_does_not_verify(subject: str) -> None:
    assert refused(replace(stored(), subject=subject)) == "signature does not verify"


@pytest.mark.parametrize("stage", [Stage.REQUEST, Stage.OUTCOME])
def test_an_event_of_another_stage_is_refused(stage: Stage) -> None:
    assert "does not belong" in refused(stored(), stage)
    assert "does not belong" in refused(stored(ENROLLMENT.subject(stage)))


def test_an_outcome_under_a_verdicts_subject_is_refused() -> None:
    failure = IssuanceFailed(
        request_sha256=REQUEST_SHA256, reason=Reason.POISON, fail_info=FailInfo(2), detail=""
    )
    message = sign(failure, VERDICT, VALIDATOR)

    assert "does not belong" in refused(stored(message=message))


def test_an_altered_payload_does_not_verify() -> None:
    altered = stored().payload.replace(b'"no"', b'"on"')
    assert altered != stored().payload

    assert refused(replace(stored(), payload=altered)) == "signature does not verify"


def test_a_payload_with_one_more_space_does_not_verify() -> None:
    """The bytes are signed, not what they mean."""
    altered = stored().payload + b" "

    assert refused(replace(stored(), payload=altered)) == "signature does not verify"


def test_an_event_for_another_request_is_refused() -> None:
    assert "another request" in refused(stored(), request="00" * 32)


def test_an_event_whose_own_request_digest_was_altered_does_not_verify() -> None:
    altered = stored().payload.replace(REQUEST_SHA256.encode(), b"00" * 32)

    assert refused(replace(stored(), payload=altered)) == "signature does not verify"


@pytest.mark.parametrize("digest", ["", "zz", "0", "\u0660" * 64])
def test_a_request_digest_that_is_no_hex_does_not_verify(digest: str) -> None:
    message = encode(rejected(request_sha256=digest))
    message.headers.update({KEY: VALIDATOR.id, SIGNATURE: stored().headers[SIGNATURE]})

    assert refused(stored(message=message)) == "signature does not verify"


@pytest.mark.parametrize("signature", ["", "!", "AAAA", "====", "\u00e4", "A" * 89])
def test_a_signature_that_is_no_base64_of_one_does_not_verify(signature: str) -> None:
    headers = {**stored().headers, SIGNATURE: signature}

    assert refused(replace(stored(), headers=headers)) == "signature does not verify"


@pytest.mark.parametrize("missing", [KEY, SIGNATURE])
def test_an_event_without_key_or_signature_is_refused(missing: str) -> None:
    headers = {k: v for k, v in stored().headers.items() if k != missing}

    assert refused(replace(stored(), headers=headers))


def test_a_request_is_never_authentic_by_a_signature() -> None:
    """The device signed it, and the validator checks that itself."""
    _, request = golden.EVENTS["EnrollmentRequested", 1]
    subject = ENROLLMENT.subject(Stage.REQUEST)
    message = encode(request)
    signature = VALIDATOR.key.sign(signed_bytes(subject, REQUEST_SHA256, message.payload))
    message.headers[KEY] = VALIDATOR.id
    message.headers[SIGNATURE] = base64.b64encode(signature).decode()

    found = Stored(subject, message.payload, message.headers, 1, 1)
    assert refused(found, Stage.REQUEST) == "this event carries no signature"


def test_every_enrollment_event_belongs_to_one_stage() -> None:
    staged = [kind for kinds in STAGE_TYPES.values() for kind in kinds]

    assert len(staged) == len(set(staged))
    assert set(KINDS) - set(staged) == {
        "ApiTokenCreated",
        "ApiTokenRevoked",
        "CaChain",
        "CertificateRecorded",
        "CertificateStatusChanged",
        "ChallengeCancelled",
        "ChallengeClaimed",
        "ChallengeCreated",
        "CheckpointSigned",
        "CommandAnswered",
        "CrlPublished",
        "DeadLetter",
        "DeviceCounted",
        "GatewayHeartbeat",
        "Heartbeat",
        "KeyCompromised",
        "LeaseTaken",
        "NoticeBegun",
        "OcspResponseSigned",
        "OrderChanged",
        "OrphanReported",
        "OrphanSettled",
        "OrphanSuspected",
        "ReloadOrdered",
        "ResumeOrdered",
        "RetryOrdered",
        "RevocationOrdered",
        "RevocationReported",
        "RevocationRequested",
        "ServiceCertificateIssued",
        "StreamMeasured",
        "WithdrawalOrdered",
    }


def test_key_ids_are_short_digests_of_the_key() -> None:
    assert re.fullmatch("[0-9a-f]{16}", key_id(VALIDATOR.key.public_key()))
    assert VALIDATOR.id != STRANGER.id


# Subjects and tokens


@given(enrollments, st.sampled_from(Stage))
def test_a_subject_names_its_enrollment_and_stage(enrollment: EnrollmentId, stage: Stage) -> None:
    assert parse_subject(enrollment.subject(stage)) == (enrollment, stage)


@given(enrollments, st.integers(min_value=0, max_value=50))
def test_the_wildcards_match_the_requests_of_every_attempt(
    enrollment: EnrollmentId, attempt: int
) -> None:
    subject = enrollment.at(attempt).subject(Stage.REQUEST)

    assert matches(enrollment.any_attempt(), subject)
    assert matches(
        any_request(enrollment.shard, enrollment.profile, enrollment.transaction), subject
    )
    assert not matches(enrollment.any_attempt(), enrollment.at(attempt).subject(Stage.OUTCOME))


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "enroll.0.p.t.c.0",
        "enroll.0.p.t.c.0.request.more",
        "enroll.0.p.t.c.zero.request",
        "enroll.0.p.t.c..request",
        "enroll.0.p.t.c.0.held",
        "cert.local.40.issued",
    ],
)
def test_a_subject_of_another_shape_names_no_enrollment(subject: str) -> None:
    with pytest.raises(ValueError):
        parse_subject(subject)


@pytest.mark.parametrize("attempt", ["01", "+1", "-1", "1_0", " 1", "\u0661"])
def test_an_attempt_written_otherwise_names_no_enrollment(attempt: str) -> None:
    """Else two requests would share the subjects of one verdict and one outcome."""
    with pytest.raises(ValueError):
        parse_subject(f"enroll.0.p.t.c.{attempt}.request")


def test_a_subject_outside_the_enrollments_names_none() -> None:
    with pytest.raises(ValueError):
        parse_subject("dead.0.p.t.c.1.request")


@given(st.lists(st.binary(max_size=20), max_size=4))
def test_tokens_are_26_characters_that_any_subject_may_hold(parts: list[bytes]) -> None:
    assert re.fullmatch("[a-z2-7]{26}", token(*parts))


@given(st.lists(st.binary(max_size=4), max_size=4), st.lists(st.binary(max_size=4), max_size=4))
def test_tokens_differ_wherever_their_parts_do(one: list[bytes], other: list[bytes]) -> None:
    assert (token(*one) == token(*other)) == (one == other)


def test_bytes_moved_from_one_part_to_the_next_make_another_token() -> None:
    assert len({token(b"ab", b"c"), token(b"a", b"bc"), token(b"abc"), token(b"abc", b"")}) == 4


def test_a_transactions_token_depends_on_profile_transaction_and_key() -> None:
    base = transaction_token("corp", b"1", b"key")

    assert base != transaction_token("lab", b"1", b"key")
    assert base != transaction_token("corp", b"2", b"key")
    assert base != transaction_token("corp", b"1", b"other key")
    assert base == transaction_token("corp", b"1", b"key")
    assert csr_token(b"info") != csr_token(b"other info")
