"""Labels of the page, and the tone in which each is shown. Pure."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from services.audit.api.tenants import SUCCESS, TenantState
from services.audit.query.life import CertificateState, View, state_of
from services.audit.store.commands import Command, Result
from shared.log.enrollment import State
from shared.log.events.commands import RevocationReason
from shared.log.reasons import Reason

Tone = Literal["good", "warn", "bad", "none"]
Status = Literal["good", "held", "revoked", "expired"]
_SECOND: Final = 1_000_000_000
_SOON_DAYS: Final = 30
_URGENT_DAYS: Final = 7
_MILLISECOND: Final = 1_000_000
_TENTH: Final = 100_000_000
_MINUTE: Final = 60

CHIPS: Final[Mapping[str, tuple[str, ...]]] = {
    "all": (),
    "initial": ("scep_pkcsreq", "scep_pkcsreq_intune"),
    "renewal": ("scep_renewalreq", "scep_renewalreq_intune"),
    "intune": ("scep_pkcsreq_intune", "scep_renewalreq_intune"),
    "static": ("scep_pkcsreq", "scep_renewalreq"),
}
_ACTIONS: Final[Mapping[str, str]] = {
    "scep_pkcsreq": "Initial",
    "scep_renewalreq": "Renewal",
    "scep_pkcsreq_intune": "Initial, Intune",
    "scep_renewalreq_intune": "Renewal, Intune",
}
_TONES: Final[Mapping[str, Tone]] = {
    State.REQUESTED: "none",
    State.HELD: "warn",
    State.DECIDED: "none",
    State.APPROVED: "none",
    State.CONFIRMING: "none",
    State.REJECTED: "bad",
    State.ISSUED: "good",
    State.FAILED: "bad",
}

_TENANT_TONES: Final[Mapping[str, Tone]] = {
    TenantState.OK: "good",
    TenantState.WARNING: "warn",
    TenantState.FAILING: "bad",
    TenantState.UNKNOWN: "none",
}
_REFUSED: Final = "refused"  # a call that Intune answered with no
_WAITING: Final = "waiting"
_INTUNE: Final = "intune"
# A detail of its gate: Intune refused the request: CODE (advice; CODE, activity ID)
_ADVICE: Final = re.compile(r" \((.)(.*); [^;]*\)$", re.DOTALL)
# What to do about enrollments whose challenge Intune validates.
_HINTS: Final[Mapping[str, str]] = {
    Reason.NOT_CONFIRMED: (
        "Intune did not accept the certificate, so the device did not get it and the issuer "
        "revoked it. Intune's code, if it gave one, is in the detail. Let the device synchronize "
        "with Intune: it then asks again with a new challenge."
    ),
    Reason.SERVICE_UNAVAILABLE: (
        "Microsoft could not be asked, so the device was refused. The tenant's card under Intune "
        "Monitoring says what is wrong; the device asks again when it synchronizes with Intune."
    ),
}
_WAITS: Final = (
    "The certificate is issued and withheld: the device gets it once Intune accepts it. If it "
    "stays so for more than a minute, see the tenant's card under Intune Monitoring, and whether "
    "validators run."
)
_COMMANDS: Final[Mapping[str, str]] = {
    Command.APPROVE: "Approve enrollment",
    Command.DENY: "Deny enrollment",
    Command.REVOKE: "Revoke certificate",
    Command.WITHDRAW: "Withdraw certificate (a tenant of Intune)",
    Command.SETTLE_ORPHAN: "Settle possible orphan",
    Command.RELOAD_TRUST: "Reload trust anchors",
    Command.RELOAD_RA: "Reload RA certificates",
    Command.RETRY: "Retry dead letter",
    Command.RESUME: "Resume enrollment",
    Command.CREATE_CHALLENGE: "Create one-time challenge",
    Command.CANCEL_CHALLENGE: "Cancel one-time challenge",
    Command.CREATE_TOKEN: "Create API token",
    Command.REVOKE_TOKEN: "Revoke API token",
}
_VIEWS: Final[Mapping[str, str]] = {
    "": "All",
    View.VALID: "Valid",
    View.EXPIRING: "Expiring",
    View.NOT_RENEWED: "Should have renewed",
    View.EXPIRED: "Expired",
    View.SUPERSEDED: "Superseded",
    View.HELD: "On hold",
    View.REVOKED: "Revoked",
}


@dataclass(frozen=True, slots=True)
class Badge:
    """A label with a tone. The text alone carries the full meaning."""

    text: str
    tone: Tone


def expiry_badge(days: int | None, *, expired: bool | None) -> Badge:
    """Return the badge for the days until a certificate expires; None: it could not be read."""
    if days is None:
        return Badge("Not loaded", "bad")
    if expired:
        return Badge("EXPIRED", "bad")
    text = f"{days} day{'' if days == 1 else 's'}"
    if days >= _SOON_DAYS:
        return Badge(text, "good")
    return Badge(f"{text} (rotate soon)", "warn") if days >= _URGENT_DAYS else Badge(text, "bad")


def state_badge(state: str) -> Badge:
    """Return the badge of an enrollment's state."""
    return Badge(state, _TONES.get(state, "none"))


def tenant_badge(state: str) -> Badge:
    """Return the badge of a connection to a tenant of Intune."""
    return Badge(state, _TENANT_TONES.get(state, "none"))


def result_tone(result: str, number: int) -> str:
    """Return the tone in which a number of calls or enrollments with a result is shown."""
    if not number:
        return "zero"
    if result == SUCCESS:
        return "good"
    return "none" if result in (_REFUSED, _WAITING) else "bad"


def enrollment_hint(row: Mapping[str, Any], refusals: Mapping[str, str]) -> str:
    """Return what an operator can do about an enrollment, or "".

    `refusals` maps gates that refused it to their details: that of Intune says what its code means.
    """
    if row["state"] == State.CONFIRMING:
        return _WAITS
    if row["challenge"] != _INTUNE:
        return ""
    if hint := _HINTS.get(row["reason"] or "", ""):
        return hint
    if (found := _ADVICE.search(refusals.get(_INTUNE, ""))) is None:
        return ""
    return f"{found[1].upper()}{found[2]}."


def action_name(action: str | None) -> str:
    """Return the label of an action; "" while it is not known yet."""
    return _ACTIONS.get(action or "", action or "")


def command_name(kind: str) -> str:
    """Return the label of a command."""
    return _COMMANDS.get(kind, kind)


def command_badge(row: Mapping[str, Any]) -> Badge:
    """Return the badge of a command's result (a row of `list_commands`), with counts of answers."""
    refused, answered = row["refused"], row["answered"]
    match row["result"]:
        case Result.DONE:
            return Badge(f"done by {answered} replicas" if answered > 1 else "done", "good")
        case Result.REFUSED:
            text = f"{refused} of {answered} refused" if answered > 1 else "refused"
            return Badge(text, "bad")
        case _:
            of_all = f"{answered} of {row['expected']} answered"
            return Badge(of_all if answered else "waiting", "warn")


def names_text(sans: str | None) -> str:
    """Return alternative names, stored as a JSON array, on one line."""
    return ", ".join(json.loads(sans)) if sans else ""


def moment(nanoseconds: int) -> str:
    """Format a time of the log (Unix ns) for display, in UTC."""
    return f"{datetime.fromtimestamp(nanoseconds // _SECOND, UTC):%Y-%m-%d %H:%M:%S}"


def second(seconds: int | None) -> str:
    """Format Unix seconds for display in UTC, "never" for None."""
    return "never" if seconds is None else f"{moment(seconds * _SECOND)} UTC"


def iso(nanoseconds: int) -> str:
    """Format a time of the log (Unix ns) as ISO 8601 with milliseconds, in UTC."""
    milliseconds = nanoseconds // _MILLISECOND % 1000
    at = datetime.fromtimestamp(nanoseconds // _SECOND, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"


def day(seconds: int) -> str:
    """Format Unix seconds as a date in UTC, or "unknown" if it is out of range."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
    except (ValueError, OverflowError, OSError):
        return "unknown"


def lasting(nanoseconds: int) -> str:
    """Format a duration, truncated and not rounded: "3 ms", "2.4 s", "1 h 05 min"."""
    if nanoseconds < _SECOND:
        return f"{nanoseconds // _MILLISECOND} ms"
    seconds = nanoseconds // _SECOND
    if seconds < _MINUTE:
        return f"{nanoseconds // _TENTH / 10:.1f} s"
    minutes = seconds // _MINUTE
    if minutes < _MINUTE:
        return f"{minutes} min {seconds % _MINUTE:02d} s"
    return f"{minutes // _MINUTE} h {minutes % _MINUTE:02d} min"


def certificate_status(row: Mapping[str, Any], now: float) -> Status:
    """Return a certificate's status at `now` (Unix s), which decides the available commands.

    `row` may be the enrollment's row while its certificate is not recorded yet.
    """
    held = row.get("revocation_reason") == RevocationReason.CERTIFICATE_HOLD
    if row.get("revoked_at") and not held:
        return "revoked"
    if row["not_after"] and row["not_after"] < now:
        return "expired"
    return "held" if row.get("revoked_at") else "good"


def certificate_badge(row: Mapping[str, Any], now: float) -> Badge:
    """Return the badge of a certificate's state; "revoked" is shown even after expiry."""
    match state_of(row, now):
        case CertificateState.REVOKED:
            return Badge(f"revoked: {row['revocation_reason']}", "bad")
        case CertificateState.HELD:
            return Badge("on hold", "warn")
        case CertificateState.SUPERSEDED:
            return Badge("superseded", "none")
        case CertificateState.EXPIRED:
            return Badge("expired", "none")
        case _:
            late = row.get("not_renewed")
            return Badge("should have renewed", "warn") if late else Badge("good", "good")


def view_name(view: str) -> str:
    """Return the label of a list of certificates; "" is the list of all."""
    return _VIEWS.get(view, view)


def revocation_reasons(status: Status) -> list[RevocationReason]:
    """Return the reasons for which a certificate of this status can be revoked.

    removeFromCRL is never among them: it releases a hold. For an expired certificate only
    keyCompromise has an effect: its key is never certified again.
    """
    if status == "expired":
        return [RevocationReason.KEY_COMPROMISE]
    left = {RevocationReason.REMOVE_FROM_CRL}
    if status == "held":
        left.add(RevocationReason.CERTIFICATE_HOLD)
    return [reason for reason in RevocationReason if reason not in left]
