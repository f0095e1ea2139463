"""Projection of the events of enrollments to their rows. Pure."""

import json
from dataclasses import dataclass
from typing import Final

from services.audit.record.changes import Changes, Row, see
from services.audit.record.event_row import is_ours, storable
from services.audit.store.spelling import folded
from shared.log.enrollment import State
from shared.log.envelope import Stored
from shared.log.events.base import EventPayload
from shared.log.events.enrollment import (
    CertificateConfirmed,
    CertificateIssued,
    ConfirmationFailed,
    EnrollmentApproved,
    EnrollmentHeld,
    EnrollmentRejected,
    EnrollmentRequested,
    Facts,
    HoldDecided,
    IssuanceFailed,
)
from shared.log.events.state import Claim
from shared.log.subjects import parse_prefix, parse_subject
from shared.scep.pkimessage import MessageType
from shared.x509.dn import read_dn

_HOUR_NANOSECONDS: Final = 3600 * 1_000_000_000
_NOTHING: Final = "none"
_MAX_NAMES: Final = 20
_OF_INTUNE: Final = ("signed", "intune")


@dataclass(frozen=True, slots=True)
class Known:
    """The stored columns of an enrollment that has new events."""

    device: str | None
    challenge: str | None
    message_type: int | None
    state: str
    requested_at: int


def enrollment_of(stored: Stored) -> str | None:
    """Return the enrollment that an event belongs to.

    Return None for events of other streams and for forged subjects.
    """
    if not is_ours(stored.subject):
        return None
    try:
        return parse_subject(stored.subject)[0].prefix()
    except ValueError:
        return None


@dataclass
class EnrollmentRow:
    """One enrollment's row as events are merged into it; `known` is the database's part of it."""

    changes: Changes
    name: str
    known: Known | None

    def apply(self, stored: Stored, event: EventPayload) -> None:
        """Merge an event into the row."""
        row = self._row(stored)
        match event:
            case EnrollmentRequested():
                row |= _requested(event)
                row["action"] = _action(row, renews=False)
                self._name(event.transaction_id, row)
                see(self.changes.replicas, ("gateway", event.gateway), stored.time)
            case EnrollmentHeld() | EnrollmentApproved():
                self._passed(row, stored, event)
            case HoldDecided():
                operator = storable(event.operator)
                row |= {"state": State.DECIDED, "decided_at": stored.time, "operator": operator}
            case EnrollmentRejected() | IssuanceFailed():
                self._refused(row, stored, event)
            case CertificateIssued():
                self._issued(row, stored, event)
            case CertificateConfirmed() | ConfirmationFailed():
                self._settled(row, stored, event)

    def _passed(self, row: Row, stored: Stored, event: EnrollmentHeld | EnrollmentApproved) -> None:
        """Merge passed gates: held for an operator, or approved for the issuer."""
        self._facts(row, event.facts, event.claim)
        if isinstance(event, EnrollmentHeld):
            row |= {"state": State.HELD, "held_at": stored.time}
            return
        row |= {"state": State.APPROVED, "verdict_at": stored.time}
        if event.renews:
            row["renews"] = storable(event.renews.serial)
        row["action"] = _action(row, renews=event.renews is not None)

    def _row(self, stored: Stored) -> Row:
        """Return the row so far; lists are sorted by the time of its first event."""
        row = self.changes.enrollments.get(self.name)
        if row is None:
            row = {
                "enrollment": self.name,
                "profile": parse_prefix(self.name).profile,
                "state": self.known.state if self.known else State.REQUESTED,
                "requested_at": self.known.requested_at if self.known else stored.time,
            }
            if self.known is not None:
                row |= {
                    "device": self.known.device,
                    "challenge": self.known.challenge,
                    "message_type": self.known.message_type,
                }
            self.changes.enrollments[self.name] = row
        return row

    def _facts(self, row: Row, facts: Facts, claim: Claim | None) -> None:
        # A missing value keeps an earlier one, as in `merge`: batching must not matter.
        row |= {
            name: value for name, value in _facts_columns(facts, claim).items() if value is not None
        }
        row["action"] = _action(row, renews=False)
        for name in _names(facts, claim):
            self._name(name, row)

    def _name(self, name: str, row: Row) -> None:
        entry = storable(folded(name))
        if entry:
            found = {"name": entry, "enrollment": self.name, "requested_at": row["requested_at"]}
            self.changes.names[entry, self.name] = found

    def _refused(
        self, row: Row, stored: Stored, event: EnrollmentRejected | IssuanceFailed
    ) -> None:
        """Merge an end without a certificate, by a validator or by an issuer."""
        state = State.FAILED
        if isinstance(event, EnrollmentRejected):
            state, row["verdict_at"] = State.REJECTED, stored.time
            if event.facts is not None:
                self._facts(row, event.facts, event.claim)
        row |= {
            "state": state,
            "reason": event.reason.value,
            "detail": storable(event.detail),
            "fail_info": int(event.fail_info),
        }
        self._ended(row, stored, event.reason.value, issued=0)

    def _issued(self, row: Row, stored: Stored, event: CertificateIssued) -> None:
        row |= {
            "state": State.CONFIRMING if event.withheld else State.ISSUED,
            "issuer": storable(event.issuer),
            "serial": storable(event.serial),
            "not_after": event.not_after,
        }
        self._name(event.serial, row)
        if not event.withheld:
            self._ended(row, stored, "success", issued=1)

    def _settled(
        self, row: Row, stored: Stored, event: CertificateConfirmed | ConfirmationFailed
    ) -> None:
        """Merge what became of a withheld certificate."""
        if row["state"] != State.CONFIRMING:
            return
        if isinstance(event, CertificateConfirmed):
            row["state"] = State.ISSUED
            self._ended(row, stored, "success", issued=1)
            return
        row |= {
            "state": State.FAILED,
            "reason": event.reason.value,
            "detail": storable(event.detail),
            "fail_info": int(event.fail_info),
        }
        self._ended(row, stored, event.reason.value, issued=0)

    def _ended(self, row: Row, stored: Stored, result: str, *, issued: int) -> None:
        """Count the end, once: an enrollment's terminal event can be stored only once."""
        row["ended_at"] = stored.time
        hour = stored.time // _HOUR_NANOSECONDS * 3600
        key = (hour, row["profile"], row.get("challenge") or _NOTHING, result)
        self.changes.counters[key] = self.changes.counters.get(key, 0) + 1
        if row.get("device"):
            self._device(row, stored.time, issued)

    def _device(self, row: Row, time: int, issued: int) -> None:
        key = (row["profile"], row["device"])
        device = self.changes.devices.setdefault(
            key,
            {
                "profile": row["profile"], "device": row["device"], "first_seen": time,
                "issued": 0, "refused": 0,
            },
        )  # fmt: skip
        device["issued"] += issued
        device["refused"] += 1 - issued
        device |= {"last_seen": time, "last_enrollment": self.name, "last_state": row["state"]}


def _action(row: Row, *, renews: bool) -> str:
    """Return the audit log's name of the request; a renewal may say PKCSReq (RFC 8894 s3.3.1)."""
    renewal = renews or row.get("message_type") == MessageType.RENEWAL_REQ
    name = "scep_renewalreq" if renewal else "scep_pkcsreq"
    return f"{name}_intune" if row.get("challenge") in _OF_INTUNE else name


def _requested(event: EnrollmentRequested) -> Row:
    return {
        "transaction_id": storable(event.transaction_id),
        "message_type": event.message_type,
        "signer_sha256": storable(event.signer_sha256),
        "client_address": storable(event.client_address),
        "gateway": storable(event.gateway),
    }


def _facts_columns(facts: Facts, claim: Claim | None) -> Row:
    """Return the columns from the CSR, and from the connector's claim about the device."""
    return {
        "fleet": storable(facts.fleet),
        "device": storable(facts.subject),
        "sans": json.dumps([storable(san) for san in facts.sans]),
        "key_type": storable(facts.key_type),
        "key_bits": facts.key_bits,
        "spki_sha256": storable(facts.spki_sha256),
        "csr_sha256": storable(facts.csr_sha256),
        "challenge": storable(facts.challenge),
        "device_id": storable(facts.device_id) or None,
        "claim_issuer": storable(claim.issuer) if claim else None,
        "claim_subject": storable(claim.subject) if claim else None,
    }


def _names(facts: Facts, claim: Claim | None) -> list[str]:
    """Return what people search for a device by: its subject, the parts of it, its other names."""
    parts = [value for _, value in read_dn(facts.subject)]
    sans = [san.partition(":")[2] for san in facts.sans]
    claimed = [claim.subject] if claim else []
    return [facts.subject, *parts, *sans, facts.device_id, *claimed][:_MAX_NAMES]
