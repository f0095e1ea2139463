"""Computes a certificate's status after a revocation command (RFC 5280 s5.3.1). Pure."""

from dataclasses import dataclass
from typing import Final

from shared.log.events.certificates import CertificateStatus, CertificateStatusChanged
from shared.log.events.commands import RevocationReason

_HOLD: Final = RevocationReason.CERTIFICATE_HOLD
_RELEASE: Final = RevocationReason.REMOVE_FROM_CRL


@dataclass(frozen=True, slots=True)
class Change:
    """The status to record, and why and since when (Unix seconds) it is on the CRL."""

    status: CertificateStatus
    reason: RevocationReason
    revoked_at: int


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Nothing to record; `done` says whether the certificate already is as commanded."""

    done: bool
    detail: str


def next_status(
    current: CertificateStatusChanged | None, reason: RevocationReason, command: int, at: int
) -> Change | Unchanged:
    """Return the effect of a command at sequence `command` issued `at` (Unix seconds).

    A certificate that was revoked for good stays revoked, and a compromise is never undone; every
    other reason may be corrected. Commands count in the sequence of the log: one that is
    redelivered after a later one was carried out changes nothing.
    """
    if current is not None and current.command >= command:
        return Unchanged(True, "already recorded")
    if current is None or current.status is CertificateStatus.RELEASED:
        if reason is _RELEASE:
            return Unchanged(False, "the certificate is not on hold")
        return Change(_taken(reason), reason, at)
    if current.status is CertificateStatus.HELD:
        return _of_held(current, reason)
    return _of_revoked(current, reason)


def _taken(reason: RevocationReason) -> CertificateStatus:
    return CertificateStatus.HELD if reason is _HOLD else CertificateStatus.REVOKED


def _of_held(current: CertificateStatusChanged, reason: RevocationReason) -> Change | Unchanged:
    if reason is _HOLD:
        return Unchanged(True, "already on hold")
    released = reason is _RELEASE
    status = CertificateStatus.RELEASED if released else CertificateStatus.REVOKED
    return Change(status, reason, current.revoked_at)


def _of_revoked(current: CertificateStatusChanged, reason: RevocationReason) -> Change | Unchanged:
    if reason in (_HOLD, _RELEASE):
        return Unchanged(False, f"the certificate is permanently revoked: {current.reason}")
    kept = (current.reason, RevocationReason.UNSPECIFIED)
    if reason in kept or current.reason is RevocationReason.KEY_COMPROMISE:
        return Unchanged(True, "already revoked")
    return Change(CertificateStatus.REASON_CHANGED, reason, current.revoked_at)
