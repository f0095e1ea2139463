import hashlib
from dataclasses import replace
from typing import Any

import pytest

from services.validator.facts import DecryptedRequest, History, KnownCertificate, names_sha256
from services.validator.gates import Decision, PolicyInput, RenewalPolicy, decide
from shared.log.reasons import Reason
from shared.x509.blocked_keys import BlockedKeys
from shared.x509.csr import CertificationRequest, read_csr
from tests.support.messages import (
    PRINTABLE,
    UTF8,
    Identity,
    challenge,
    csr,
    extension_request,
    name,
    san,
    tlv,
)
from tests.support.world import NOW, PROFILE, SERIAL, facts, policy
from tests.unit.services.validator.records import BEGIN, DAY, END, KEY_OF_RECORDS, known

DNS = extension_request(san(tlv(0x82, b"device.example")))
OTHER_DNS = extension_request(san(tlv(0x82, b"other.example")))
OTHER_NAME = name(("2.5.4.3", UTF8, b"other"))


@pytest.fixture(scope="module")
def renewal(device: Identity) -> CertificationRequest:
    """A CSR as renewing devices send it: no challenge in it."""
    return read_csr(csr(device.key, DNS))


def judged(
    asked: CertificationRequest,
    renewed: KnownCertificate | None,
    at: int = NOW,
    *,
    key_reused: bool = False,
    **rules: Any,
) -> Decision:
    """What is said to a request that a certificate of ours signed."""
    opened = DecryptedRequest(
        asked, facts(), renews=SERIAL, key_reused=key_reused, signer_spki_sha256=KEY_OF_RECORDS
    )
    allowed = policy(renewal=RenewalPolicy(**rules))
    return decide(PolicyInput(opened, History(renewed), PROFILE, allowed, at, at))


def of(asked: CertificationRequest, **changes: Any) -> KnownCertificate:
    """The record of a certificate under the names that are asked for."""
    return known(**({"names_sha256": names_sha256(asked)} | changes))


def reason(decision: Decision) -> Reason | None:
    """Why it was refused; the gate named renewal says it and is the last one asked."""
    if decision.refusal is None:
        return None
    assert (decision.gates[-1].gate, decision.gates[-1].passed) == ("renewal", False)
    return decision.refusal.reason


def test_a_renewal_within_the_rules_passes_and_needs_no_challenge(
    renewal: CertificationRequest,
) -> None:
    decision = judged(renewal, of(renewal))

    assert decision.refusal is None
    assert decision.existing == ""
    assert [gate.gate for gate in decision.gates] == [
        "key", "subject", "sans", "compromise", "renewal", "challenge",
    ]  # fmt: skip
    assert [gate.detail for gate in decision.gates[-2:]] == [SERIAL, "not required for a renewal"]


# Which certificate may be renewed


def test_a_certificate_that_is_not_on_record_renews_nothing(renewal: CertificationRequest) -> None:
    """Such as an RA's, which the same CA issued."""
    assert reason(judged(renewal, None)) is Reason.NOT_RENEWABLE


def test_a_certificate_of_another_profile_renews_nothing_here(
    renewal: CertificationRequest,
) -> None:
    assert reason(judged(renewal, of(renewal, profile="other"))) is Reason.NOT_RENEWABLE


def test_a_revoked_certificate_renews_nothing(renewal: CertificationRequest) -> None:
    assert reason(judged(renewal, of(renewal, revoked=True))) is Reason.NOT_RENEWABLE


def test_where_renewal_is_switched_off_nothing_is_renewed(renewal: CertificationRequest) -> None:
    assert reason(judged(renewal, of(renewal), allowed=False)) is Reason.NOT_RENEWABLE


@pytest.mark.parametrize("right", [b"s3cret", None])
@pytest.mark.parametrize("renewed", [None, known("other"), known(revoked=True)])
def test_a_challenge_makes_no_refused_renewal_good(
    device: Identity, renewed: KnownCertificate | None, right: bytes | None
) -> None:
    attributes = [DNS] if right is None else [DNS, challenge(PRINTABLE, right)]
    asked = read_csr(csr(device.key, *attributes))

    assert reason(judged(asked, renewed)) is Reason.NOT_RENEWABLE


# When


@pytest.mark.parametrize(
    ("at", "expected"),
    [(END - 1, None), (END, None), (END + 1, Reason.NOT_RENEWABLE)],
)
def test_an_expired_certificate_renews_nothing(
    renewal: CertificationRequest, at: int, expected: Reason | None
) -> None:
    assert reason(judged(renewal, of(renewal), at)) is expected


@pytest.mark.parametrize(
    ("late", "expected"),
    [(1, None), (3599, None), (3600, None), (3601, Reason.NOT_RENEWABLE)],
)
def test_within_the_grace_an_expired_certificate_is_renewed(
    renewal: CertificationRequest, late: int, expected: Reason | None
) -> None:
    assert reason(judged(renewal, of(renewal), END + late, grace=3600)) is expected


def test_a_certificate_revoked_within_the_grace_renews_nothing(
    renewal: CertificationRequest,
) -> None:
    revoked = of(renewal, revoked=True)

    assert reason(judged(renewal, revoked, END + 1, grace=3600)) is Reason.NOT_RENEWABLE


@pytest.mark.parametrize(
    ("at", "expected"),
    [(NOW - 1, Reason.RENEWED_TOO_EARLY), (NOW, None), (NOW + 1, None)],
)
def test_by_default_the_last_third_of_its_life_is_the_time_to_renew(
    renewal: CertificationRequest, at: int, expected: Reason | None
) -> None:
    assert reason(judged(renewal, of(renewal), at)) is expected


@pytest.mark.parametrize("at", [BEGIN, BEGIN + 1, NOW, END])
def test_a_window_of_nothing_is_any_time(renewal: CertificationRequest, at: int) -> None:
    assert reason(judged(renewal, of(renewal), at, window=0)) is None


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (END - 7 * DAY - 1, Reason.RENEWED_TOO_EARLY),
        (END - 7 * DAY, None),
        (END - 7 * DAY + 1, None),
    ],
)
def test_a_window_in_seconds_is_counted_from_the_end(
    renewal: CertificationRequest, at: int, expected: Reason | None
) -> None:
    assert reason(judged(renewal, of(renewal), at, window=7 * DAY)) is expected


def test_a_window_longer_than_its_life_is_any_time(renewal: CertificationRequest) -> None:
    assert reason(judged(renewal, of(renewal), BEGIN, window=400 * DAY)) is None


@pytest.mark.parametrize("life", [1, 2, 3, 4])
def test_a_certificate_of_seconds_is_renewable_at_its_end(
    renewal: CertificationRequest, life: int
) -> None:
    brief = of(renewal, not_before=NOW - life, not_after=NOW)

    assert reason(judged(renewal, brief, NOW)) is None


# Under which names


@pytest.mark.parametrize(
    "changed",
    [{"subject": OTHER_NAME}, {"names": OTHER_DNS}, {"names": None}],
    ids=["subject", "another name", "no name"],
)
def test_a_renewal_changes_no_names_unless_the_profile_says_so(
    device: Identity, renewal: CertificationRequest, changed: dict[str, Any]
) -> None:
    extensions = changed.pop("names", DNS)
    asked = read_csr(csr(device.key, *([extensions] if extensions else []), **changed))

    assert reason(judged(asked, of(renewal))) is Reason.NAMES_CHANGED
    assert reason(judged(asked, of(renewal), any_names=True)) is None


def test_the_same_name_in_another_encoding_is_another_name(
    device: Identity, renewal: CertificationRequest
) -> None:
    printable = name(("2.5.4.3", PRINTABLE, b"device"), ("2.5.4.10", PRINTABLE, b"Lab"))
    asked = read_csr(csr(device.key, DNS, subject=printable))

    assert reason(judged(asked, of(renewal))) is Reason.NAMES_CHANGED


def test_a_record_without_names_is_no_licence_for_any(renewal: CertificationRequest) -> None:
    """Records from before names were kept."""
    assert reason(judged(renewal, of(renewal, names_sha256=""))) is Reason.NAMES_CHANGED


# With which key


@pytest.mark.parametrize(
    ("key_reused", "uses", "expected"),
    [(False, 0, None), (False, 1, None), (True, 0, None), (True, 1, Reason.KEY_REUSED),
     (True, 2, Reason.KEY_REUSED)],
)  # fmt: skip
def test_a_key_is_renewed_with_itself_once(
    renewal: CertificationRequest,
    key_reused: bool,  # noqa: FBT001 - a case
    uses: int,
    expected: Reason | None,
) -> None:
    renewed = of(renewal, key_uses=uses)

    assert reason(judged(renewal, renewed, key_reused=key_reused)) is expected
    assert reason(judged(renewal, renewed, key_reused=key_reused, key_reuse=True)) is None


# The order, and the challenge


def test_the_first_broken_rule_is_the_one_that_is_told(
    device: Identity, renewal: CertificationRequest
) -> None:
    """Each in turn breaks every later one too."""
    asked = read_csr(csr(device.key, DNS, subject=OTHER_NAME))
    record = of(renewal, key_uses=1)
    early = judged(asked, record, NOW - 1, key_reused=True)
    renamed = judged(asked, record, NOW, key_reused=True)

    assert [reason(early), reason(renamed)] == [Reason.RENEWED_TOO_EARLY, Reason.NAMES_CHANGED]


def test_where_the_profile_says_so_a_renewal_needs_the_challenge_too(device: Identity) -> None:
    without = read_csr(csr(device.key, DNS))
    asked = read_csr(csr(device.key, DNS, challenge(PRINTABLE, b"s3cret")))

    missing = judged(without, of(without), challenge=True)
    assert missing.refusal is not None
    assert missing.refusal.reason is Reason.CHALLENGE_MISSING
    decision = judged(asked, of(asked), challenge=True)
    assert decision.refusal is None
    assert decision.gates[-1].gate == "renewal"  # the verifier has the last word


def test_a_wrong_challenge_in_a_renewal_that_needs_none_is_not_looked_at(device: Identity) -> None:
    """Devices send the password they once enrolled with for ever."""
    asked = read_csr(csr(device.key, DNS, challenge(PRINTABLE, b"of last year")))

    assert judged(asked, of(asked)).refusal is None


def test_a_renewal_passes_the_gates_of_every_request_too(device: Identity) -> None:
    asked = read_csr(csr(device.key, DNS))
    opened = DecryptedRequest(asked, facts(key_bits=1024), renews=SERIAL)
    decision = decide(PolicyInput(opened, History(of(asked)), PROFILE, policy(), NOW, NOW))

    assert decision.refusal is not None
    assert decision.refusal.reason is Reason.KEY_NOT_ALLOWED


# Requests that only call themselves renewals


@pytest.mark.parametrize("password", [None, b"s3cret"])
def test_a_renewal_whose_signer_is_not_ours_is_refused_with_any_challenge(
    device: Identity, password: bytes | None
) -> None:
    """Message type 17 signed by a stranger's or a self-signed certificate."""
    attributes = [DNS] if password is None else [DNS, challenge(PRINTABLE, password)]
    opened = DecryptedRequest(read_csr(csr(device.key, *attributes)), facts(), renewal_asked=True)
    decision = decide(PolicyInput(opened, History(), PROFILE, policy(), NOW, NOW))

    assert reason(decision) is Reason.NOT_RENEWABLE


# A key that was given up


@pytest.mark.parametrize("renews", ["", SERIAL])
def test_a_compromised_key_is_refused_whatever_else_is_right(device: Identity, renews: str) -> None:
    asked = read_csr(csr(device.key, DNS, challenge(PRINTABLE, b"s3cret")))
    history = History(of(asked) if renews else None, key_compromised=True)
    decision = decide(
        PolicyInput(
            DecryptedRequest(asked, facts(), renews=renews, signer_spki_sha256=KEY_OF_RECORDS),
            history,
            PROFILE,
            policy(),
            NOW,
            NOW,
        )
    )

    assert decision.refusal is not None
    assert decision.refusal.reason is Reason.KEY_COMPROMISED
    assert decision.gates[-1].gate == "compromise"


def test_a_certificate_of_the_same_serial_number_and_another_key_renews_nothing(
    renewal: CertificationRequest,
) -> None:
    """Whoever has a key that another CA trusts may choose a serial number of ours."""
    assert reason(judged(renewal, of(renewal, spki_sha256="99" * 32))) is Reason.NOT_RENEWABLE


@pytest.mark.parametrize("blocked", ["new", "old"])
def test_a_blocked_key_is_neither_certified_nor_able_to_renew(
    device: Identity, blocked: str
) -> None:
    """Whoever has the old key could otherwise renew its certificate for a key of their own."""
    asked, old = read_csr(csr(device.key, DNS)), b"\x30\x03\x02\x01\x07"
    opened = DecryptedRequest(
        asked, facts(), renews=SERIAL, signer_spki_sha256=KEY_OF_RECORDS, signer_spki=old
    )
    found = PolicyInput(opened, History(of(asked)), PROFILE, policy(), NOW, NOW)
    listed = BlockedKeys.of({hashlib.sha256(asked.spki if blocked == "new" else old).digest()})

    assert decide(found).refusal is None
    refusal = decide(replace(found, blocked=listed)).refusal
    assert refusal is not None
    assert refusal.reason is Reason.KEY_COMPROMISED
    assert "blocked" in refusal.detail
