import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from services.audit.database import store
from services.audit.projection import Found, row
from services.audit.tables import enrollments, events, metadata
from shared.stored import TYPE, Message
from tests.unit import golden
from tests.unit.services.audit.stories import STREAM, event, stored
from tests.unit.world import NANOSECONDS, NOW

TOLD = {
    "EnrollmentRequested": {"transaction_id": "0123456789ABCDEF"},
    "EnrollmentApproved": {"device": "CN=Prüfgerät 7, O=Lab", "result": "approved"},
    "EnrollmentRejected": {"device": "CN=Prüfgerät 7, O=Lab", "result": "challenge_wrong"},
    "EnrollmentHeld": {"device": "CN=Prüfgerät 7, O=Lab", "result": "held"},
    "HoldDecided": {"result": "approved"},
    "CertificateIssued": {"result": "issued", "serial": golden.SERIAL},
    "IssuanceFailed": {"result": "beyond_ceiling"},
    "CertificateRecorded": {"serial": golden.SERIAL},
    "RevocationOrdered": {"serial": golden.SERIAL},
    "OrderAnswered": {},
    "CertificateRevoked": {"serial": golden.SERIAL},
    "KeyCompromised": {"serial": golden.SERIAL},
    "CrlPublished": {},
    "CaChain": {},
    "ChallengeClaimed": {},
    "DeviceCounted": {},
    "GatewaySeen": {},
    "ChallengeCreated": {},
    "ChallengeCancelled": {},
    "RedriveOrdered": {},
    "ReloadOrdered": {},
    "ApiTokenCreated": {},
    "ApiTokenRevoked": {},
    "ReplicaSeen": {},
    "CheckpointSigned": {},
    "DeadLetter": {},
}
NOTHING = dict.fromkeys(("transaction_id", "device", "result", "serial"))


def made(kind: str) -> dict[str, Any]:
    subject, _ = golden.EVENTS[kind, 1]
    return row(STREAM, Found.of(stored(3, subject, golden.write(kind, 1))))


@pytest.mark.parametrize("kind", sorted(golden.EVENTS))
def test_a_row_keeps_the_event_as_stored_and_tells_what_it_says(kind: tuple[str, int]) -> None:
    subject, _ = golden.EVENTS[kind]
    message = golden.write(*kind)
    found = row(STREAM, Found.of(stored(3, subject, message)))
    enrolling = subject.startswith("enroll.")

    assert found == NOTHING | TOLD[kind[0]] | {
        "stream": STREAM,
        "sequence": 3,
        "subject": subject,
        "type": kind[0],
        "recorded_at": (NOW + 3) * NANOSECONDS,
        "profile": "corp" if enrolling else None,
        "enrollment": golden.ENROLLMENT.prefix() if enrolling else None,
        "headers": json.dumps(dict(sorted(message.headers.items()))),
        "payload": message.payload,
    }


def test_a_refusal_without_facts_names_no_device() -> None:
    subject, event = golden.EVENTS["EnrollmentRejected", 1]
    values = {n: getattr(event, n) for n in event.__struct_fields__} | {"facts": None}

    assert row(STREAM, Found.of(stored(1, subject, type(event)(**values))))["device"] is None


def test_a_denial_is_told_as_one() -> None:
    denied = event("HoldDecided", approved=False)
    subject, _ = golden.EVENTS["HoldDecided", 1]

    assert row(STREAM, Found.of(stored(1, subject, denied)))["result"] == "denied"


def test_foreign_headers_are_not_kept() -> None:
    message = Message(b"{}", {TYPE: "CaChain", "Nats-Trace": "x", "Authorization": "secret"})

    assert json.loads(row(STREAM, Found.of(stored(1, "cert.a.b.issued", message)))["headers"]) == {
        TYPE: "CaChain"
    }


@pytest.mark.parametrize(
    "message",
    [
        Message(b"", {}),
        Message(b"\xff\x00", {TYPE: "CertificateIssued"}),
        Message(b"{}", {TYPE: "Unheard"}),
        Message(b'{"x":' + b"[" * 50_000, {TYPE: "CaChain"}),
    ],
    ids=["empty", "no JSON", "unknown type", "nested without end"],
)
def test_what_is_no_event_of_ours_is_kept_too(message: Message) -> None:
    found = row(STREAM, Found.of(stored(1, "enroll.0.corp.t.c.0.request", message)))

    assert found["payload"] == message.payload
    assert found["type"] == message.headers.get(TYPE, "unreadable")
    assert {k: found[k] for k in NOTHING} == NOTHING


@given(
    st.binary(max_size=100),
    st.dictionaries(st.just(TYPE) | st.text(max_size=20), st.text(max_size=100)),
    st.sampled_from(["enroll.0.corp.t.c.0.request", "cert.a.b.issued", "dead.x.y.1", "x"]),
)
def test_any_message_becomes_a_row_with_a_value_for_every_column(
    payload: bytes, headers: dict[str, str], subject: str
) -> None:
    found = row(STREAM, Found.of(stored(1, subject, Message(payload, headers))))

    assert set(found) == {column.name for column in events.columns}
    assert all(found[c.name] is not None for c in events.columns if not c.nullable)
    assert len(found["type"]) <= 64


HUGE: Final = [2**31, -(2**31), 2**63, 10**30]


@pytest.mark.parametrize("huge", HUGE)
def test_numbers_that_no_column_holds_make_an_event_unreadable_and_stop_nothing(
    engine: Engine, huge: int
) -> None:
    """As a gateway that was taken over may plant them: what comes after is recorded."""
    subject, message = golden.EVENTS["EnrollmentRequested", 1]
    told = json.loads(golden.write("EnrollmentRequested", 1).payload) | {"message_type": huge}
    planted = Message(json.dumps(told).encode(), golden.write("EnrollmentRequested", 1).headers)
    other = subject.replace(".0.request", ".1.request")
    messages = [stored(1, subject, planted), stored(2, other, message)]

    assert store(engine, STREAM, messages) == 2
    with engine.connect() as connection:
        kept = connection.execute(select(events.c.sequence)).scalars().all()
        told_of = connection.execute(select(enrollments.c.enrollment)).scalars().all()
    assert list(kept) == [1, 2]
    assert list(told_of) == [other.removesuffix(".request")]


@pytest.mark.parametrize("kind", ["RedriveOrdered", "DeadLetter", "ChallengeCreated",
                                  "CertificateRevoked", "ReloadOrdered", "OrderAnswered",
                                  "RevocationOrdered", "ApiTokenCreated"])  # fmt: skip
def test_an_event_that_stands_where_its_kind_does_not_belong_changes_nothing(
    engine: Engine, kind: str
) -> None:
    place = "enroll.0.corp.a.b.007.request"
    store(engine, STREAM, [stored(1, place, golden.write(kind, 1))])

    with engine.connect() as connection:
        for table in metadata.sorted_tables:
            found = connection.execute(select(table)).all()
            assert bool(found) is (table.name in ("events", "positions"))
