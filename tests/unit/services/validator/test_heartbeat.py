"""One validator among several: it says that it is there, and reads anchors anew when ordered to."""

import asyncio
import base64
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import structs
from prometheus_client import REGISTRY

from cli.connector.signing import Connector, make_certificate
from services.validator.access import Access
from services.validator.challenges.anchors import AnchorFiles
from services.validator.challenges.jws import Anchor
from services.validator.challenges.signed import SIGNED, SignedAccess
from services.validator.challenges.token import AnchorPool, TokenRules
from services.validator.consumer import RequestConsumer
from services.validator.evaluate import Evaluator
from services.validator.heartbeat import ValidatorHeartbeats
from shared.bus.core import BusUnavailableError
from shared.bus.topology import HEARTBEAT_SECONDS
from shared.limits import ANCHOR_CHARACTERS, EVENT_BYTES, HEARTBEAT_ANCHORS
from shared.log.envelope import EventSigner, Message, Stored, authenticate_as
from shared.log.events.commands import (
    CommandAnswered,
    ReloadOrdered,
    RevocationOrdered,
    RevocationReason,
)
from shared.log.events.state import Heartbeat, LoadedAnchor, TenantReport
from shared.log.reasons import Reason
from shared.log.streams import OPS, REPLICAS
from shared.log.subjects import anchor_reload_command, reload_answer, replica_subject
from shared.observe.metrics import BUNDLE_EXPIRY_DAYS
from shared.runtime.live import Live
from shared.runtime.log_clock import LogClock
from shared.runtime.process import background
from tests.fakes.bus_through import BusThrough, Trouble
from tests.support.accesses import accepting, passwords_of
from tests.support.enrollers import (
    CONNECTOR,
    OTHER_CONNECTOR,
    ask,
    holder,
    result,
    token,
)
from tests.support.messages import Identity
from tests.support.validators import World, validating
from tests.support.world import (
    ISSUING,
    NOW,
    OPERATOR,
    PROFILE,
    STRANGER,
    TRUSTED_VALIDATORS,
    VALIDATOR,
    append,
    counted,
    messages_of,
    signed_event,
    turn,
    until,
)

pytestmark = pytest.mark.slow

LATER = NOW + 120  # an order is given that long after the replicas have read their files


def certificate(*connectors: Connector, now: float = NOW) -> bytes:
    return b"".join(make_certificate(each.key, each.name, now) for each in connectors)


def signed_access(path: Path, now: float = NOW) -> Access:
    """A profile that takes tokens of the connectors in this file."""
    files = AnchorFiles(path)
    return accepting(by_token=SignedAccess(files, files.read(now), TokenRules(), 0))


@dataclass
class Office:
    """A log with replicas on it, and the operator's hand on it."""

    world: World
    directory: Path
    running: AsyncExitStack

    def bundle(self, name: str, data: bytes | None = None) -> Path:
        """The file of a replica, or of a profile; None leaves it as it is."""
        path = self.directory / f"{name}.pem"
        if data is not None:
            path.write_bytes(data)
        return path

    def replica(
        self, name: str = "validator-0", *, since: int = NOW, **access: Access
    ) -> ValidatorHeartbeats:
        """A validator of its own; a name is a profile, by default `demo` with the one file."""
        found = access or {PROFILE: signed_access(self.bundle("connector"))}
        settings = self.world.evaluator.live.current
        policies = dict.fromkeys(found, self.world.policy)
        settings = replace(settings, access=found, policies=policies)
        evaluator = Evaluator(self.world.bus, Live(settings), self.world.evaluator.chains)
        bus = self.world.bus
        clock = LogClock(bus, replica_subject("validator", name), lambda: bus.clock() / 1e9)
        return ValidatorHeartbeats(
            bus=bus,
            evaluator=evaluator,
            name=name,
            clock=self.world.clock,
            since=since,
            log_clock=clock,
        )

    async def run(self, *replicas: ValidatorHeartbeats) -> None:
        """Let them run, and wait until each has said that it is there."""
        for each in replicas:
            await self.running.enter_async_context(background(each.run()))
        await until(lambda: {each.name for each in replicas} <= set(self.present()))

    def present(self) -> dict[str, Heartbeat]:
        stored = messages_of(self.world.bus, REPLICAS)
        found = [authenticate_as(Heartbeat, m, TRUSTED_VALIDATORS) for m in stored]
        return {each.name: each for each in found}

    async def order(
        self, name: str = "o1", profile: str = PROFILE, *, by: EventSigner = OPERATOR
    ) -> Stored:
        """An order on the log, and the hint that makes replicas look."""
        place = anchor_reload_command(profile, name)
        event = ReloadOrdered(profile=profile, operator="op")
        return await self.append(place, signed_event(event, place, by))

    async def append(self, place: str, message: Message) -> Stored:
        self.world.clock.seconds = max(self.world.clock.seconds, LATER)
        stored = await append(self.world.bus, place, message)
        await self.hint()
        return stored

    async def hint(self) -> None:
        await self.world.bus.hint("command.reload", Message(b"", {}))

    def answers(self) -> list[Stored]:
        return messages_of(self.world.bus, OPS, ".answered")

    def answer(self, order: Stored, name: str = "validator-0") -> CommandAnswered | None:
        """What a replica says, authentic, and about this order."""
        place = reload_answer(order.subject, name)
        for stored in self.answers():
            if stored.subject == place:
                found = authenticate_as(CommandAnswered, stored, TRUSTED_VALIDATORS)
                assert found.request_sha256 == order.sha256()
                return found
        return None

    async def answered(
        self, order: Stored, name: str = "validator-0", seconds: float = 20
    ) -> CommandAnswered:
        found = await until(lambda: self.answer(order, name), seconds)
        assert isinstance(found, CommandAnswered)
        return found

    async def takes(self, replica: ValidatorHeartbeats, connector: Connector, nonce: str) -> bool:
        """Whether a replica takes a token of this connector."""
        now = int(self.world.clock.seconds)
        text = token(nonce, by=connector, now=now)
        request = await ask(self.world, holder(), text)
        await RequestConsumer(replica.evaluator).handle(request)
        found = result(self.world, request)
        assert found in ("approved", Reason.SIGNATURE_INVALID)
        return found == "approved"


@pytest.fixture
async def context(
    device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey, tmp_path: Path
) -> AsyncIterator[Office]:
    async with validating(device, ra, ec_key) as world, AsyncExitStack() as running:
        found = Office(world, tmp_path, running)
        found.bundle("connector", certificate(CONNECTOR))
        yield found


# Heartbeats


async def test_a_replica_says_that_it_is_there_and_which_anchors_it_has(context: Office) -> None:
    replica = context.replica(since=NOW - 5)
    await context.run(replica)

    (seen,) = context.present().values()
    pool = AnchorFiles(context.bundle("connector")).read(NOW)
    (anchor,) = pool.common
    assert seen == Heartbeat(
        role="validator",
        name="validator-0",
        since=NOW - 5,
        anchors={PROFILE: pool.sha256},
        loaded=(
            LoadedAnchor(
                profile=PROFILE,
                subject=anchor.subject,
                sha256=anchor.sha256,
                not_before=anchor.not_before,
                not_after=anchor.not_after,
            ),
        ),
    )
    assert len(anchor.sha256) == 64
    (stored,) = messages_of(context.world.bus, REPLICAS)
    assert stored.subject == replica_subject("validator", "validator-0")


async def test_of_many_tenants_anchors_those_are_reported_that_expire_first(
    context: Office,
) -> None:
    key = ec.derive_private_key(7, ec.SECP256R1()).public_key()
    tenants = {
        f"{number}-{'x' * 2000}": (Anchor("CN=" + "\u00fc" * 2000, 0, NOW + 1000 - number, key),)
        for number in range(HEARTBEAT_ANCHORS + 5)
    }
    pool = AnchorPool((), tenants)
    files = AnchorFiles(None)
    access = accepting(by_token=SignedAccess(files, pool, TokenRules(), 0))
    message = context.replica(demo=access).message()
    loaded = msgspec.json.decode(message.payload, type=Heartbeat).loaded

    assert len(message.payload) < EVENT_BYTES
    ends = [NOW + 1000 - number for number in range(HEARTBEAT_ANCHORS + 5)]
    assert [each.not_after for each in loaded] == sorted(ends)[:HEARTBEAT_ANCHORS]
    assert {len(each.issuer or "") for each in loaded} == {ANCHOR_CHARACTERS}
    assert {each.profile for each in loaded} == {"demo"}


async def test_the_end_of_each_bundle_is_measured_while_it_is_loaded(context: Office) -> None:
    def measured() -> dict[str, float]:
        (metric,) = BUNDLE_EXPIRY_DAYS.collect()
        return {
            each.labels["bundle"]: round(each.value)
            for each in metric.samples
            if each.labels["profile"] == "demo"
        }

    key = ec.derive_private_key(7, ec.SECP256R1()).public_key()
    days = {name: Anchor("CN=a", 0, NOW + n * 86400, key) for name, n in (("9", 9), ("5", 5))}
    tenants = {"contoso": (days["9"], days["5"])}
    with_tenant = AnchorPool((days["9"],), tenants)
    for pool, expected in (
        (with_tenant, {"common": 9, "tenant contoso": 5}),
        (AnchorPool((), tenants), {"tenant contoso": 5}),
    ):
        access = SignedAccess(AnchorFiles(None), pool, TokenRules(), 0)
        context.replica(demo=accepting(by_token=access)).message()
        assert measured() == expected


async def test_the_end_of_a_connection_s_credential_is_exported(context: Office) -> None:
    report = TenantReport(
        connection="contoso",
        tenant="0f7c",
        cloud="public",
        credential_kind="certificate",
        credential=1,
        credential_not_after=NOW + 5 * 86400,
    )
    unknown = structs.replace(report, connection="other", credential_not_after=0)
    replica = context.replica()
    replica.tenants = lambda: (report, unknown)
    replica.message()
    days = {name: exported_days(name) for name in ("contoso", "other")}
    replica.tenants = tuple
    replica.message()

    assert days == {"contoso": 5, "other": None}
    assert exported_days("contoso") is None


def exported_days(name: str) -> float | None:
    labels = {"kind": "credential", "name": name}
    return REGISTRY.get_sample_value("scepstream_certificate_expiry_days", labels)


async def test_presence_ends_soon_after_its_replica(context: Office) -> None:
    async with background(context.replica().run()):
        await until(context.present)
    place = replica_subject("validator", "validator-0")
    context.world.clock.seconds += HEARTBEAT_SECONDS - 1
    assert await context.world.bus.get_last(REPLICAS, place) is not None
    context.world.clock.seconds += 1

    assert await context.world.bus.get_last(REPLICAS, place) is None


async def test_a_running_replica_says_so_again_and_again(context: Office) -> None:
    await context.run(context.replica())
    for _ in range(3):
        context.world.clock.seconds += HEARTBEAT_SECONDS - 1
        (before,) = messages_of(context.world.bus, REPLICAS)
        await context.hint()
        await until(lambda b=before: messages_of(context.world.bus, REPLICAS) != [b])

    place = replica_subject("validator", "validator-0")
    assert await context.world.bus.get_last(REPLICAS, place) is not None


async def test_each_replica_has_its_own_presence(context: Office) -> None:
    await context.run(*(context.replica(f"validator-{number}") for number in range(4)))

    assert set(context.present()) == {f"validator-{number}" for number in range(4)}


async def test_a_profile_without_tokens_has_no_anchors_to_tell_of(context: Office) -> None:
    plain = accepting(passwords=("s3cret",))
    await context.run(context.replica(demo=plain))

    assert context.present()["validator-0"].anchors == {}


# Reloads


async def test_new_anchors_are_swapped_in_and_the_old_ones_are_gone(context: Office) -> None:
    replica = context.replica()
    await context.run(replica)
    assert await context.takes(replica, CONNECTOR, "n-1")
    before = context.present()["validator-0"].anchors[PROFILE]
    context.bundle("connector", certificate(OTHER_CONNECTOR))
    found = await context.answered(await context.order())

    assert found.done
    assert found.detail == "1 anchor, expires 2027-01-01"
    assert not await context.takes(replica, CONNECTOR, "n-2")
    assert await context.takes(replica, OTHER_CONNECTOR, "n-3")
    await until(lambda: context.present()["validator-0"].anchors[PROFILE] != before)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"garbage", "no certificate in PEM"),
        (b"", "no certificate in PEM"),
        (certificate(OTHER_CONNECTOR)[:-40], "connector.pem"),
        (certificate(OTHER_CONNECTOR) + certificate(CONNECTOR)[:300], "is truncated"),
        (certificate(OTHER_CONNECTOR, now=NOW - 400 * 86400), "expired"),
    ],
)
async def test_a_bundle_that_is_none_is_refused_and_the_old_anchors_stay(
    context: Office, data: bytes, said: str
) -> None:
    replica = context.replica()
    await context.run(replica)
    before = replica.evaluator.live.current.access[PROFILE]
    context.bundle("connector", data)
    found = await context.answered(await context.order())

    assert not found.done
    assert said in found.detail
    assert "connector.pem" in found.detail
    assert replica.evaluator.live.current.access[PROFILE] is before
    assert await context.takes(replica, CONNECTOR, "n-1")
    assert not await context.takes(replica, OTHER_CONNECTOR, "n-2")


async def test_a_bundle_that_raises_what_nobody_expects_is_refused_and_holds_up_nothing(
    context: Office,
) -> None:
    """A certificate whose kind of key is not known here: other profiles' orders are obeyed."""
    access = {
        name: signed_access(context.bundle(name, certificate(CONNECTOR)))
        for name in (PROFILE, "second")
    }
    await context.run(context.replica(**access))
    context.bundle(PROFILE, unknown_key(CONNECTOR))
    orders = [await context.order("o1"), await context.order("o2", "second")]
    found = [await context.answered(order, seconds=3) for order in orders]

    assert [each.done for each in found] == [False, True]
    assert "demo.pem" in found[0].detail


def unknown_key(connector: Connector) -> bytes:
    """A certificate with the OID of its kind of key changed into one that nobody uses."""
    lines = certificate(connector).decode().splitlines()
    der = base64.b64decode("".join(lines[1:-1]))
    known, unknown = "06072a8648ce3d0201", "06072a8648ce3d0277"
    changed = der.replace(bytes.fromhex(known), bytes.fromhex(unknown))
    assert changed != der
    body = base64.encodebytes(changed).decode()
    return f"{lines[0]}\n{body}{lines[-1]}\n".encode()


async def test_passwords_and_everything_else_stay_as_they_are(context: Office) -> None:
    path = context.bundle("connector")
    access = accepting(passwords=("s3cret",), by_token=signed_access(path).signed, by_one_time=True)
    replica = context.replica(demo=access)
    await context.run(replica)
    context.bundle("connector", certificate(OTHER_CONNECTOR))
    await context.answered(await context.order())

    after = replica.evaluator.live.current.access[PROFILE]
    assert after.signed is not None
    assert after.signed is not None
    assert after == access.with_prepared(SIGNED, after.signed)
    assert after.signed.pool == AnchorFiles(path).read(NOW)


async def test_only_the_profile_that_is_named_is_read_anew(context: Office) -> None:
    access = {
        name: signed_access(context.bundle(name, certificate(CONNECTOR)))
        for name in (PROFILE, "second")
    }
    replica = context.replica(**access)
    await context.run(replica)
    for name in access:
        context.bundle(name, certificate(OTHER_CONNECTOR))
    await context.answered(await context.order(profile="second"))

    after = replica.evaluator.live.current.access
    assert after[PROFILE] is access[PROFILE]
    assert after["second"] is not access["second"]


async def test_tenants_bundles_are_read_anew_too(context: Office) -> None:
    tenant = context.bundle("tenant", certificate(CONNECTOR))
    files = AnchorFiles(context.bundle("connector"), {OTHER_CONNECTOR.name: tenant})
    access = accepting(by_token=SignedAccess(files, files.read(NOW), TokenRules(), 0))
    replica = context.replica(demo=access)
    await context.run(replica)
    assert not await context.takes(replica, OTHER_CONNECTOR, "n-1")
    tenant.write_bytes(certificate(OTHER_CONNECTOR))
    found = await context.answered(await context.order())

    assert found.detail.startswith("2 anchors")
    assert await context.takes(replica, OTHER_CONNECTOR, "n-2")


# Answers


async def test_every_replica_answers_for_itself(context: Office) -> None:
    """One of two cannot read its file: it keeps its old anchors and says so."""
    access = [
        signed_access(context.bundle(f"file-{number}", certificate(CONNECTOR)))
        for number in range(2)
    ]
    replicas = [context.replica(f"validator-{n}", demo=each) for n, each in enumerate(access)]
    await context.run(*replicas)
    context.bundle("file-0", certificate(OTHER_CONNECTOR))
    context.bundle("file-1").unlink()
    order = await context.order()
    good, bad = [await context.answered(order, each.name) for each in replicas]

    assert (good.done, bad.done) == (True, False)
    assert "file-1.pem: No such file" in bad.detail
    assert await context.takes(replicas[0], OTHER_CONNECTOR, "n-1")
    assert not await context.takes(replicas[1], OTHER_CONNECTOR, "n-2")
    assert await context.takes(replicas[1], CONNECTOR, "n-3")


@pytest.mark.parametrize("profile", ["unknown", "plain"])
async def test_an_order_about_a_profile_without_tokens_is_answered_with_no(
    context: Office, profile: str
) -> None:
    plain = accepting(passwords=("s3cret",))
    demo = signed_access(context.bundle("connector"))
    await context.run(context.replica(demo=demo, plain=plain))
    found = await context.answered(await context.order(profile=profile))

    assert not found.done
    assert found.detail == f"profile {profile} does not accept signed challenges on this replica"


async def test_orders_are_obeyed_in_turn_and_each_is_answered(context: Office) -> None:
    replica = context.replica()
    await context.run(replica)
    orders = [await context.order(f"o{number}") for number in range(5)]
    for order in orders:
        assert (await context.answered(order)).done

    assert len(context.answers()) == 5


async def test_an_order_is_answered_once_and_not_again_after_a_restart(context: Office) -> None:
    async with background(context.replica().run()):
        await until(context.present)
        await context.answered(await context.order())
    before = context.answers()
    restarted = context.replica(since=LATER)
    context.bundle("connector").unlink()
    with structlog.testing.capture_logs() as logs:
        await context.run(restarted)
        await until(lambda: logs)
        await turn(200)

    assert [entry["event"] for entry in logs] == ["anchors_kept"]  # it obeyed once more
    assert context.answers() == before


async def test_a_hint_without_an_order_does_nothing(context: Office) -> None:
    replica = context.replica()
    await context.run(replica)
    before = replica.evaluator.live.current.access[PROFILE]
    await context.hint()
    await turn(200)

    assert context.answers() == []
    assert replica.evaluator.live.current.access[PROFILE] is before


async def test_an_order_is_found_without_its_hint(
    context: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hints are core messages: they are lost with the connection."""
    monkeypatch.setattr("shared.runtime.log_clock._BEAT_SECONDS", 0.01)
    await context.run(context.replica())
    context.world.bus.hints.clear()

    assert (await context.answered(await context.order())).done


async def test_an_order_during_an_outage_is_obeyed_after_it(context: Office) -> None:
    bus = context.world.bus
    replica = context.replica()
    await context.run(replica)
    context.bundle("connector", certificate(OTHER_CONNECTOR))
    place = anchor_reload_command(PROFILE, "o1")
    event = ReloadOrdered(profile=PROFILE, operator="op")
    order = await append(bus, place, signed_event(event, place, OPERATOR))
    bus.connected = False
    replica.look_now()
    await turn(200)
    assert context.answers() == []
    bus.connected = True
    replica.look_now()

    assert (await context.answered(order)).done
    assert await context.takes(replica, OTHER_CONNECTOR, "n-1")


@pytest.mark.parametrize("at", range(16))
async def test_an_order_is_answered_whichever_call_fails_on_the_way(
    context: Office, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """The bus may have done what it was asked or not: the answer is there, and one."""
    monkeypatch.setattr("shared.runtime.log_clock._BEAT_SECONDS", 0.01)
    order = await context.order()
    trouble = Trouble(at, lambda: BusUnavailableError("lost"))
    replica = context.replica()
    replica.evaluator.bus = BusThrough(context.world.bus, trouble)
    await context.run(replica)

    assert (await context.answered(order)).done
    await until(lambda: trouble.happened)
    assert len(context.answers()) == 1


# Orders that are none


def forged(kind: str) -> Message:
    place = anchor_reload_command(PROFILE, "o1")
    event = ReloadOrdered(profile=PROFILE, operator="op")
    other = RevocationOrdered(
        issuer="local", serial="40", attempt=0, reason=RevocationReason.UNSPECIFIED, operator="op"
    )
    made = {
        "by a stranger": lambda: signed_event(event, place, STRANGER),
        "by a validator": lambda: signed_event(event, place, VALIDATOR),
        "by an issuer": lambda: signed_event(event, place, ISSUING),
        "of another order": lambda: signed_event(
            event, anchor_reload_command(PROFILE, "o9"), OPERATOR
        ),
        "another event": lambda: signed_event(other, place, OPERATOR),
        "without a signature": lambda: Message(
            signed_event(event, place, OPERATOR).payload, {"Scepstream-Type": "ReloadOrdered"}
        ),
        "no event": lambda: Message(b"\xff", {}),
    }
    return made[kind]()


@pytest.mark.parametrize(
    "kind",
    [
        "by a stranger", "by a validator", "by an issuer", "of another order", "another event",
        "without a signature", "no event",
    ],
)  # fmt: skip
async def test_an_order_that_no_operator_gave_is_not_obeyed_and_is_reported(
    context: Office, kind: str
) -> None:
    replica = context.replica()
    await context.run(replica)
    access = replica.evaluator.live.current.access[PROFILE]
    context.bundle("connector", certificate(OTHER_CONNECTOR))
    before = counted("security_events", stage="command")
    await context.append(anchor_reload_command(PROFILE, "o1"), forged(kind))
    await until(lambda: counted("security_events", stage="command") == before + 1)

    assert context.answers() == []
    assert replica.evaluator.live.current.access[PROFILE] is access
    good = await context.order("o2")
    assert (await context.answered(good)).done
    assert counted("security_events", stage="command") == before + 1


# Orders from before


async def test_an_order_from_before_its_files_were_read_is_not_obeyed_again(
    context: Office,
) -> None:
    order = await context.order()
    replica = context.replica(since=LATER + 3600)
    await context.run(replica)
    await turn(200)

    assert context.answer(order) is None


async def test_an_order_from_just_before_its_files_were_read_is_obeyed_to_be_safe(
    context: Office,
) -> None:
    """The log's clock and the validator's are two."""
    order = await context.order()
    await context.run(context.replica(since=LATER + 30))

    assert (await context.answered(order)).done


async def test_every_order_since_its_files_were_read_is_obeyed(context: Office) -> None:
    """Two profiles' orders came while it was still connecting: it has neither of the new files."""
    names = ("first", "second", "third")
    access = {name: signed_access(context.bundle(name, certificate(CONNECTOR))) for name in names}
    replica = context.replica(**access)
    orders = []
    for name in names:
        context.bundle(name, certificate(OTHER_CONNECTOR))
        orders.append(await context.order(f"o-{name}", name))
    await context.run(replica)
    await context.answered(orders[-1])
    await turn(200)

    assert [context.answer(order) is not None for order in orders] == [True] * 3
    for name in names:
        signed = replica.evaluator.live.current.access[name].signed
        assert signed is not None
        assert signed.pool.common[0].subject == f"CN={OTHER_CONNECTOR.name}"


# Beside a SIGHUP


class SlowFiles(AnchorFiles):
    """A disk that takes its time: reading ends when the test says so."""

    reading = threading.Event()
    go_on = threading.Event()

    def read(self, now: float) -> AnchorPool:
        found = super().read(now)
        self.reading.set()
        assert self.go_on.wait(10)
        return found


@asynccontextmanager
async def slow_reload(
    context: Office, **options: Any
) -> AsyncIterator[tuple[ValidatorHeartbeats, Stored]]:
    """A replica in the middle of a reload, whose files are read already but not yet in use."""
    SlowFiles.reading.clear()
    SlowFiles.go_on.clear()
    quick = signed_access(context.bundle("connector"))
    assert quick.signed is not None
    slow = replace(quick.signed, files=SlowFiles(context.bundle("connector")))
    replica = context.replica(demo=accepting(by_token=slow), **options)
    await context.run(replica)
    order = await context.order()
    try:
        await asyncio.to_thread(SlowFiles.reading.wait, 10)
        yield replica, order
    finally:
        SlowFiles.go_on.set()


async def test_settings_read_meanwhile_are_not_overwritten_by_older_anchors(
    context: Office,
) -> None:
    """A SIGHUP in the middle of a reload brought newer files: the reload begins anew."""
    async with slow_reload(context) as (replica, order):
        context.bundle("connector", certificate(OTHER_CONNECTOR))
        anchors = signed_access(context.bundle("connector")).signed
        newer = accepting(passwords=("n3w",), by_token=anchors)
        settings = replica.evaluator.live.current
        replica.evaluator.live.current = replace(settings, access={PROFILE: newer})
    found = await context.answered(order)

    after = replica.evaluator.live.current.access[PROFILE]
    assert found.done
    assert passwords_of(after) == ("n3w",)
    assert after.signed is not None
    assert [each.subject for each in after.signed.pool.common] == [f"CN={OTHER_CONNECTOR.name}"]


async def test_a_profile_that_is_gone_in_the_middle_of_its_reload_is_answered_with_no(
    context: Office,
) -> None:
    async with slow_reload(context) as (replica, order):
        settings = replica.evaluator.live.current
        replica.evaluator.live.current = replace(
            settings, access={PROFILE: accepting(passwords=("x",))}
        )
    found = await context.answered(order)

    assert not found.done
    assert replica.evaluator.live.current.access == {PROFILE: accepting(passwords=("x",))}


async def test_requests_are_judged_while_files_are_read(context: Office) -> None:
    async with slow_reload(context) as (replica, _):
        assert await context.takes(replica, CONNECTOR, "n-1")
