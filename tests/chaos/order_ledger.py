"""What the log and the CA's register say of the same orders, and what must be true of them."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from services.issuer.connectors.connector import Order
from shared.log.envelope import NANOSECONDS, Stored, authenticate, authenticate_as, decode
from shared.log.events.certificates import (
    CertificateRecorded,
    OrderChanged,
    OrderStep,
    OrphanSettled,
    OrphanSuspected,
)
from shared.log.events.enrollment import CertificateIssued, EnrollmentApproved, IssuanceFailed
from shared.log.events.state import DeadLetter
from shared.log.reasons import Reason
from shared.log.stages import Stage
from shared.log.streams import CERTS, DEAD_LETTERS
from shared.log.subjects import certificate_issued, parse_subject
from tests.chaos.ledger import ENROLL
from tests.chaos.order_ca import DEFERRED, NAMED, SEARCHABLE
from tests.support.world import TRUSTED_ISSUERS

CERTAIN: Final = (NAMED, DEFERRED)  # at these CAs an order never becomes two certificates
MOST_PLACEMENTS: Final = 3
COLUMNS: Final = (
    "orders", "placed", "made", "issued", "failed", "refused", "lost", "pending", "doubled",
    "suspected", "settled", "revoked", "open", "silent", "early", "expired", "after end", "dead",
)  # fmt: skip


@dataclass
class Attempt:
    """One order: its events, and its entries in the CA's register in the order of arrival."""

    prefix: str
    kind: str
    key: str
    request_sha256: str
    outcomes: list[CertificateIssued | IssuanceFailed] = field(default_factory=list)
    ended: float = 0.0
    steps: list[tuple[float, OrderChanged]] = field(default_factory=list)
    dead: bool = False
    suspected: list[tuple[float, OrphanSuspected]] = field(default_factory=list)
    newest: OrphanSuspected | OrphanSettled | None = None
    records: list[str] = field(default_factory=list)
    entries: list[dict[str, Any]] = field(default_factory=list)

    @property
    def made(self) -> list[dict[str, Any]]:
        return [each for each in self.entries if each["certificate"]]

    @property
    def issued(self) -> str:
        """The certificate that the device gets, as hex."""
        found = [e.certificate.hex() for e in self.outcomes if isinstance(e, CertificateIssued)]
        return found[0] if found else ""

    @property
    def placed_after_end(self) -> bool:
        """Whether an issuer placed the order again when the outcome was on the log."""
        return any(s.step is OrderStep.PLACED and at > self.ended for at, s in self.steps)

    @property
    def strays(self) -> list[dict[str, Any]]:
        """Certificates that are valid, and no device's."""
        return [e for e in self.made if not e["revoked"] and e["certificate"] != self.issued]

    def story(self) -> str:
        """The whole evidence, in one line."""
        zero = min((each["arrived"] for each in self.entries), default=0.0)
        steps = [
            (round(at - zero, 2), s.step.value, s.placement, s.since, s.lease_until, s.handle)
            for at, s in self.steps
        ]
        suspected = [(round(at - zero, 2), event.placement) for at, event in self.suspected]
        register = [
            f"{e['arrived'] - zero:.2f} s {e['state']} {e['certificate'][30:46]}"
            f" made {e['made'] - zero if e['made'] else 0:.2f} s revoked {e['revoked']}"
            for e in self.entries
        ]
        outcome = [getattr(e, "reason", None) or f"issued {e.serial}" for e in self.outcomes]  # type: ignore[union-attr]
        return (
            f"{self.kind} {self.prefix} order {self.key}, its first arrival at {zero:.2f}: "
            f"CA {register}; steps {steps}; suspected {suspected}; newest {self.newest}; "
            f"records {self.records}; outcome {outcome} at {self.ended - zero:.2f} s, "
            f"dead letter {self.dead}"
        )

    def faults(self, records: dict[str, str]) -> Iterable[str]:
        """What must not be; `records` are the attempts in CERTS by their subject."""
        if len(self.outcomes) != 1:
            yield f"{len(self.outcomes)} outcomes"
        yield from self._faults_of_issued(records)
        if self.kind in CERTAIN and len(self.made) > 1:
            yield "two certificates where none can be doubled"
        if len(self.strays) > len({event.placement for _, event in self.suspected}):
            yield "a certificate that is nobody's, and no possible orphan covers it"
        if self.kind == SEARCHABLE and self.strays:
            yield "an orphan that a search finds is not revoked"
        if self.kind not in CERTAIN:
            yield from self._faults_of_placements()

    def _faults_of_placements(self) -> Iterable[str]:
        """What may be lost is recorded before it is risked, and risked three times at most."""
        if len(self.entries) > MOST_PLACEMENTS:
            yield "placed more than three times"
        for number, each in enumerate(self.entries):
            before = {event.placement for at, event in self.suspected if at < each["arrived"]}
            if len(before) < number:
                yield "placed again before a possible orphan was recorded"
                return

    def _faults_of_issued(self, records: dict[str, str]) -> Iterable[str]:
        if not self.issued:
            return
        (event,) = self.outcomes
        assert isinstance(event, CertificateIssued)
        if records.get(certificate_issued(event.issuer, event.serial)) != self.prefix:
            yield "issued and not recorded"
        at_ca = [each for each in self.made if each["certificate"] == self.issued]
        if len(at_ca) != 1:
            yield "issued and not made by the CA for this order"
        elif at_ca[0]["revoked"]:
            yield "issued and revoked at the CA"


@dataclass(frozen=True)
class OrderLedger:
    """All orders by their key, and the attempts in CERTS by their subject."""

    attempts: dict[str, Attempt]
    records: dict[str, str]

    @classmethod
    def of(cls, streams: dict[str, list[Stored]], register: dict[str, Any]) -> "OrderLedger":
        """From the streams `ENROLL_0`, `CERTS` and `DEAD_LETTERS`, and the CA's register."""
        by_prefix: dict[str, Attempt] = {}
        for stored in streams[ENROLL]:
            enrollment, stage = parse_subject(stored.subject)
            event = decode(stored.payload, stored.headers)
            prefix = enrollment.prefix()
            if isinstance(event, EnrollmentApproved):
                key = Order(prefix, event.template, stored.sha256()).key
                kind, digest = event.template.issuer, event.request_sha256
                by_prefix[prefix] = Attempt(prefix, kind, key, digest)
            elif stage is Stage.OUTCOME:
                found = by_prefix[prefix]
                outcome = authenticate(stored, TRUSTED_ISSUERS, stage, found.request_sha256)
                assert isinstance(outcome, CertificateIssued | IssuanceFailed)
                found.outcomes.append(outcome)
                found.ended = stored.time / NANOSECONDS
        ledger = cls({each.key: each for each in by_prefix.values()}, {})
        for stored in streams[CERTS]:
            ledger._note(stored, by_prefix)
        for stored in streams[DEAD_LETTERS]:
            letter = decode(stored.payload, stored.headers)
            assert isinstance(letter, DeadLetter)
            by_prefix[parse_subject(letter.subject)[0].prefix()].dead = True
        for entry in register["orders"]:
            ledger.attempts[entry["name"]].entries.append(entry)
        return ledger

    def _note(self, stored: Stored, by_prefix: dict[str, Attempt]) -> None:
        kind = type(decode(stored.payload, stored.headers))
        event = authenticate_as(kind, stored, TRUSTED_ISSUERS)  # type: ignore[type-var]
        match event:
            case CertificateRecorded() if stored.subject.startswith("cert."):
                self.records[stored.subject] = event.enrollment
                by_prefix[event.enrollment].records.append(event.serial)
            case OrderChanged():
                self.attempts[event.key].steps.append((stored.time / NANOSECONDS, event))
            case OrphanSuspected():
                found = self.attempts[event.key]
                found.suspected.append((stored.time / NANOSECONDS, event))
                found.newest = event
            case OrphanSettled():
                self.attempts[event.key].newest = event

    def of_kind(self, kind: str) -> list[Attempt]:
        return [each for each in self.attempts.values() if each.kind == kind]

    def unsettled(self, kind: str) -> int:
        return sum(isinstance(each.newest, OrphanSuspected) for each in self.of_kind(kind))

    def faults(self) -> dict[str, list[str]]:
        """The evidence, by CA and fault."""
        found: dict[str, list[str]] = defaultdict(list)
        for each in self.attempts.values():
            for fault in each.faults(self.records):
                found[f"{each.kind}: {fault}"].append(each.story())
        return found

    def counts(self, kind: str, at_ca: dict[str, int]) -> "Counter[str]":
        """A row of the table; `at_ca` is what the CA counted."""
        found = self.of_kind(kind)
        reasons = Counter(o.reason for a in found for o in a.outcomes if not _is_issued(o))  # type: ignore[union-attr]
        silent = [a for a in found for o in a.outcomes if _silent(o)]
        return Counter(
            {
                "orders": len(found),
                "placed": sum(len(a.entries) for a in found),
                "made": sum(len(a.made) for a in found),
                "issued": sum(bool(a.issued) for a in found),
                "failed": reasons.total(),
                "refused": at_ca.get("refused", 0),
                "lost": at_ca.get("lost", 0),
                "pending": sum(s.step == "pending" for a in found for _, s in a.steps),
                "doubled": sum(len(a.made) > 1 for a in found),
                "suspected": sum(len(a.suspected) for a in found),
                "settled": sum(isinstance(a.newest, OrphanSettled) for a in found),
                "revoked": sum(e["revoked"] for a in found for e in a.made),
                "open": sum(len(a.strays) for a in found),
                "silent": len(silent),
                "expired": reasons[Reason.VERDICT_EXPIRED],
                "after end": sum(a.placed_after_end for a in found),
                "dead": sum(a.dead and bool(a.issued) for a in found),
                "early": sum(len(a.suspected) < MOST_PLACEMENTS for a in silent),
            }
        )


def _is_issued(outcome: CertificateIssued | IssuanceFailed) -> bool:
    return isinstance(outcome, CertificateIssued)


def _silent(outcome: CertificateIssued | IssuanceFailed) -> bool:
    return isinstance(outcome, IssuanceFailed) and outcome.reason is Reason.CA_SILENT


def table(rows: dict[str, "Counter[str]"]) -> str:
    """The counts, a line for each kind of CA."""
    lines = [f"{'':12}" + "".join(f"{column:>10}" for column in COLUMNS)]
    for kind, row in rows.items():
        lines.append(f"{kind:12}" + "".join(f"{row[column]:>10}" for column in COLUMNS))
    return "\n".join(lines)
