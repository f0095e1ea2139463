import json
import random
import string
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from services.audit.query.enrollments import list_enrollments
from services.audit.query.filters import EnrollmentFilter
from services.audit.record.digest import event_digest, own_headers
from services.audit.record.event_row import DecodedMessage, row, storable
from services.audit.record.write import store
from services.audit.store.tables import enrollments, events, metadata
from shared.log.envelope import TYPE, Message, Stored
from shared.log.stages import Stage
from tests.support import golden
from tests.support.world import NANOSECONDS, NOW
from tests.unit.services.audit.stories import STREAM, event, stored

TOLD = {
    "EnrollmentRequested": {"transaction_id": "0123456789ABCDEF"},
    "EnrollmentApproved": {"device": "CN=Prüfgerät 7, O=Lab", "result": "approved"},
    "EnrollmentRejected": {"device": "CN=Prüfgerät 7, O=Lab", "result": "challenge_wrong"},
    "EnrollmentHeld": {"device": "CN=Prüfgerät 7, O=Lab", "result": "held"},
    "HoldDecided": {"result": "approved"},
    "CertificateOrdered": {},
    "CertificateIssued": {"result": "issued", "serial": golden.SERIAL},
    "IssuanceFailed": {"result": "beyond_ceiling"},
    "CertificateRecorded": {"serial": golden.SERIAL},
    "RevocationOrdered": {"serial": golden.SERIAL},
    "CertificateConfirmed": {"result": "confirmed", "serial": golden.SERIAL},
    "ConfirmationFailed": {"result": "not_confirmed", "serial": golden.SERIAL},
    "WithdrawalOrdered": {"serial": golden.SERIAL},
    "RevocationRequested": {"serial": "0A:BC"},
    "RevocationReported": {},
    "NoticeBegun": {},
    "LeaseTaken": {},
    "CommandAnswered": {},
    "CertificateStatusChanged": {"serial": golden.SERIAL},
    "KeyCompromised": {"serial": golden.SERIAL},
    "OrderChanged": {},
    "OrphanReported": {},
    "OrphanSettled": {},
    "OrphanSuspected": {},
    "CrlPublished": {},
    "OcspResponseSigned": {"serial": golden.SERIAL},
    "ServiceCertificateIssued": {"serial": golden.SERIAL},
    "CaChain": {},
    "ChallengeClaimed": {},
    "DeviceCounted": {},
    "GatewayHeartbeat": {},
    "ChallengeCreated": {},
    "ChallengeCancelled": {},
    "RetryOrdered": {},
    "ReloadOrdered": {},
    "ResumeOrdered": {},
    "ApiTokenCreated": {},
    "ApiTokenRevoked": {},
    "Heartbeat": {},
    "StreamMeasured": {},
    "CheckpointSigned": {},
    "DeadLetter": {},
}
OF_ORDERS = {"OrderChanged", "OrphanSettled", "OrphanSuspected"}
ONLY_ON_THE_LOG = {
    "EnrollmentRequested", "EnrollmentApproved", "EnrollmentRejected", "EnrollmentHeld",
    "HoldDecided", "CertificateOrdered",
}  # fmt: skip
NOTHING = dict.fromkeys(("transaction_id", "device", "result", "serial"))


def made(kind: str) -> dict[str, Any]:
    subject, _ = golden.EVENTS[kind, 1]
    return row(STREAM, DecodedMessage.of(stored(3, subject, golden.write(kind, 1))))


@pytest.mark.parametrize("kind", sorted(golden.EVENTS))
def test_a_row_keeps_the_event_as_stored_and_tells_what_it_says(kind: tuple[str, int]) -> None:
    subject, _ = golden.EVENTS[kind]
    message = golden.write(*kind)
    place = stored(3, subject, message)
    found = row(STREAM, DecodedMessage.of(place))
    enrolling = subject.startswith("enroll.")
    kept = kind[0] not in ONLY_ON_THE_LOG

    assert found == NOTHING | TOLD[kind[0]] | {
        "stream": STREAM,
        "sequence": 3,
        "subject": subject,
        "type": kind[0],
        "recorded_at": (NOW + 3) * NANOSECONDS,
        "profile": "corp" if enrolling else None,
        "enrollment": golden.ENROLLMENT.prefix() if enrolling or kind[0] in OF_ORDERS else None,
        "digest": event_digest(place, own_headers(place)),
        "headers": own_headers(place) if kept else None,
        "payload": message.payload if kept else None,
    }


@pytest.mark.parametrize(
    ("subject", "kept"),
    [
        ("key.ab.issued.local.01", False),
        ("key.ab.compromised.0", True),
        ("key.issued.compromised.0", True),
        ("cert.local.01.issued", True),
        ("ops.revoke.local.01.issued.0", True),
        ("dead.ENROLL_0.validator.1", True),
        ("enroll.0.corp.t.c.0.unheard", False),
    ],
)
def test_what_repeats_and_what_anybody_can_ask_for_is_kept_as_a_digest(
    subject: str,
    kept: bool,  # noqa: FBT001
) -> None:
    place = stored(1, subject, Message(b"{}", {TYPE: "x"}))
    found = row(STREAM, DecodedMessage.of(place))

    assert found["digest"] == event_digest(place, own_headers(place))
    assert (found["payload"] is not None, found["headers"] is not None) == (kept, kept)


@given(st.data())
def test_whatever_of_an_event_changes_changes_its_digest(data: st.DataObject) -> None:
    first = stored(1, "cert.a.b.issued", Message(b"{}", {TYPE: "x"}))
    changed = data.draw(
        st.builds(
            Stored,
            st.sampled_from([first.subject, "cert.a.c.issued"]),
            st.sampled_from([first.payload, b"{ }"]),
            st.sampled_from([first.headers, {TYPE: "y"}, {}]),
            st.sampled_from([first.sequence, 2]),
            st.sampled_from([first.time, first.time + 1]),
        )
    )
    same = event_digest(changed, own_headers(changed)) == event_digest(first, own_headers(first))

    assert same == (changed == first)


def test_a_refusal_without_facts_names_no_device() -> None:
    subject, event = golden.EVENTS["EnrollmentRejected", 1]
    values = {n: getattr(event, n) for n in event.__struct_fields__} | {"facts": None}

    assert (
        row(STREAM, DecodedMessage.of(stored(1, subject, type(event)(**values))))["device"] is None
    )


def test_a_denial_is_told_as_one() -> None:
    denied = event("HoldDecided", approved=False)
    subject, _ = golden.EVENTS["HoldDecided", 1]

    assert row(STREAM, DecodedMessage.of(stored(1, subject, denied)))["result"] == "denied"


def test_foreign_headers_are_not_kept() -> None:
    message = Message(b"{}", {TYPE: "CaChain", "Nats-Trace": "x", "Authorization": "secret"})

    assert json.loads(
        row(STREAM, DecodedMessage.of(stored(1, "cert.a.b.issued", message)))["headers"]
    ) == {TYPE: "CaChain"}


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
    found = row(STREAM, DecodedMessage.of(stored(1, "enroll.0.corp.t.c.0.outcome", message)))

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
    found = row(STREAM, DecodedMessage.of(stored(1, subject, Message(payload, headers))))

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


def numbers(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all numbers in a JSON value."""
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
    elif type(value) is int:
        yield at
    for key, each in inner:
        yield from numbers(each, (*at, key))


@pytest.mark.parametrize("kind", [kind for kind, _ in golden.EVENTS])
def test_any_number_of_an_event_that_no_column_holds_makes_it_unreadable(kind: str) -> None:
    message = golden.write(kind, 1)
    told = json.loads(message.payload)
    assert DecodedMessage.of(stored(1, "x", message)).event is not None
    for path in numbers(told):
        changed = json.loads(message.payload)
        place = changed
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = 2**63
        wide = Message(json.dumps(changed).encode(), message.headers)
        assert DecodedMessage.of(stored(1, "x", wide)).event is None, path


@pytest.mark.parametrize(("kind", "field"), [("DeadLetter", "stream"), ("DeadLetter", "role")])
def test_a_name_that_its_column_does_not_hold_makes_an_event_unreadable(
    kind: str, field: str
) -> None:
    message = golden.write(kind, 1)
    told = json.loads(message.payload) | {field: "n" * 100}
    long = Message(json.dumps(told).encode(), message.headers)

    assert DecodedMessage.of(stored(1, "x", long)).event is None


@pytest.mark.parametrize("kind", ["RetryOrdered", "DeadLetter", "ChallengeCreated",
                                  "CertificateStatusChanged", "ReloadOrdered", "CommandAnswered",
                                  "RevocationOrdered", "ResumeOrdered",
                                  "ApiTokenCreated"])  # fmt: skip
def test_an_event_that_stands_where_its_kind_does_not_belong_changes_nothing(
    engine: Engine, kind: str
) -> None:
    place = "enroll.0.corp.a.b.007.request"
    store(engine, STREAM, [stored(1, place, golden.write(kind, 1))])

    with engine.connect() as connection:
        for table in metadata.sorted_tables:
            found = connection.execute(select(table)).all()
            assert bool(found) is (table.name in ("events", "positions"))


# Texts longer than an index takes


def long_text(seed: str) -> str:
    """Nothing that compresses: PostgreSQL's indexes take 2704 bytes of a row, compressed."""
    rng = random.Random(seed)
    return "".join(rng.choices(string.ascii_letters + "éß😀", k=8000))


def planted(value: Any, text: Callable[[str], str], seed: str) -> Any:
    """The same with another text for each of its texts."""
    match value:
        case msgspec.Struct():
            names = value.__struct_fields__
            return type(value)(**{n: planted(getattr(value, n), text, seed + n) for n in names})
        case tuple():
            return tuple(planted(each, text, seed) for each in value)
        case str() if not isinstance(value, Enum):
            return text(seed)
        case _:
            return value


NULS: Final[Callable[[str], str]] = lambda seed: "\0" * 16  # noqa: ARG005, E731 - a text for any seed


@pytest.mark.parametrize("text", [long_text, NULS], ids=["long", "NUL"])
@pytest.mark.parametrize("kind", sorted(kind for kind, _ in golden.EVENTS))
def test_no_text_stops_what_comes_after_it(
    engine: Engine, kind: str, text: Callable[[str], str]
) -> None:
    """A device chooses its names, and whoever is on the bus much more."""
    subject, found = golden.EVENTS[kind, 1]
    stream = subject.partition(".")[0]
    far = subject.rpartition(".")[0] + f".{long_text('subject')}.request"
    messages = [
        stored(1, subject, planted(found, text, kind)),
        stored(2, far, found),
        stored(3, subject.replace("0", "9"), found),
    ]

    assert store(engine, stream, messages) == 3


def test_a_text_that_is_cut_is_still_told_from_others() -> None:
    one, other = ("x" * 499 + end for end in ("yy", "yz"))

    assert storable("x" * 500) == "x" * 500
    assert storable(one) != storable(other)
    assert len(storable(one)) == len(storable("\0" * 8000)) == 500
    assert storable(one).startswith("x" * 400)


def test_a_device_with_long_names_is_found_by_how_they_begin(engine: Engine) -> None:
    rejected = event("EnrollmentRejected")
    facts = msgspec.structs.replace(rejected.facts, subject="CN=" + "a" * 3000)
    where = golden.ENROLLMENT.subject(Stage.VERDICT)
    store(engine, STREAM, [stored(1, where, msgspec.structs.replace(rejected, facts=facts))])
    with engine.connect() as connection:
        (row,) = list_enrollments(connection, EnrollmentFilter(search="cn=" + "a" * 252)).rows

    assert row["enrollment"] == golden.ENROLLMENT.prefix()
