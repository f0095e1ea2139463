"""Messages that no service would write: their subjects, header blocks and payloads."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from shared.log.catalog import EVENT_TYPES
from shared.log.envelope import Message, encode, sign
from shared.log.events.base import EventPayload
from shared.log.roles import Role
from tests.security.rights import filled, writable
from tests.security.wire import frame, head_of
from tests.support import golden
from tests.support.world import STRANGER

TOKENS: Final = (
    b"\xff\xfe\xfd",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"\x00",
    b"nul\x00nul",
    b"\x1b[31mred\x1b]52;c;eA==\x07",
    "\u202e\u2066".encode(),
    "\u0663".encode(),
    b"9" * 400,
    b"x" * 3000,
    b"*",
    b">",
    b"a*b",
    b"-",
    b"'\"<b>[/]",
    b"%s{0}\\",
    b"\x7f\x85",
    b"\x0b",
    b"x\x0c\x1c",
)
BROKEN_SUBJECTS: Final = (b"", b".", b"..", b"enroll", b"enroll.0", b"a." * 500 + b"a")

HEADS: Final = (
    head_of(b"Status: 503"),
    head_of(b"Status: 404", b"Description: Message Not Found"),
    head_of(b"Status: 100"),
    head_of(b"Status: 408", b"Nats-Pending-Messages: 9999999"),
    head_of(b"Status: 409", b"Description: Consumer Deleted"),
    b"NATS/1.0 503\r\n\r\n",
    b"NATS/1.0 404 Message Not Found\r\n\r\n",
    b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 1\r\n\r\n",
    b"NATS/1.0 \xff\xfe\r\n\r\n",
    head_of(b"Nats-Sequence: 1", b"Nats-Subject: enroll.0.x.x.x.0.request"),
    head_of(b"Nats-Sequence: one", b"Nats-Time-Stamp: yesterday", b"Nats-Stream: X"),
    head_of(b"Nats-Sequence: -1"),
    head_of(b"Nats-Sequence: " + b"9" * 5000),
    head_of(b"Nats-Time-Stamp: 0000-00-00T00:00:00Z"),
    head_of(b"Nats-Num-Pending: -7", b"Nats-Last-Sequence: 99999999999999999999"),
    head_of(b"Nats-Rollup: all"),
    head_of(b"Nats-Rollup: sub"),
    head_of(b"Nats-TTL: 1s"),
    head_of(b"Nats-TTL: never"),
    head_of(b"Nats-Marker-Reason: MaxAge"),
    head_of(b"KV-Operation: PURGE"),
    head_of(b"Nats-Schedule: @every 1s", b"Nats-Schedule-Target: ops.a.b.c.d.e"),
    head_of(b"Nats-Incr: 1"),
    head_of(b"Nats-Batch-Id: x", b"Nats-Batch-Sequence: 1", b"Nats-Batch-Commit: 1"),
    head_of(b"Nats-Expected-Stream: OTHER"),
    head_of(b"Nats-Expected-Last-Sequence: 0"),
    head_of(b"Nats-Msg-Id: one and the same"),
    head_of(b"\xff\xfe: \xfd", b"Key: \xed\xa0\x80"),
    head_of(b"K\xc3\xa9y: \xc3\xa9", b"Nul: \x00", b"\x00: x"),
    head_of(b"no colon in this line"),
    head_of(b": no name", b"no value:", b"   ", b" folded"),
    head_of(b"Scepstream-Type: EnrollmentRequested\x00"),
    head_of(b"Scepstream-Type: \xff"),
    head_of(b"Scepstream-Type: EnrollmentRequested", b"Scepstream-Type: CaChain"),
    head_of(b"scepstream-type: EnrollmentRequested", b"Scepstream-Version: 1"),
    head_of(b"Scepstream-Version: 1", b"Scepstream-Key: x", b"Scepstream-Signature: x"),
    head_of(b"Scepstream-Subject: \xff\x00", b"Scepstream-Signature: \xff"),
    head_of(b"traceparent: 00-" + b"\xff" * 32 + b"-x-y"),
    head_of(b"traceparent: 00-" + b"0" * 60_000),
    head_of(*(b"h%d: v" % number for number in range(4000))),
    head_of(*(b"same: v" for _ in range(4000))),
    head_of(b"Long: " + b"x" * 200_000),
    head_of(b"Bare\rcarriage: x", b"Bare\nfeed: y"),
    b"NATS/1.0\r\nNever: ended",
    b"NATS/1.0",
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"\x00" * 40,
)

TYPES: Final = (*EVENT_TYPES, "NoSuchType")
LARGEST: Final = 1024 * 1024


def payloads(rng: random.Random) -> tuple[bytes, ...]:
    """What is no event."""
    text = "\x00\ud800\U0001f600".encode("utf-16", "surrogatepass")
    return (
        b"",
        b"\0",
        rng.randbytes(500),
        b"{",
        b'{"pki_message":"',
        b"[" * 30_000,
        b'{"a":' * 10_000,
        b"null",
        b'{"a":1e999999,"b":-0,"c":' + b"9" * 5000 + b"}",
        b'{"subject":"\\ud800","sans":["\\u0000"],"serial":"\\uffff"}',
        text,
        b'{"transaction_id":"' + b"\\u0001" * 20_000 + b'"}',
        (
            b'{"pki_message":"AAAA","content_key":"","sealing_key":"","transaction_id":"x\\u0000",'
            b'"message_type":99,"signer_sha256":"","client_address":"","gateway":"\\u001b",'
            b'"reply_budget_ms":-1}'
        ),
        b'{"role":"validator","name":"x\\u0000y","since":-9223372036854775808,"anchors":{}}',
        b'{"name":"x","since":99999999999999999999999,"ra":{}}',
        (
            b'{"subject":"enroll.0.\\u0000","stream":"ENROLL_0","sequence":9223372036854775807,'
            b'"deliveries":-1,"role":"validator\\u0000"}'
        ),
        b'{"request_sha256":"zz","certificates":[],"serial":"\\u0000"}',
        json.dumps({"request_sha256": "00" * 32, "gateway": "gateway-0"}).encode(),
    )


def strangers(event: EventPayload, subject: str) -> Message:
    """This event for this subject, signed with a key that nobody trusts where events are signed."""
    about = getattr(event, "request_sha256", None)
    return encode(event) if about is None else sign(event, subject, STRANGER)


def headers_of(message: Message) -> bytes:
    """The header block of an event."""
    return head_of(*(f"{name}: {value}".encode() for name, value in message.headers.items()))


@dataclass
class Planter:
    """Makes frames for the subjects that a role may write; what it makes follows from `seed`."""

    role: Role
    seed: int = 0

    def __post_init__(self) -> None:
        self._rng = random.Random(f"{self.seed} {self.role}")

    def odd_subjects(self) -> Iterator[bytes]:
        """Every odd token at the end of each subject, and in the middle of it."""
        for pattern in writable(self.role):
            for token in TOKENS:
                yield self._frame(self._filled(pattern, token))
                yield self._frame(self._filled(pattern, token, self._token(4)))
            for subject in BROKEN_SUBJECTS:
                yield self._frame(subject or b"..")

    def odd_heads(self) -> Iterator[bytes]:
        """Every odd header block on each subject."""
        for pattern in writable(self.role):
            for head in HEADS:
                yield self._frame(self._filled(pattern), head)

    def odd_payloads(self) -> Iterator[bytes]:
        """Every odd payload on each subject, under a type that it may have."""
        for pattern in writable(self.role):
            for payload in payloads(self._rng):
                kind = self._rng.choice(TYPES)
                yield frame(self._filled(pattern), payload, head=_typed(kind))
        yield frame(self._filled(pattern), bytes(LARGEST - 100), head=_typed("CaChain"))

    def strangers_events(self) -> Iterator[bytes]:
        """A whole event of every kind on each subject, signed with a key that nobody trusts."""
        for pattern in writable(self.role):
            for kind in EVENT_TYPES:
                subject = self._filled(pattern)
                message = strangers(golden.newest(kind), subject.decode())
                yield frame(subject, message.payload, head=headers_of(message))

    def any(self, count: int) -> Iterator[bytes]:
        """So many of all kinds, at random."""
        patterns = writable(self.role)
        for _ in range(count):
            tokens = [self._rng.choice(TOKENS) for _ in range(self._rng.randrange(3))]
            subject = self._filled(self._rng.choice(patterns), *tokens, self._token(6))
            head = self._rng.choice((*HEADS, _typed(self._rng.choice(TYPES))))
            yield frame(subject, self._rng.choice(payloads(self._rng)), head=head)

    def _filled(self, pattern: str, *tokens: bytes) -> bytes:
        return filled(pattern, *tokens, rng=self._rng)

    def _token(self, size: int) -> bytes:
        return self._rng.randbytes(size).hex().encode()

    def _frame(self, subject: bytes, head: bytes = b"") -> bytes:
        kind = self._rng.choice(TYPES)
        return frame(subject, self._rng.choice(payloads(self._rng)), head=head or _typed(kind))


def _typed(kind: str) -> bytes:
    return head_of(b"Scepstream-Type: " + kind.encode(), b"Scepstream-Version: 1")
