"""What an order makes of a certificate's status: every state met by every reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.issuer.status import Change, Unchanged, next_status
from shared.log.events.certificates import CertificateStatus, CertificateStatusChanged
from shared.log.events.commands import RevocationReason as Reason
from tests.support.world import NOW, PIN, REQUEST_SHA256, SERIAL

HOLD, RELEASE = Reason.CERTIFICATE_HOLD, Reason.REMOVE_FROM_CRL
FOR_GOOD = [reason for reason in Reason if reason not in (HOLD, RELEASE)]


def status(kind: CertificateStatus, reason: Reason, order: int = 1) -> CertificateStatusChanged:
    return CertificateStatusChanged(
        request_sha256=REQUEST_SHA256, serial=SERIAL, ca_spki_sha256=PIN, status=kind,
        reason=reason, revoked_at=NOW, operator="op", command=order,
    )  # fmt: skip


HELD = status(CertificateStatus.HELD, HOLD)
RELEASED = status(CertificateStatus.RELEASED, RELEASE)


def follows(current: CertificateStatusChanged | None, reason: Reason) -> Change | Unchanged:
    return next_status(current, reason, 2, NOW + 9)


@pytest.mark.parametrize("current", [None, RELEASED], ids=["good", "released"])
@pytest.mark.parametrize("reason", FOR_GOOD)
def test_what_is_good_is_revoked(current: CertificateStatusChanged | None, reason: Reason) -> None:
    assert follows(current, reason) == Change(CertificateStatus.REVOKED, reason, NOW + 9)


@pytest.mark.parametrize("current", [None, RELEASED], ids=["good", "released"])
def test_what_is_good_is_held_and_cannot_be_released(
    current: CertificateStatusChanged | None,
) -> None:
    assert follows(current, HOLD) == Change(CertificateStatus.HELD, HOLD, NOW + 9)
    assert follows(current, RELEASE) == Unchanged(False, "the certificate is not on hold")


@pytest.mark.parametrize("reason", FOR_GOOD)
def test_what_is_on_hold_is_revoked_since_it_was_held(reason: Reason) -> None:
    assert follows(HELD, reason) == Change(CertificateStatus.REVOKED, reason, NOW)


def test_what_is_on_hold_is_released() -> None:
    assert follows(HELD, RELEASE) == Change(CertificateStatus.RELEASED, RELEASE, NOW)
    assert isinstance(follows(HELD, HOLD), Unchanged)


@pytest.mark.parametrize("kind", [CertificateStatus.REVOKED, CertificateStatus.REASON_CHANGED])
@pytest.mark.parametrize("reason", FOR_GOOD)
@pytest.mark.parametrize("wanted", Reason)
def test_what_is_revoked_stays_so_and_a_compromise_is_never_taken_back(
    kind: CertificateStatus, reason: Reason, wanted: Reason
) -> None:
    found = follows(status(kind, reason), wanted)

    if wanted in (HOLD, RELEASE):
        assert found == Unchanged(False, f"the certificate is permanently revoked: {reason}")
    elif wanted in (reason, Reason.UNSPECIFIED) or reason is Reason.KEY_COMPROMISE:
        assert found == Unchanged(True, "already revoked")
    else:
        assert found == Change(CertificateStatus.REASON_CHANGED, wanted, NOW)


@given(st.lists(st.tuples(st.integers(1, 6), st.sampled_from(Reason)), max_size=12))
def test_in_whatever_order_orders_are_delivered_again_a_compromise_stays(
    orders: list[tuple[int, Reason]],
) -> None:
    current: CertificateStatusChanged | None = None
    compromised = False
    for order, reason in orders:
        found = next_status(current, reason, order, NOW + order)
        if isinstance(found, Change):
            assert current is None or order > current.command
            current = status(found.status, found.reason, order)
        compromised |= current is not None and current.reason is Reason.KEY_COMPROMISE
        assert not compromised or (current is not None and current.revoked)
