"""Timeline of an enrollment: its events as steps, and the time that each service took. Pure."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from services.audit.query.payload import read_payload

_WIDTH: Final = 720.0
_LEAST: Final = 6.0  # keeps the shortest spans visible
_SERVICES: Final[Mapping[str, str]] = {
    "EnrollmentRequested": "gateway",
    "EnrollmentHeld": "validator",
    "HoldDecided": "operator",
    "EnrollmentApproved": "validator",
    "EnrollmentRejected": "validator",
    "CertificateOrdered": "issuer",
    "OrderChanged": "issuer",
    "OrphanSuspected": "issuer",
    "OrphanSettled": "issuer",
    "CertificateIssued": "issuer",
    "IssuanceFailed": "issuer",
    "CertificateConfirmed": "validator",
    "ConfirmationFailed": "validator",
    "CertificateRecorded": "issuer",
    "CertificateStatusChanged": "issuer",
    "KeyCompromised": "issuer",
    "RevocationOrdered": "operator",
    "WithdrawalOrdered": "validator",
}
_TITLES: Final[Mapping[str, str]] = {
    "EnrollmentRequested": "Request recorded",
    "EnrollmentHeld": "Held for an operator",
    "HoldDecided": "Operator decided",
    "EnrollmentApproved": "Approved",
    "EnrollmentRejected": "Rejected",
    "CertificateOrdered": "Ordered from the CA",
    "OrderChanged": "Order changed",
    "OrphanSuspected": "Possible orphan at the CA",
    "OrphanSettled": "Possible orphan settled",
    "CertificateIssued": "Certificate issued",
    "IssuanceFailed": "Issuance failed",
    "CertificateConfirmed": "Accepted by Intune",
    "ConfirmationFailed": "Not accepted by Intune",
    "CertificateRecorded": "Certificate recorded",
    "CertificateStatusChanged": "Certificate status changed",
    "KeyCompromised": "Key marked as compromised",
    "RevocationOrdered": "Revocation ordered",
    "WithdrawalOrdered": "Withdrawal ordered",
}
_ENDS: Final = frozenset({"EnrollmentRejected", "CertificateIssued", "IssuanceFailed"})
_CONFIRMATIONS: Final = frozenset({"CertificateConfirmed", "ConfirmationFailed"})
_LONG: Final = 160
_CIPHERTEXT: Final = frozenset({"pki_message", "content_key", "csr"})
_KEY_INDEX: Final = re.compile(r"key\.[^.]*\.issued\.")


@dataclass(frozen=True, slots=True)
class Step:
    """An event on the timeline.

    `at` is the log's time in Unix ns, `after` the time since the previous event in ns.
    """

    type: str
    title: str
    service: str
    at: int
    after: int | None
    place: str
    details: tuple[tuple[str, str], ...] | None  # None if only the log has them, and is away


@dataclass(frozen=True, slots=True)
class Span:
    """Time that one service took (ns), and its position in a bar of width `_WIDTH`."""

    service: str
    spent: int
    x: float
    width: float


def steps(events: Sequence[Mapping[str, Any]]) -> tuple[Step, ...]:
    """Return the steps for event rows in order; the index of certificates by key is left out."""
    events = [event for event in events if not _KEY_INDEX.match(event["subject"])]
    times = [event["recorded_at"] for event in events]
    return tuple(
        Step(
            type=event["type"],
            title=_TITLES.get(event["type"], event["type"]),
            service=_SERVICES.get(event["type"], "log"),
            at=event["recorded_at"],
            after=max(0, times[i] - times[i - 1]) if i else None,
            place=f"{event['stream']} #{event['sequence']}",
            details=None if event["payload"] is None else _details(event["payload"]),
        )
        for i, event in enumerate(events)
    )


def spans(found: Sequence[Step]) -> tuple[Span, ...]:
    """Return the time from the request to its end, divided among the services.

    Each interval belongs to the service that wrote the event at its end.
    """
    spent: list[tuple[str, int]] = []
    ends = _CONFIRMATIONS if any(step.type in _CONFIRMATIONS for step in found) else _ENDS
    for step in found[1:]:
        before = spent.pop()[1] if spent and spent[-1][0] == step.service else 0
        spent.append((step.service, before + (step.after or 0)))
        if step.type in ends:
            break
    whole = sum(time for _, time in spent)
    if not whole:
        return ()
    scale = (_WIDTH - _LEAST * len(spent)) / whole
    result, x = [], 0.0
    for service, time in spent:
        width = _LEAST + time * scale
        result.append(Span(service, time, round(x, 1), round(width, 1)))
        x += width
    return tuple(result)


def refusals(events: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the gates that refused the enrollment, and what each says about it."""
    read = [read_payload(each["payload"]) or {} for each in events if each["payload"]]
    lists = [found for each in read if isinstance(found := each.get("gates"), list)]
    gates = [gate for found in lists for gate in found if isinstance(gate, dict)]
    return {
        gate["gate"]: gate["detail"]
        for gate in gates
        if gate.get("passed") is False
        and isinstance(gate.get("gate"), str)
        and isinstance(gate.get("detail"), str)
    }


def _details(payload: bytes) -> tuple[tuple[str, str], ...]:
    """Return the members of an event as text; none if the payload is unreadable."""
    read = read_payload(payload) or {}
    shown = {name: value for name, value in read.items() if name not in _CIPHERTEXT}
    return tuple(pair for name, value in shown.items() for pair in _pairs(name, value))


def _pairs(name: str, value: object) -> list[tuple[str, str]]:
    if name == "gates" and isinstance(value, list):
        return [_gate(each) for each in value if isinstance(each, dict)]
    if isinstance(value, dict):
        return [(f"{name}.{inner}", _short(each)) for inner, each in value.items()]
    return [(name, _short(value))]


def _gate(gate: dict[str, Any]) -> tuple[str, str]:
    """Return a gate's name and its result with the detail."""
    result = "passed" if gate.get("passed") is True else "refused"
    detail = gate.get("detail")
    return f"gate {_short(gate.get('gate'))}", f"{result}: {_short(detail)}" if detail else result


def _short(value: object) -> str:
    if isinstance(value, str):
        text = value
    elif isinstance(value, list) and all(isinstance(each, str) for each in value):
        text = ", ".join(value)
    else:
        text = json.dumps(value)
    return text if len(text) <= _LONG else f"{text[:_LONG]}... ({len(text)} characters)"
