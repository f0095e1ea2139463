"""What the holder of a role's key cannot do to the other replicas of its role, on the wire."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from shared.bus.jetstream import JetStreamBus
from shared.bus.selftest import PrivilegeError, assert_least_privilege
from shared.bus.users import User, inbox_prefix, public_key_of, publishes, subscribes
from shared.log.envelope import Message
from shared.log.roles import SERVICES, Role
from shared.log.subjects import replica_subject
from tests.support.nats import NatsServer, nats_server

REQUEST = "enroll.0.demo.tx.csr.0.request"
# Whose hint each is; everybody else's is a forgery.
HINTS = {
    "gw.gateway-0": {Role.VALIDATOR, Role.ISSUER},
    "chain.local": {Role.ISSUER},
    "command.reload": {Role.AUDIT},
}
LISTENERS = {
    "gw.gateway-0": {Role.GATEWAY},
    "chain.local": {Role.GATEWAY, Role.VALIDATOR},
    "command.reload": {Role.GATEWAY, Role.VALIDATOR},
}
TOO_MUCH = (
    *(">", "*.>", "_INBOX.>", "_INBOX.*.>", "_INBOX.*.*.*", "enroll.>", "cert.>", "key.>", "ops.>"),
    *("$KV.>", "$JS.>", "$JS.API.>", "$JS.ACK.>", "_R_.>", "$SYS.>", REQUEST),
)


@dataclass
class Raw:
    """A connection that says anything; `refused` is what the server would not have."""

    client: Client
    heard: list[Msg] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    async def settle(self) -> None:
        """Until the server has answered what was said: the first ping overtakes what waits."""
        await self.client.flush()
        await self.client.flush()

    async def say(self, subject: str, payload: bytes = b"forged", reply: str = "") -> bool:
        """Publish; whether the server took it."""
        before = len(self.refused)
        await self.client.publish(subject, payload, reply)
        await self.settle()
        return len(self.refused) == before

    async def listen(self, subject: str) -> bool:
        """Subscribe; whether the server took it."""
        before = len(self.refused)

        async def note(msg: Msg) -> None:
            self.heard.append(msg)

        await self.client.subscribe(subject, cb=note)
        await self.settle()
        return len(self.refused) == before


@dataclass
class Bench:
    """A provisioned server; `raw` is another connection with the key of a role."""

    server: NatsServer
    open: list[Client] = field(default_factory=list)

    async def raw(self, seed: str) -> Raw:
        client, refused = Client(), []

        async def note(error: Exception) -> None:
            refused.append(str(error))

        prefix = inbox_prefix(public_key_of(seed))
        await client.connect(
            self.server.url, nkeys_seed_str=seed, error_cb=note, inbox_prefix=prefix
        )
        self.open.append(client)
        return Raw(client, refused=refused)

    def key(self, role: Role) -> str:
        return self.server.seeds[role]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    with nats_server(tmp_path) as server:
        await server.provision()
        found = Bench(server)
        yield found
        for client in found.open:
            await client.close()


each_role = pytest.mark.parametrize("role", SERVICES)


@each_role
async def test_a_reply_for_another_replica_cannot_be_forged(bench: Bench, role: Role) -> None:
    """Not by who knows its inbox, nor under the inbox of one's own key."""
    victim, thief = await bench.raw(bench.key(role)), await bench.raw(bench.key(role))
    inbox = victim.client.new_inbox()
    assert await victim.listen(f"{inbox}.*")

    for subject in (f"{inbox}.1", "_INBOX.x.1", f"{thief.client.new_inbox()}.1", "_R_.x.y"):
        assert not await thief.say(subject), subject
    await victim.client.flush()

    assert victim.heard == []


@each_role
@pytest.mark.parametrize("hint", HINTS)
async def test_only_who_sends_a_hint_can_send_it(bench: Bench, role: Role, hint: str) -> None:
    sender = await bench.raw(bench.key(role))

    assert await sender.say(hint) == (role in HINTS[hint])


@each_role
@pytest.mark.parametrize("hint", HINTS)
async def test_a_hint_is_heard_by_its_listeners_alone(bench: Bench, role: Role, hint: str) -> None:
    listener = await bench.raw(bench.key(role))

    assert await listener.listen(hint) == (role in LISTENERS[hint])


async def test_a_forged_hint_does_not_reach_a_replica_of_the_same_role(bench: Bench) -> None:
    victim = await bench.raw(bench.key(Role.GATEWAY))
    await victim.listen("gw.gateway-0")
    await victim.listen("chain.*")
    thief, issuer = (
        await bench.raw(bench.key(Role.GATEWAY)),
        await bench.raw(bench.key(Role.ISSUER)),
    )

    for subject in ("gw.gateway-0", "chain.local"):
        await thief.say(subject, b"forged")
        await issuer.say(subject, b"true")
    async with asyncio.timeout(5):
        while len(victim.heard) < 2:
            await victim.client.flush()

    assert [msg.data for msg in victim.heard] == [b"true", b"true"]


@each_role
async def test_nobody_listens_to_more_than_their_own(bench: Bench, role: Role) -> None:
    """Who hears the requests of others could answer them ahead of the log."""
    listener = await bench.raw(bench.key(role))
    others = [f"{inbox_prefix(public_key_of(bench.key(r)))}.>" for r in SERVICES if r is not role]
    others += [f"{h.partition('.')[0]}.*" for h, heard in LISTENERS.items() if role not in heard]
    took = [subject for subject in (*TOO_MUCH, *others) if await listener.listen(subject)]

    assert took == []


@each_role
async def test_a_request_of_another_replica_is_not_heard(bench: Bench, role: Role) -> None:
    """Imported services are subjects of the own account, too: a tap on them would hear replies."""
    bus = await bench.server.connect(role)
    tap = await bench.raw(bench.key(role))
    for subject in ("$JS.API.DIRECT.GET.CERTS.>", "enroll.>", "cert.*.*.issued"):
        await tap.listen(subject)
    await bus.get_last("CERTS", "cert.local.40.issued")
    await tap.client.flush()

    assert tap.heard == []
    await bus.close()


async def test_ids_of_replies_cannot_be_guessed(bench: Bench) -> None:
    """A reply subject is not checked: an answer could be led to an id that is known in advance."""
    bus = await bench.server.connect(Role.GATEWAY)
    replies: list[str] = []
    publish = bus.client.publish

    async def note(subject: str, payload: bytes = b"", reply: str = "", *rest: object) -> None:
        replies.append(reply)
        await publish(subject, payload, reply, *rest)  # type: ignore[arg-type]

    bus.client.publish = note  # type: ignore[method-assign,assignment]
    for _ in range(50):
        await bus.get_last("CERTS", "cert.local.40.issued")
    ids = [reply.rpartition(".")[2] for reply in replies]

    assert len({reply.rpartition(".")[0] for reply in replies}) == 1
    assert len(set(ids)) == len(ids)
    assert all(len(each) >= 16 for each in ids)
    assert all(len({each[place] for each in ids}) > 1 for place in range(16))
    await bus.close()


async def test_two_connections_have_inboxes_that_share_the_keys_prefix_alone(bench: Bench) -> None:
    first, second = [await bench.server.connect(Role.ISSUER) for _ in range(2)]
    prefix = inbox_prefix(public_key_of(bench.key(Role.ISSUER)))
    inboxes = {bus.inbox for bus in (first, second)}

    assert len(inboxes) == 2
    assert all(inbox.startswith(f"{prefix}.") for inbox in inboxes)
    assert all(len(inbox) >= len(prefix) + 17 for inbox in inboxes)
    await first.close()
    await second.close()


# A key for each replica


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Bench]:
    """Two gateways and two validators, each with a key of its own."""
    names = ("gateway-0", "gateway-1", "validator-0", "validator-1")
    with nats_server(tmp_path, replicas=names) as server:
        await server.provision()
        found = Bench(server)
        yield found
        for client in found.open:
            await client.close()


async def test_a_replica_with_a_key_of_its_own_works(pair: Bench) -> None:
    buses = [await pair.server.connect_replica(name) for name in ("gateway-0", "gateway-1")]
    for number, bus in enumerate(buses):
        await bus.append(f"enroll.0.demo.t{number}.csr.0.request", Message(b"{}", {}))
        await bus.put(replica_subject("gateway", f"gateway-{number}"), Message(b"{}", {}))
        await bus.on_hint(f"gw.gateway-{number}", lambda _s, _p, _h: None)
        await assert_least_privilege(bus, Role.GATEWAY, "0")
        await bus.close()


async def test_replies_of_another_replica_cannot_even_be_read(pair: Bench) -> None:
    thief = await pair.raw(pair.server.replica_seeds["gateway-1"])
    other = inbox_prefix(public_key_of(pair.server.replica_seeds["gateway-0"]))

    assert not await thief.listen(f"{other}.>")
    assert not await thief.listen("gw.*")
    assert not await thief.listen("gw.gateway-0")
    assert await thief.listen("gw.gateway-1")


async def test_a_replica_cannot_say_that_it_is_another(pair: Bench) -> None:
    gateway = await pair.raw(pair.server.replica_seeds["gateway-1"])
    validator = await pair.raw(pair.server.replica_seeds["validator-1"])

    assert not await gateway.say(replica_subject("gateway", "gateway-0"))
    assert not await validator.say(replica_subject("validator", "validator-0"))
    assert not await validator.say("ops.reload.demo.o1.validator-0.answered")
    assert await gateway.say(replica_subject("gateway", "gateway-1"))
    assert await validator.say("ops.reload.demo.o1.validator-1.answered")


async def test_a_roles_shared_key_still_hears_the_hints_of_all_its_replicas(pair: Bench) -> None:
    """So it is to be put away where replicas have keys of their own."""
    shared = await pair.raw(pair.key(Role.GATEWAY))

    assert await shared.listen("gw.gateway-0")


# The self-test at start


def loosened(server: NatsServer, change: Callable[[str], str]) -> None:
    """Start the server again with another configuration."""
    server.kill()
    server.change = change
    server.start()


def without_publish_lists(text: str) -> str:
    return text.replace("publish: [", 'publish: [">", ')


def without_subscribe_lists(text: str) -> str:
    return text.replace("subscribe: [", 'subscribe: [">", ')


@pytest.mark.parametrize("change", [without_publish_lists, without_subscribe_lists])
@each_role
async def test_a_service_does_not_start_where_replies_could_be_forged(
    bench: Bench, role: Role, change: Callable[[str], str]
) -> None:
    loosened(bench.server, change)
    bus = await bench.server.connect(role)
    with pytest.raises(PrivilegeError):
        await assert_least_privilege(bus, role, "0")
    await bus.close()


# The lists themselves


def test_what_a_user_may_publish_is_its_grants_and_hints() -> None:
    user = User(Role.AUDIT, "UKEY")
    found = publishes(user, ["0"])

    assert "command.*" in found
    assert "enroll.0.*.*.*.*.decision" in found
    assert not [s for s in found if s.startswith(("_INBOX", "gw.", "chain.")) or s in (">", "*")]


def test_what_a_user_hears_is_its_inbox_and_its_hints() -> None:
    assert subscribes(User(Role.AUDIT, "UKEY")) == ["_INBOX.UKEY.>"]
    assert subscribes(User(Role.GATEWAY, "UKEY", "gateway-7")) == [
        "_INBOX.UKEY.>", "gw.gateway-7", "chain.*", "status.*", "command.*", "quota.*",
    ]  # fmt: skip


async def test_a_reader_needs_no_inbox_of_its_own_and_forges_nothing(bench: Bench) -> None:
    """It is any NATS client; other readers may hear its answers: they may ask for them, too."""
    client, refused = Client(), []

    async def note(error: Exception) -> None:
        refused.append(str(error))

    await client.connect(bench.server.url, nkeys_seed_str=bench.key(Role.READER), error_cb=note)
    bench.open.append(client)
    answer = await client.request("$JS.API.DIRECT.GET.OPS", b'{"seq": 1}', timeout=5)
    assert (answer.headers or {})["Status"] == "404"

    reader = Raw(client, refused=refused)
    subjects = ("_INBOX.x.1", REQUEST, "gw.gateway-0", "command.reload", "cert.local.40.issued")
    assert [subject for subject in subjects if await reader.say(subject)] == []
    assert refused


async def test_a_refused_call_says_so_at_once(bench: Bench) -> None:
    bus: JetStreamBus = await bench.server.connect(Role.GATEWAY)
    async with asyncio.timeout(2):
        with pytest.raises(Exception, match="may not publish"):
            await bus.append("enroll.0.demo.TX.csr.0.verdict", Message(b"{}", {}))
    await bus.close()
