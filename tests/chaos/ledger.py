"""The log as JetStream holds it, read with plain nats-py, and what must be true of it."""

import asyncio
import hashlib
import json
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import nats
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from benchmarks.figures import Answer
from shared.bus.topology import consumers
from shared.config.keys import read_nkey, read_trusted
from shared.config.load import load
from shared.log.enrollment import TERMINAL, State, evolve
from shared.log.envelope import Stored, Trusted, UnreadableEventError, authenticate, decode
from shared.log.events.base import EventPayload
from shared.log.events.certificates import CertificateRecorded
from shared.log.events.enrollment import CertificateIssued, EnrollmentRequested
from shared.log.stages import Stage
from shared.log.streams import CERTS, DEAD_LETTERS, OPS, enroll_stream
from shared.log.subjects import EnrollmentId, certificate_issued, key_issued, parse_subject
from shared.scep.certificate import read_certificate

ENROLL = enroll_stream("0")
RECORDED = (ENROLL, CERTS, OPS, DEAD_LETTERS)
_QUIET_SECONDS = 90.0
_OCSP = (CERTS, "issuer")
_BATCH = 500
_TIME = -2  # among the tokens of an acknowledgement subject


@asynccontextmanager
async def log_account(data: Path) -> AsyncIterator[JetStreamContext]:
    """JetStream as the provisioner sees it: the log's own account."""
    url = load(data / "scepstream.toml", {}).bus.url[0]
    seed = read_nkey(data / "keys" / "provisioner.nkey")
    client = await nats.connect(url, nkeys_seed_str=seed, name="test")
    try:
        yield client.jetstream(timeout=10)
    finally:
        await client.close()


async def wait_quiet(context: JetStreamContext) -> None:
    """Until every consumer is done, in the order in which one makes work for the next."""
    order = {"validator": 0, "issuer": 1, "audit": 2}
    async with asyncio.timeout(_QUIET_SECONDS):
        # Issuers take the records of certificates only where they sign OCSP responses.
        found = [each for each in consumers(("0",)) if (each.stream, each.durable) != _OCSP]
        for spec in sorted(found, key=lambda each: order[each.durable]):
            while True:
                info = await context.consumer_info(spec.stream, spec.durable)
                if not info.num_pending and not info.num_ack_pending:
                    break
                await asyncio.sleep(0.1)


async def read_stream(context: JetStreamContext, stream: str) -> list[Stored]:
    """All messages of a stream, in order, none missing."""
    last = (await context.stream_info(stream)).state.last_seq
    config = ConsumerConfig(ack_policy=AckPolicy.NONE, deliver_policy=DeliverPolicy.ALL)
    pull = await context.pull_subscribe(">", stream=stream, config=config)
    found: list[Stored] = []
    while len(found) < last:
        for message in await pull.fetch(min(_BATCH, last - len(found)), timeout=10):
            number = message.metadata.sequence.stream
            nanoseconds = int(message.reply.split(".")[_TIME])  # a datetime would round it
            headers = dict(message.headers or {})
            found.append(Stored(message.subject, message.data, headers, number, nanoseconds))
    await pull.unsubscribe()
    assert [each.sequence for each in found] == list(range(1, last + 1))
    return found


@dataclass
class Attempt:
    """One attempt of an enrollment: its events as stored and as read, in order."""

    enrollment: EnrollmentId
    stored: list[Stored] = field(default_factory=list)
    events: list[EventPayload] = field(default_factory=list)

    @property
    def transaction_id(self) -> str:
        first = self.events[0]
        return first.transaction_id if isinstance(first, EnrollmentRequested) else ""

    @property
    def certificates(self) -> list[CertificateIssued]:
        return [event for event in self.events if isinstance(event, CertificateIssued)]

    def problem(self, trusted: dict[Stage, Trusted]) -> str:
        """Why this is no life of an enrollment: request, signed steps, exactly one end."""
        if not self.transaction_id:
            return f"{self.enrollment.prefix()}: does not begin with a request"
        state = State.REQUESTED
        try:
            for stored, event in zip(self.stored[1:], self.events[1:], strict=True):
                stage = parse_subject(stored.subject)[1]
                authenticate(stored, trusted[stage], stage, self.stored[0].sha256())
                state = evolve(state, event)
        except (ValueError, UnreadableEventError) as error:
            return f"{self.enrollment.prefix()}: {error}"
        return "" if state in TERMINAL else f"{self.enrollment.prefix()}: still {state}"


@dataclass(frozen=True)
class Ledger:
    """The streams' messages, and ENROLL_0's by attempt."""

    streams: dict[str, list[Stored]]
    attempts: list[Attempt]

    @classmethod
    def of(cls, streams: dict[str, list[Stored]]) -> "Ledger":
        attempts: dict[EnrollmentId, Attempt] = {}
        for stored in streams[ENROLL]:
            enrollment, _ = parse_subject(stored.subject)
            attempt = attempts.setdefault(enrollment, Attempt(enrollment))
            attempt.stored.append(stored)
            attempt.events.append(decode(stored.payload, stored.headers))
        return cls(streams, list(attempts.values()))

    def repeated_subjects(self) -> list[str]:
        """Subjects that hold more than one message: none may."""
        counts = Counter(each.subject for stream in self.streams.values() for each in stream)
        return [subject for subject, count in counts.items() if count > 1]

    def broken_attempts(self, data: Path) -> list[str]:
        """Attempts without exactly one authentic end."""
        keys = data / "keys"
        trusted: dict[Stage, Trusted] = {
            Stage.VERDICT: read_trusted([keys / "validator-signing.pub"]),
            Stage.OUTCOME: read_trusted([keys / "issuer-signing.pub"]),
            Stage.CONFIRMATION: read_trusted([keys / "validator-signing.pub"]),
        }
        return [problem for each in self.attempts if (problem := each.problem(trusted))]

    def second_certificates(self) -> list[str]:
        """Enrollments (transaction and CSR) that got more than one certificate."""
        issued: dict[str, set[bytes]] = defaultdict(set)
        for attempt in self.attempts:
            for event in attempt.certificates:
                issued[attempt.enrollment.at(0).prefix()].add(event.certificate)
        return [name for name, found in issued.items() if len(found) > 1]

    def wrong_answers(self, answers: Iterable[Answer]) -> list[str]:
        """Answers that are not what the log holds, and certificates nobody was given."""
        issued = {a.transaction_id: c.certificate for a in self.attempts for c in a.certificates}
        given = {a.transaction_id: a.certificate for a in answers if a.certificate is not None}
        wrong = [key for key, der in given.items() if issued.get(key) != der]
        return wrong + sorted(issued.keys() - given.keys())

    def unlike_records(self) -> list[str]:
        """Certificates without their CERTS records, records without their certificate.

        Each stands twice: under its serial and under its key.
        """
        expected = {
            place: attempt.enrollment.prefix()
            for attempt in self.attempts
            for event in attempt.certificates
            for place in (
                certificate_issued(event.issuer, event.serial),
                key_issued(_key(event.certificate), event.issuer, event.serial),
            )
        }
        found = {each.subject: _recorded(each) for each in self.streams[CERTS]}
        return sorted({name for name, _ in expected.items() ^ found.items()})


def _key(certificate: bytes) -> str:
    return hashlib.sha256(read_certificate(certificate).spki).hexdigest()


def _recorded(stored: Stored) -> str:
    event = decode(stored.payload, stored.headers)
    assert isinstance(event, CertificateRecorded)
    return event.enrollment


async def read_ledger(data: Path) -> Ledger:
    """The whole log, once nobody has work left."""
    async with log_account(data) as context:
        await wait_quiet(context)
        return Ledger.of({name: await read_stream(context, name) for name in RECORDED})


# The audit service's database

Row = tuple[str, int, str, bytes, str | None, bytes | None]


def rows_of(stream: str, messages: Sequence[Stored]) -> list[Row]:
    """What the database must hold of a stream."""
    return [_row(stream, message) for message in messages]


def _row(stream: str, m: Stored) -> Row:
    headers = json.dumps(_ours(m.headers), separators=(",", ":"), ensure_ascii=False)
    parts = (m.subject.encode(), headers.encode(), m.payload)
    framed = (len(part).to_bytes(8, "big") + part for part in parts)
    place = m.sequence.to_bytes(8, "big") + m.time.to_bytes(8, "big")
    digest = hashlib.sha256(place + b"".join(framed)).digest()
    whole = m.subject.endswith(".outcome") or not m.subject.startswith(("enroll.", "key."))
    if whole or ".compromised." in m.subject:
        return stream, m.sequence, m.subject, digest, headers, m.payload
    return stream, m.sequence, m.subject, digest, None, None


def _ours(headers: object) -> dict[str, str]:
    assert isinstance(headers, dict)
    return {name: headers[name] for name in sorted(headers) if name.startswith("Scepstream-")}


def database_rows(path: Path) -> list[Row]:
    """Every row, by stream and sequence."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(
            "select stream, sequence, subject, digest, headers, payload from events"
            " order by stream, sequence"
        ).fetchall()


def unlike_rows(ledger: Ledger, path: Path, seconds: float = 60.0) -> list[str]:
    """Where database and log differ, once the database has had time to catch up."""
    expected = [
        row for name in sorted(ledger.streams) for row in rows_of(name, ledger.streams[name])
    ]
    deadline = time.monotonic() + seconds
    while (found := database_rows(path)) != expected and time.monotonic() < deadline:
        time.sleep(0.5)
    twice = [row for row, following in pairwise(found) if row[:2] == following[:2]]
    unlike = set(found) ^ set(expected)
    return sorted({f"{row[0]}#{row[1]} {row[2]}" for row in (*unlike, *twice)})
