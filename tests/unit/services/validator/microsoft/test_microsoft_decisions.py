"""What is sent, what an answer means, when a call is repeated, and who may get a token."""

import base64
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.validator.microsoft import bodies, retrying
from services.validator.microsoft.clouds import CLOUDS, may_get_token, same_origin
from services.validator.microsoft.hints import hint_of, number_of
from services.validator.microsoft.model import (
    FailureNotice,
    RevocationError,
    RevocationResult,
    SuccessNotice,
)
from services.validator.microsoft.retrying import LOST, UNREACHED, Breaker, Step, Tried, next_move
from services.validator.microsoft.verdicts import VERDICTS, verdict_of
from shared.log.reasons import CHALLENGE_REASONS, FAIL_INFO, Reason
from shared.scep.errors import FailInfo

CSR = bytes(range(256))


def test_a_csr_is_sent_as_received_in_one_line_of_base64() -> None:
    body = bodies.validate_body("T1", CSR, "Ours/1")

    assert body == {
        "request": {
            "transactionId": "T1",
            "certificateRequest": base64.b64encode(CSR).decode(),
            "callerInfo": "Ours/1",
        }
    }


def test_a_success_notification_has_every_member_in_intunes_form() -> None:
    notice = SuccessNotice("T1", CSR, "ab" * 20, "0a1b", 1528733480.09, "CN=CA")
    body = bodies.success_body(notice, "Ours/1", "corp")["notification"]

    assert {k: v for k, v in body.items() if k != "certificateRequest"} == {
        "transactionId": "T1",
        "callerInfo": "Ours/1",
        "certificateThumbprint": "AB" * 20,
        "certificateSerialNumber": "0A1B",
        "certificateExpirationDateUtc": "2018-06-11T16:11:20.090Z",
        "issuingCertificateAuthority": "CN=CA",
        "caConfiguration": "corp",
        "certificateAuthority": "",
    }
    assert "certificateRequest" in body
    assert "\\x" not in repr(notice)


@pytest.mark.parametrize(("given", "sent"), [(0x8000FFFF, -2147418113), (-2147418113,) * 2, (5, 5)])
def test_a_result_is_sent_as_a_signed_number(given: int, sent: int) -> None:
    body = bodies.failure_body(FailureNotice("T1", CSR, given, "x" * 300), "Ours/1")

    assert body["notification"]["hResult"] == sent
    assert len(body["notification"]["errorDescription"]) == 255


def test_a_failure_always_has_a_description() -> None:
    body = bodies.failure_body(FailureNotice("T1", CSR, 5, ""), "Ours/1")

    assert body["notification"]["errorDescription"]


def test_revocations_are_asked_for_without_a_filter_and_answered_by_name() -> None:
    results = [
        RevocationResult("c1", succeeded=True),
        RevocationResult("c2", False, RevocationError.NOT_FOUND, "no such certificate"),
    ]

    assert bodies.download_body(500) == {
        "downloadParameters": {"maxRequests": 500, "issuerName": None}
    }
    assert [tuple(each.values()) for each in bodies.upload_body(results)["results"]] == [
        ("c1", True, "None", ""),
        ("c2", False, "CertificateNotFoundError", "no such certificate"),
    ]


# The SCEP column of Microsoft's codes.
FAIL_INFOS = {
    FailInfo.BAD_REQUEST: (
        "CertificateRequestDecodingFailed SubjectNameMissing SubjectNameMismatch "
        "SubjectAltNameMissing SubjectAltNameMismatch KeyUsageMismatch KeyLengthMismatch "
        "EnhancedKeyUsageMissing EnhancedKeyUsageMismatch AadKeyIdentifierListMissing "
        "RegisteredKeyMismatch ScepProfileNoLongerTargetedToTheClient"
    ),
    FailInfo.BAD_MESSAGE_CHECK: (
        "ChallengePasswordMissing ChallengeDecodingError ChallengeDeserializationError "
        "ChallengeDecryptionError SignatureValidationFailed SigningCertThumbprintMismatch "
        "BadCertificateRequestIdInChallenge BadDeviceIdInChallenge BadUserIdInChallenge "
        "BadTenantIdInChallenge Unknown NeverHeardOf"
    ),
    FailInfo.BAD_TIME: "ChallengeInvalidTimestamp ChallengeExpired",
}


@pytest.mark.parametrize(
    ("code", "info"), [(c, info) for info, codes in FAIL_INFOS.items() for c in codes.split()]
)
def test_a_code_becomes_the_documented_scep_reply(code: str, info: FailInfo) -> None:
    found = verdict_of(code)

    assert FAIL_INFO[found.reason] is info
    assert found.reason in CHALLENGE_REASONS
    assert found.hint


def test_every_documented_code_is_in_the_table_and_forgeries_are_security_events() -> None:
    documented = {c for codes in FAIL_INFOS.values() for c in codes.split()}

    assert documented - set(VERDICTS) == {"Unknown", "NeverHeardOf"}
    assert {code for code, v in VERDICTS.items() if v.security} == {
        "ChallengeDecryptionError",
        "SignatureValidationFailed",
        "SigningCertThumbprintMismatch",
        "BadCertificateRequestIdInChallenge",
        "BadDeviceIdInChallenge",
        "BadUserIdInChallenge",
    }
    assert verdict_of("").reason is verdict_of("success").reason is Reason.CHALLENGE_WRONG


def test_a_refused_token_is_replaced_once() -> None:
    first = next_move(401, None, Tried(), 25.0, 0.5)

    assert first.step is Step.REFRESH
    assert next_move(401, None, first.tried, 25.0, 0.5).step is Step.FAIL


@pytest.mark.parametrize("status", [404, 410, 421, UNREACHED])
def test_a_service_that_is_gone_is_looked_up_once(status: int) -> None:
    first = next_move(status, None, Tried(), 25.0, 0.5, relocatable=True)

    assert first.step is Step.RELOCATE
    again = next_move(status, None, first.tried, 25.0, 0.5, relocatable=True)
    assert again.step is not Step.RELOCATE


@pytest.mark.parametrize("status", [400, 403, 404, 302, 413, 501])
def test_an_answer_that_will_not_change_is_not_asked_for_again(status: int) -> None:
    assert next_move(status, None, Tried(), 25.0, 0.5).step is Step.FAIL


@pytest.mark.parametrize("status", [429, 503])
def test_a_wish_is_granted_if_it_fits_the_budget(status: int) -> None:
    assert next_move(status, 2.128, Tried(), 25.0, 0.5).seconds == 2.128
    assert next_move(status, 25.0, Tried(), 25.0, 0.5).step is Step.FAIL


@given(
    st.lists(
        st.tuples(
            st.sampled_from([LOST, UNREACHED, 200, 400, 401, 403, 404, 429, 500, 503]),
            st.none() | st.floats(0, 30),
            st.floats(0, 25),
            st.floats(0, 1, exclude_max=True),
        ),
        min_size=8,
        max_size=8,
    )
)
def test_no_sequence_of_answers_leads_to_more_than_eight_attempts(
    answers: list[tuple[int, float | None, float, float]],
) -> None:
    tried, steps = Tried(), Counter[Step]()
    for status, wish, remaining, draw in answers:
        move = next_move(status, wish, tried, remaining, draw, relocatable=True)
        steps[move.step] += 1
        assert move.step is not Step.WAIT or move.seconds < remaining
        if move.step in (Step.USE, Step.FAIL):
            return
        tried = move.tried
    raise AssertionError(steps)


def test_a_breaker_opens_after_five_failures_and_lets_one_try_after_thirty_seconds() -> None:
    breaker = Breaker()
    for _ in range(retrying.FAILURES):
        assert breaker.wait(100.0) == 0.0
        breaker.failed(100.0)

    assert breaker.wait(110.0) == 20.0
    assert breaker.wait(130.0) == 0.0
    assert breaker.wait(130.0) == 30.0
    breaker.succeeded()
    assert breaker.wait(130.0) == 0.0


@pytest.mark.parametrize(
    "url",
    [
        "https://fef.msuc02.manage.microsoft.com/RACerts/x",
        "https://manage.microsoft.com/x",
        "https://FEF.Manage.Microsoft.com:443/x",
    ],
)
def test_a_host_of_microsoft_may_get_a_token(url: str) -> None:
    assert may_get_token(url, CLOUDS["public"].service_hosts)


@pytest.mark.parametrize(
    "url",
    [
        "http://fef.manage.microsoft.com/x",
        "https://manage.microsoft.com.evil.example/x",
        "https://evilmanage.microsoft.com/x",
        "https://user@manage.microsoft.com/x",
        "https://evil.example\\@manage.microsoft.com/x",
        "https://evil.example/?manage.microsoft.com",
        "https://manage.microsoft.com/x?y",
        "https://manage.microsoft.com/x#y",
        "https://manage.microsoft.com:99999/x",
        "https://[manage.microsoft.com/x",
        "https://manage.microsoft.com /x",
        "https:///x",
        "",
    ],
)
def test_no_other_host_may_get_a_token(url: str) -> None:
    assert not may_get_token(url, CLOUDS["public"].service_hosts)


def test_a_list_continues_at_the_same_host_only() -> None:
    graph = "https://graph.microsoft.com/"

    assert same_origin("https://graph.microsoft.com:443/v1.0/x?$skiptoken=1", graph)
    for other in ("https://graph.microsoft.com:444/", "http://graph.microsoft.com/", "//x", "x"):
        assert not same_origin(other, graph)
    assert not same_origin("https://a@graph.microsoft.com/", graph)


def test_a_number_of_entra_id_gives_a_hint_and_an_unknown_one_none() -> None:
    assert "expired" in hint_of("AADSTS7000222: The provided client secret keys ...")
    assert hint_of("AADSTS1: x") == hint_of("nothing") == ""
    assert number_of("AADSTS7000222: The provided ...") == "AADSTS7000222"
    assert number_of("nothing") == ""
