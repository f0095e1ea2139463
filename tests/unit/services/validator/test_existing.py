"""A key that has a certificate: when that is the answer to another first enrollment."""

from typing import Any

import pytest

from services.validator.facts import DecryptedRequest, History, KnownCertificate, names_sha256
from services.validator.gates import Decision, PolicyInput, RenewalPolicy, decide
from shared.log.reasons import Reason
from shared.x509.csr import CertificationRequest, read_csr
from tests.support.messages import UTF8, Identity, csr, device_csr, name
from tests.support.world import NOW, PROFILE, SERIAL, facts, policy
from tests.unit.services.validator.records import BEGIN, END, KEY_OF_RECORDS, known


@pytest.fixture(scope="module")
def asked(device: Identity) -> CertificationRequest:
    return read_csr(device_csr(device))


def judged(
    asked: CertificationRequest, live: KnownCertificate, at: int = NOW - 1, **changes: Any
) -> Decision:
    opened = DecryptedRequest(asked, facts())
    return decide(PolicyInput(opened, History(live=live), PROFILE, policy(**changes), at, at))


def of(asked: CertificationRequest, **changes: Any) -> KnownCertificate:
    return known(**({"names_sha256": names_sha256(asked)} | changes))


@pytest.mark.parametrize(
    ("at", "expected"),
    [(BEGIN, SERIAL), (NOW - 1, SERIAL), (NOW, ""), (END, ""), (END + 1, "")],
)
def test_a_live_certificate_is_the_answer_until_its_last_third(
    asked: CertificationRequest, at: int, expected: str
) -> None:
    decision = judged(asked, of(asked), at)

    assert (decision.refusal, decision.existing) == (None, expected)


@pytest.mark.parametrize("window", [None, 0, 3600])
def test_the_last_third_counts_whatever_the_window_for_renewals(
    asked: CertificationRequest, window: int | None
) -> None:
    rules = RenewalPolicy(window=window)

    assert judged(asked, of(asked), NOW - 1, renewal=rules).existing == SERIAL
    assert judged(asked, of(asked), NOW, renewal=rules).existing == ""


@pytest.mark.parametrize(
    "changes",
    [{"revoked": True}, {"profile": "other"}, {"names_sha256": "00" * 32}, {"names_sha256": ""}],
    ids=["revoked", "another profile's", "other names", "names not on record"],
)
def test_any_other_certificate_of_the_key_is_no_answer(
    asked: CertificationRequest, changes: dict[str, Any]
) -> None:
    decision = judged(asked, of(asked, **changes))

    assert (decision.refusal, decision.existing) == (None, "")


def test_who_does_not_know_the_challenge_is_not_told_of_a_certificate(
    device: Identity, asked: CertificationRequest
) -> None:
    without = read_csr(csr(device.key))
    decision = judged(without, of(without))

    assert decision.refusal is not None
    assert decision.refusal.reason is Reason.CHALLENGE_MISSING
    assert decision.existing == ""
    assert names_sha256(without) != names_sha256(asked)


def test_a_changed_subject_is_other_names(device: Identity, asked: CertificationRequest) -> None:
    other = read_csr(csr(device.key, subject=name(("2.5.4.3", UTF8, b"other"))))

    assert names_sha256(other) != names_sha256(asked)


def test_a_renewal_is_never_answered_with_what_it_renews(asked: CertificationRequest) -> None:
    opened = DecryptedRequest(
        asked, facts(), renews=SERIAL, key_reused=True, signer_spki_sha256=KEY_OF_RECORDS
    )
    decision = decide(PolicyInput(opened, History(renewed=of(asked)), PROFILE, policy(), NOW, NOW))

    assert (decision.refusal, decision.existing) == (None, "")
