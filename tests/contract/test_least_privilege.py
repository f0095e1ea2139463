"""What each role may and may not do on a real nats-server, subject by subject."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.js.errors import APIError

from shared.bus.core import NobodyListensError
from shared.bus.grants import grants
from shared.bus.jetstream import JetStreamBus
from shared.bus.selftest import PrivilegeError, assert_least_privilege, forbidden_subject
from shared.log.envelope import Message
from shared.log.roles import SERVICES, Role
from tests.fakes.memory_bus import matches
from tests.support.nats import NatsServer, nats_server

WRITERS = {
    "request": Role.GATEWAY,
    "hold": Role.VALIDATOR,
    "decision": Role.AUDIT,
    "verdict": Role.VALIDATOR,
    "outcome": Role.ISSUER,
}
JETSTREAM_NOT_ENABLED = 10039
ADMIN_CALLS = (
    "$JS.API.STREAM.DELETE.ENROLL_0",
    "$JS.API.STREAM.PURGE.ENROLL_0",
    "$JS.API.STREAM.MSG.DELETE.ENROLL_0",
    "$JS.API.STREAM.UPDATE.ENROLL_0",
    "$JS.API.STREAM.CREATE.EVIL",
    "$JS.API.STREAM.INFO.ENROLL_0",
    "$JS.API.CONSUMER.DELETE.ENROLL_0.validator",
    "$JS.API.CONSUMER.CREATE.ENROLL_0.evil",
    "$JS.API.CONSUMER.DURABLE.CREATE.ENROLL_0.evil",
)


@dataclass
class Bench:
    """A provisioned server and a connection for every role."""

    server: NatsServer
    buses: dict[Role, JetStreamBus]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    with nats_server(tmp_path) as server:
        await server.provision()
        buses = {role: await server.connect(role) for role in SERVICES}
        yield Bench(server, buses)
        for bus in buses.values():
            await bus.close()


async def admin(server: NatsServer) -> Client:
    client = Client()
    await client.connect(server.url, nkeys_seed_str=server.seeds[Role.PROVISIONER])
    return client


async def stored_subjects(server: NatsServer, stream: str = "ENROLL_0") -> set[str]:
    client = await admin(server)
    info = await client.jetstream().stream_info(stream, subjects_filter=">")
    await client.close()
    return set(info.state.subjects or {})


async def test_each_stage_has_one_writer(bench: Bench) -> None:
    for stage, writer in WRITERS.items():
        for role, bus in bench.buses.items():
            subject = f"enroll.0.demo.{role}.csr.0.{stage}"
            if role is writer:
                await bus.append(subject, Message(b"{}", {}))
            else:
                with pytest.raises(NobodyListensError):
                    await bus.append(subject, Message(b"{}", {}))
    assert await stored_subjects(bench.server) == {
        f"enroll.0.demo.{writer}.csr.0.{stage}" for stage, writer in WRITERS.items()
    }


@pytest.mark.parametrize("call", ADMIN_CALLS)
async def test_no_service_can_alter_or_inspect_a_stream(bench: Bench, call: str) -> None:
    for bus in bench.buses.values():
        try:
            answer = await bus.request(call, b"{}")
        except NobodyListensError:
            continue
        # The server itself may answer that this account has no JetStream of its own.
        assert json.loads(answer.data)["error"]["err_code"] == JETSTREAM_NOT_ENABLED


async def test_no_role_reaches_what_only_others_are_granted(bench: Bench) -> None:
    table = grants(["0"])
    for grant in table:
        subject = grant.subject.replace("*", "x").replace(">", "x")
        if subject.startswith("$JS.ACK"):
            continue  # an acknowledgement is answered by nobody, allowed or not
        allowed = {g.role for g in table if matches(g.subject, subject)}
        for role in set(SERVICES) - allowed:
            with pytest.raises(NobodyListensError):
                await bench.buses[role].request(subject, b"")


async def test_a_reply_subject_cannot_write_into_a_stream(bench: Bench) -> None:
    """The server's PubAck, or a direct get's answer, must not land where the caller points it."""
    gateway = bench.buses[Role.GATEWAY]
    target = "enroll.0.demo.tx.csr.0.outcome"
    await gateway.append("enroll.0.demo.tx.csr.0.request", Message(b"{}", {}))
    await gateway.client.publish("enroll.0.demo.ty.csr.0.request", b"{}", reply=target)
    await gateway.client.publish(
        "$JS.API.DIRECT.GET.ENROLL_0.enroll.0.demo.tx.csr.0.request", b"", reply=target
    )
    await bench.buses[Role.VALIDATOR].client.publish(
        "$JS.API.CONSUMER.MSG.NEXT.ENROLL_0.validator",
        json.dumps({"batch": 1, "expires": 200_000_000}).encode(),
        reply=target,
    )
    await gateway.client.flush()
    await bench.buses[Role.VALIDATOR].client.flush()
    await gateway.append("enroll.0.demo.tz.csr.0.request", Message(b"{}", {}))

    assert target not in await stored_subjects(bench.server)


async def test_a_core_subscription_on_the_log_hears_nothing(bench: Bench) -> None:
    """Who could listen there would see rejected appends and could forge their PubAcks."""
    heard: list[str] = []
    for bus in bench.buses.values():

        async def note(msg: object) -> None:
            heard.append(str(msg))

        for subject in ("enroll.>", "cert.>", "$KV.>", "$JS.>", "_R_.>"):
            await bus.client.subscribe(subject, cb=note)
        await bus.client.flush()
    await bench.buses[Role.GATEWAY].append("enroll.0.demo.tx.csr.0.request", Message(b"{}", {}))
    for bus in bench.buses.values():
        await bus.client.flush()
    # A publisher may hear its own publish inside its own account; nobody else's.
    assert len(heard) <= 1


async def test_the_log_cannot_be_rolled_up_deleted_or_purged_even_by_its_owner(
    bench: Bench,
) -> None:
    gateway = bench.buses[Role.GATEWAY]
    subject = "enroll.0.demo.tx.csr.0.request"
    await gateway.append(subject, Message(b"kept", {}))
    for rollup in ("sub", "all"):
        await gateway.request(subject, b"evil", {"Nats-Rollup": rollup})
    client = await admin(bench.server)
    context = client.jetstream()
    with pytest.raises(APIError):
        await context.purge_stream("ENROLL_0")
    with pytest.raises(APIError):
        await context.delete_msg("ENROLL_0", 1)
    await client.close()

    stored = await gateway.get_last("ENROLL_0", subject)
    assert stored is not None
    assert stored.payload == b"kept"


async def test_an_event_without_the_header_cannot_overwrite_either(bench: Bench) -> None:
    gateway = bench.buses[Role.GATEWAY]
    subject = "enroll.0.demo.tx.csr.0.request"
    await gateway.append(subject, Message(b"kept", {}))
    answer = await gateway.request(subject, b"evil", {})
    assert json.loads(answer.data)["error"]["err_code"] == 10077
    stored = await gateway.get_last("ENROLL_0", subject)
    assert stored is not None
    assert stored.payload == b"kept"


async def test_hints_cannot_be_sent_by_roles_that_do_not_end_enrollments(bench: Bench) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    gateway = bench.buses[Role.GATEWAY]
    await gateway.on_hint("gw.g1", lambda _s, payload, _h: heard.put_nowait(payload))
    await gateway.client.flush()
    await bench.buses[Role.AUDIT].hint("gw.g1", Message(b"audit", {}))
    await bench.buses[Role.AUDIT].client.flush()
    await bench.buses[Role.ISSUER].hint("gw.g1", Message(b"issuer", {}))
    assert await asyncio.wait_for(heard.get(), 5) == b"issuer"


@pytest.mark.parametrize("role", SERVICES)
async def test_the_self_test_passes_on_a_provisioned_server(bench: Bench, role: Role) -> None:
    await assert_least_privilege(bench.buses[role], role, "0")


async def test_the_self_test_fails_where_the_role_can_reach_too_much(bench: Bench) -> None:
    """The provisioner's own key may write anything: a service that holds it must not start."""
    loose = await bench.server.connect(Role.PROVISIONER)
    with pytest.raises(PrivilegeError):
        await assert_least_privilege(loose, Role.GATEWAY, "0")
    await loose.close()
    assert forbidden_subject(Role.GATEWAY, "0") not in await stored_subjects(bench.server)


async def test_an_unknown_nkey_is_not_let_in(bench: Bench) -> None:
    client, errors = Client(), asyncio.Queue[Exception]()

    stranger = NatsServer(bench.server.directory).seeds[Role.GATEWAY]
    attempt = asyncio.create_task(
        client.connect(bench.server.url, nkeys_seed_str=stranger, error_cb=errors.put)
    )
    error = await asyncio.wait_for(errors.get(), 10)
    attempt.cancel()
    await asyncio.gather(attempt, return_exceptions=True)
    await client.close()

    assert "uthorization" in str(error)
    assert not client.is_connected
