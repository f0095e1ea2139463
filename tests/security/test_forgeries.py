"""Whoever holds a role's key says what is not so: replies, hints, marks, acknowledgements."""

import contextlib
import itertools
import json
import time
from collections.abc import Iterator
from typing import Final

import pytest

from shared.log.roles import ACCOUNTS, Role
from tests.security.rights import SHARD, filled, readable, writable
from tests.security.siege import Siege
from tests.security.wire import ClosedError, Heard, RawNats, head_of

SECONDS = 1.0
# Answers led to an inbox are heard there and asked for again. Each victim is misled once, and so
# many of the inboxes heard in a round: else the questions multiply, their answers of 20 messages
# each queue up in nats-server for minutes (436 MiB seen), and the test measures the machine.
_INBOXES: Final = 5
ROLES = list(ACCOUNTS)
UNSIGNED = head_of(b"Scepstream-Version: 1", b"Scepstream-Key: none", b"Scepstream-Signature: eA==")
FORGED = (
    (b'{"stream":"ENROLL_0","seq":1}', b""),
    (b'{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 1"}}', b""),
    (b"", b"NATS/1.0 404 Message Not Found\r\n\r\n"),
    (b"", b"NATS/1.0 503\r\n\r\n"),
    (b"{}", head_of(b"Nats-Sequence: 1", b"Nats-Subject: x", b"Nats-Time-Stamp: x")),
)


# Replies


def test_replies_to_others_cannot_be_forged(siege: Siege) -> None:
    """Whatever can be overheard or guessed of an inbox: nothing that is published there arrives."""
    with siege.attacked():
        for role in ROLES:
            _forge_replies(siege, role)


def _forge_replies(siege: Siege, role: Role) -> None:
    with siege.connect(role) as nats:
        for subject in (b"_INBOX.>", b">", b"_INBOX.*.*", b"_R_.>", b"enroll.>", b"$JS.>"):
            nats.subscribe(subject)
        nats.flush()
        known = {b"_INBOX." + public.encode() for public in _public_keys(siege)}
        deadline = time.monotonic() + SECONDS
        tried = 0
        while time.monotonic() < deadline:
            heard = nats.listen(0.05)
            known |= {_prefix(each.subject) for each in heard if each.subject[:1] == b"_"}
            known |= {_prefix(each.reply) for each in heard if each.reply[:1] == b"_"}
            nats.errors.clear()
            tried += _forge(nats, known)
            nats.flush()
            assert len(nats.errors) >= len(known) * len(FORGED)
    assert tried > 100


def _prefix(subject: bytes) -> bytes:
    return subject.rpartition(b".")[0]


def _public_keys(siege: Siege) -> list[str]:
    return [siege.public_key(role) for role in ACCOUNTS]


def _forge(nats: RawNats, prefixes: set[bytes]) -> int:
    count = 0
    for prefix in list(prefixes)[:40]:
        for number, (payload, head) in enumerate(FORGED):
            nats.publish(b"%b.%d" % (prefix, number), payload, head=head)
            count += 1
    return count


def test_answers_led_into_the_waits_of_others_stop_nobody(siege: Siege) -> None:
    """The server does not look where it answers to: to other inboxes, hints, streams."""
    with siege.attacked():
        for role in ROLES:
            _mislead_answers(siege, role)
    siege.assert_proof_holds()


def _mislead_answers(siege: Siege, role: Role) -> None:
    asked = [pattern.replace("*", "x").replace(">", "x").encode() for pattern in readable(role)]
    asked += [filled(pattern) for pattern in writable(role)]
    with siege.connect(role) as nats:
        with contextlib.suppress(ClosedError):
            nats.subscribe(b"_INBOX." + siege.public_key(role).encode() + b".>")
        deadline, misled = time.monotonic() + SECONDS, set[bytes]()
        while time.monotonic() < deadline:
            for reply in set(_victims(nats.listen(0.1))) - misled:
                misled.add(reply)
                for subject in asked:
                    nats.publish(subject, b'{"seq":1,"batch":20,"next_by_subj":">"}', reply)
            nats.flush()


def _victims(heard: list[Heard]) -> Iterator[bytes]:
    """Where an answer would do harm."""
    yield from (b"gw.gateway-0", b"gw.gateway-1", b"command.ra", b"chain.local")
    yield from (b"enroll.0.demo.x.y.0.outcome", b"cert.local.00.status.0", b"_INBOX.x.1")
    yield b"$JS.ACK.ENROLL_0.validator.1.1.1.1.1"
    own = {each.subject for each in heard if each.subject.startswith(b"_INBOX.")}
    yield from sorted(own)[:_INBOXES]


# Hints


@pytest.mark.parametrize("role", [Role.VALIDATOR, Role.ISSUER])
def test_false_hints_about_true_requests_are_believed_by_nobody(siege: Siege, role: Role) -> None:
    """Heard as soon as a request is on the log: that it was refused, failed, issued."""
    newest = f"$JS.API.DIRECT.GET.ENROLL_{SHARD}.enroll.{SHARD}.*.*.*.*.request".encode()
    with siege.attacked(), siege.connect(role) as nats:
        deadline, misled = time.monotonic() + SECONDS, 0
        while time.monotonic() < deadline or not misled:
            found = nats.request(newest)
            if found.message is None or b"Nats-Subject: " not in found.message.head:
                continue
            subject = found.message.head.split(b"Nats-Subject: ")[1].split(b"\r\n")[0]
            _mislead(nats, subject.removesuffix(b".request"))
            misled += 1


def _mislead(nats: RawNats, enrollment: bytes) -> None:
    said = json.dumps(
        {"request_sha256": "00" * 32, "reason": "challenge_wrong", "fail_info": 2, "detail": "no"}
    ).encode()
    for gateway in (b"gw.gateway-0", b"gw.gateway-1"):
        for stage, kind in ((b"verdict", b"EnrollmentRejected"), (b"outcome", b"IssuanceFailed")):
            about = b"Scepstream-Subject: " + enrollment + b"." + stage
            nats.publish(gateway, said, head=head_of(b"Scepstream-Type: " + kind, about))


# Acknowledgements and the API


def test_what_others_work_on_cannot_be_settled(siege: Siege) -> None:
    """Done, not done, never, still at it: by who is not that consumer."""
    with siege.attacked():
        for role in ROLES:
            _settle(siege, role)


def _settle(siege: Siege, role: Role) -> None:
    others = {
        (stream, durable): Role(durable)
        for stream, durable in (
            ("ENROLL_0", "validator"),
            ("ENROLL_0", "issuer"),
            ("ENROLL_0", "audit"),
            ("CERTS", "audit"),
            ("OPS", "issuer"),
        )
        if durable != role
    }
    with siege.connect(role) as nats:
        for word in (b"+TERM", b"+ACK", b"-NAK", b"+WPI", b"+NXT 1000"):
            for stream, durable in others:
                nats.errors.clear()
                for number in range(1, 200):
                    token = b"%d.%d.%d.%d" % (number, number, time.time_ns(), 0)
                    subject = f"$JS.ACK.{stream}.{durable}.1.".encode() + token
                    nats.publish(subject, word)
                nats.flush()
                assert len(nats.errors) == 199


CALLS = [
    f"{call}.{stream}{rest}"
    for stream in ("ENROLL_0", "CERTS", "OPS", "KV_CA_CHAINS", "REPLAYS")
    for call, rest in (
        ("STREAM.DELETE", ""),
        ("STREAM.PURGE", ""),
        ("STREAM.UPDATE", ""),
        ("STREAM.INFO", ""),
        ("STREAM.MSG.DELETE", ""),
        ("STREAM.SNAPSHOT", ""),
        ("STREAM.RESTORE", ""),
        ("STREAM.PEER.REMOVE", ""),
        ("STREAM.LEADER.STEPDOWN", ""),
        ("CONSUMER.NAMES", ""),
        ("CONSUMER.LIST", ""),
        ("CONSUMER.CREATE", ".evil"),
        ("CONSUMER.CREATE", ".evil.>"),
        ("CONSUMER.DURABLE.CREATE", ".evil"),
        ("CONSUMER.DELETE", ".validator"),
        ("CONSUMER.DELETE", ".audit"),
        ("CONSUMER.PAUSE", ".validator"),
        ("CONSUMER.UNPIN", ".validator"),
        ("CONSUMER.RESET", ".validator"),
        ("CONSUMER.INFO", ".validator"),
        ("CONSUMER.LEADER.STEPDOWN", ".validator"),
    )
] + ["STREAM.CREATE.EVIL", "STREAM.NAMES", "STREAM.LIST", "INFO", "META.LEADER.STEPDOWN"]


def test_nobody_manages_streams_and_consumers(siege: Siege) -> None:
    body = b'{"name":"ENROLL_0","durable_name":"evil","seq":1,"pause_until":"2099-01-01T00:00:00Z"}'
    with siege.attacked():
        for role, call in itertools.product(ROLES, CALLS):
            with siege.connect(role) as nats:
                answer = nats.request(f"$JS.API.{call}".encode(), body)
            assert answer.refused, (role, call, answer)


def test_a_stranger_is_not_let_in(siege: Siege) -> None:
    with siege.attacked():
        for changes in ({}, {"user": "gateway", "pass": "x"}, {"auth_token": "x"}, {"nkey": "U"}):
            with pytest.raises(ClosedError):
                RawNats.connect(siege.nats_port, **changes)


# Floods


def test_a_flood_of_keys_that_look_alike_stops_nobody(siege: Siege) -> None:
    """Replicas that do not exist, devices that nobody has, chains of no issuer."""
    with siege.attacked():
        for role in (Role.GATEWAY, Role.VALIDATOR, Role.ISSUER):
            patterns = [pattern for pattern in writable(role) if pattern.startswith("$KV.")]
            with siege.connect(role) as nats:
                for number in range(3000):
                    nats.publish(filled(patterns[number % len(patterns)]), b"{}")
                nats.flush(20)


def test_a_flood_of_requests_that_are_none_stops_nobody(siege: Siege) -> None:
    (pattern,) = [p for p in writable(Role.GATEWAY) if p.endswith(".request")]
    head = head_of(b"Scepstream-Type: EnrollmentRequested", b"Scepstream-Version: 1")
    with siege.attacked(), siege.connect(Role.GATEWAY) as nats:
        for _ in range(600):
            nats.publish(filled(pattern), b"{}", head=head)
        nats.flush(20)
    siege.assert_proof_holds()
