"""What became of a certificate, and whether its device should have renewed it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from shared.ca.validity import renewal_late_from
from shared.log.events.commands import RevocationReason


class CertificateState(StrEnum):
    """What became of a certificate. Each is in one state."""

    VALID = "valid"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    HELD = "held"
    REVOKED = "revoked"


class View(StrEnum):
    """Lists of certificates: one for each state, and two of valid certificates that end soon."""

    VALID = "valid"
    EXPIRING = "expiring"
    NOT_RENEWED = "not_renewed"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    HELD = "held"
    REVOKED = "revoked"


def state_of(row: Mapping[str, Any], now: float) -> CertificateState:
    """Return the state of a certificate (a row of the table) at `now` (Unix s).

    A hold ends with the certificate, a revocation does not.
    """
    expired = bool(row["not_after"]) and row["not_after"] < now
    held = row.get("revocation_reason") == RevocationReason.CERTIFICATE_HOLD
    if row.get("revoked_at") and not (held and expired):
        return CertificateState.HELD if held else CertificateState.REVOKED
    if row.get("superseded_by"):
        return CertificateState.SUPERSEDED
    return CertificateState.EXPIRED if expired else CertificateState.VALID


@dataclass(frozen=True)
class RenewalWindows:
    """When the devices of each SCEP profile renew; all values are in seconds.

    `windows` has the profiles that set a window of their own (0: any time); for all others it is
    the last third of a certificate's life. No device is late that has more than `reach` left: that
    is the longest time that the configuration allows, and it bounds queries.
    """

    windows: Mapping[str, int] = field(default_factory=dict)
    reach: int = 0

    def should_have_renewed(
        self, profile: str | None, not_before: int, not_after: int, now: int
    ) -> bool:
        """Return whether a device is late with the renewal of a certificate that is still valid.

        It is if half of the time is gone in which its SCEP profile allows the renewal.
        """
        late_from = renewal_late_from(not_before, not_after, self.windows.get(profile or ""))
        return max(late_from, not_after - self.reach) <= now <= not_after
