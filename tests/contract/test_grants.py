"""Who writes and reads certificates, CRLs and orders on a real nats-server."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.bus.core import NobodyListensError
from shared.bus.jetstream import JetStreamBus
from shared.log.envelope import Message
from shared.log.roles import SERVICES, Role
from shared.log.streams import CERTS, CRLS, OPS, enroll_stream
from shared.log.subjects import (
    certificate_issued,
    certificate_status,
    crl_chunk,
    crl_head,
    key_compromised,
    key_issued,
    revocation_answer,
    revocation_command,
)
from tests.support.nats import nats_server

EMPTY = Message(b"{}", {})
ORDER = revocation_command("local", "40", 0)
WRITERS = {
    certificate_issued("local", "40"): Role.ISSUER,
    certificate_status("local", "40", 0): Role.ISSUER,
    key_issued("ab", "local", "40"): Role.ISSUER,
    key_compromised("ab", 0): Role.ISSUER,
    crl_head("local", "ab", 1): Role.ISSUER,
    crl_chunk("local", "ab", 0): Role.ISSUER,
    ORDER: Role.AUDIT,
    revocation_answer(ORDER): Role.ISSUER,
    "enroll.0.demo.tx.csr.0.hold": Role.VALIDATOR,
    "enroll.0.demo.tx.csr.0.decision": Role.AUDIT,
}
INNER = {Role.VALIDATOR, Role.ISSUER, Role.AUDIT}
READERS = {
    (CERTS, certificate_issued("local", "40")): set(SERVICES),
    (CRLS, crl_head("local", "ab", "*")): {Role.GATEWAY, Role.ISSUER},
    (OPS, revocation_answer(ORDER)): INNER,
    (OPS, "ops.ra.demo.o1.all.ordered"): set(SERVICES),
    (OPS, "ops.retry.t.c.1.ordered"): set(SERVICES),
    (CERTS, certificate_status("local", "40", 0)): INNER,
    (CERTS, key_issued("ab", "*", "*")): INNER,
    (enroll_stream("0"), "enroll.0.demo.tx.csr.0.decision"): INNER,
    (enroll_stream("0"), "enroll.0.demo.tx.csr.0.hold"): set(SERVICES),
}
# Reading by sequence is reading everything: only for who must.
READERS_ON = {
    CERTS: {Role.ISSUER, Role.AUDIT, Role.VALIDATOR},
    CRLS: {Role.GATEWAY, Role.ISSUER},  # published anyway
    OPS: {Role.AUDIT, Role.VALIDATOR},
    enroll_stream("0"): {Role.AUDIT},
}


@pytest.fixture
async def buses(tmp_path: Path) -> AsyncIterator[dict[Role, JetStreamBus]]:
    """A provisioned server as each role reaches it."""
    with nats_server(tmp_path) as server:
        await server.provision()
        found = {role: await server.connect(role) for role in SERVICES}
        yield found
        for bus in found.values():
            await bus.close()


async def allowed(bus: JetStreamBus, subject: str, payload: bytes = b"") -> bool:
    try:
        await bus.request(subject, payload)
    except NobodyListensError:
        return False
    return True


async def test_each_subject_has_one_writer(buses: dict[Role, JetStreamBus]) -> None:
    found = {}
    for subject in WRITERS:
        writers = [role for role, bus in buses.items() if await allowed(bus, subject, b"{}")]
        found[subject] = writers

    assert found == {subject: [writer] for subject, writer in WRITERS.items()}


async def test_what_the_audit_service_writes_is_decisions_and_orders_alone(
    buses: dict[Role, JetStreamBus],
) -> None:
    """It serves operators; what they may say, the validator and the issuer check themselves."""
    audit = buses[Role.AUDIT]
    subjects = (
        *WRITERS,
        "enroll.0.demo.tx.csr.0.request",
        "enroll.0.demo.tx.csr.0.verdict",
        "enroll.0.demo.tx.csr.0.outcome",
        "ops.approve.local.40.0.ordered",
        "$KV.CA_CHAINS.local",
        "dead.audit.ENROLL_0.1",
    )
    written = [subject for subject in subjects if await allowed(audit, subject, b"{}")]

    assert written == [ORDER, "enroll.0.demo.tx.csr.0.decision"]


async def test_each_subject_has_its_readers(buses: dict[Role, JetStreamBus]) -> None:
    found = {}
    for stream, subject in READERS:
        asked = f"$JS.API.DIRECT.GET.{stream}.{subject}"
        found[stream, subject] = {r for r, bus in buses.items() if await allowed(bus, asked)}

    assert found == READERS


async def test_who_reads_by_subject_does_not_read_a_stream_on_and_on(
    buses: dict[Role, JetStreamBus],
) -> None:
    """A gateway taken over must know a serial number to ask for it."""
    bodies = (
        {"seq": 1},
        {"seq": 1, "next_by_subj": ">"},
        {"batch": 10, "multi_last": [">"]},
        {"last_by_subj": ">"},
    )
    found = {}
    for stream in READERS_ON:
        subject = f"$JS.API.DIRECT.GET.{stream}"
        readers = {
            role
            for role, bus in buses.items()
            for body in bodies
            if await allowed(bus, subject, json.dumps(body).encode())
        }
        found[stream] = readers

    assert found == READERS_ON


async def test_a_wildcard_shows_a_gateway_one_certificate_and_no_list(
    buses: dict[Role, JetStreamBus],
) -> None:
    for serial in ("40", "41"):
        await buses[Role.ISSUER].append(certificate_issued("local", serial), EMPTY)
    stored = await buses[Role.GATEWAY].get_last(CERTS, certificate_issued("*", "*"))

    assert stored is not None
    assert stored.subject == certificate_issued("local", "41")
    for wildcard in (">", "cert.>", "*.*.*.*", "key.>"):
        with pytest.raises(NobodyListensError):
            await buses[Role.GATEWAY].get_last(CERTS, wildcard)
    with pytest.raises(NobodyListensError):
        await buses[Role.GATEWAY].get_next(CERTS, ">", 1)
    with pytest.raises(NobodyListensError):
        await buses[Role.GATEWAY].get_sequence(CERTS, 1)


async def test_an_order_given_twice_in_one_attempt_is_one(
    buses: dict[Role, JetStreamBus],
) -> None:
    """The log takes the first: a second operator sees what the first one said."""
    await buses[Role.AUDIT].append(ORDER, EMPTY)
    answer = await buses[Role.AUDIT].request(ORDER, b"other", {})

    assert "error" in json.loads(answer.data)
