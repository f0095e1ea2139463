"""kill -9 of issuers while they carry out orders at a CA that answers late, later or never.

TEST_ORDERS says how many orders each kind of CA gets, TEST_SEED in which order what happens.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import nats
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from services.issuer.connectors.connector import AnswerLostError, CaUnavailableError
from shared.bus import provision
from shared.bus.jetstream import JetStreamBus
from shared.log.envelope import encode, sign
from shared.log.events.certificates import OrphanSuspected
from shared.log.events.enrollment import (
    CertificateIssued,
    EnrollmentApproved,
    EnrollmentRequested,
)
from shared.log.roles import Role
from shared.log.stages import Stage
from shared.log.streams import CERTS, DEAD_LETTERS
from shared.log.subjects import EnrollmentId, certificate_issued, transaction_token
from tests.chaos.ledger import ENROLL, read_stream
from tests.chaos.order_ca import BLIND, KEY, KINDS, NAMED, SEARCHABLE, SHORT_TOKEN
from tests.chaos.order_issuer import ACK_WAIT_SECONDS, ask
from tests.chaos.order_ledger import Attempt, OrderLedger, table
from tests.support import pki
from tests.support.messages import (
    PRINTABLE,
    Identity,
    cms_attributes,
    identity,
    scep_attributes,
    signed,
    spki,
    tlv,
)
from tests.support.nats import NatsServer, nats_server
from tests.support.system import wait_until
from tests.support.templates import EKU, KEY_USAGE, SAN, template
from tests.support.world import GATEWAY, PROFILE, REQUESTED, VALIDATOR, approved

ORDERS = int(os.environ.get("TEST_ORDERS", "10"))
SEED = int(os.environ.get("TEST_SEED") or random.SystemRandom().randrange(1_000_000))
ROOT: Final = Path(__file__).parents[2]
ISSUERS: Final = ("issuer-0", "issuer-1")
# Longer than what the CA needs for an order that was placed, after an orphan was suspected.
WATCH_SECONDS: Final = 4.0 if ORDERS < 100 else 15.0
FINISH_SECONDS: Final = 60.0 + 0.6 * ORDERS
_OUTCOMES: Final = "enroll.*.*.*.*.*.outcome"
_AT_ONCE: Final = 60
_EXPIRING: Final = 0.1  # of the approvals end while their orders are carried out


@dataclass
class Nursery:
    """Issuers that can be killed and started again; `ended` counts those that ended unkilled."""

    process: subprocess.Popen[str]
    port: int
    kills: int = 0
    ended: int = 0

    def start(self, name: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{name} {self.port}\n")
        self.process.stdin.flush()
        said = self.process.stdout.readline().strip()
        assert said in ("started", "ended"), said
        self.ended += said == "ended"

    async def harass(self, rng: random.Random) -> None:
        """Kill a random one at random moments, forever."""
        while True:
            await asyncio.sleep(rng.uniform(0.2, 0.8))
            await asyncio.to_thread(self.start, rng.choice(ISSUERS))
            self.kills += 1


@dataclass
class Chaos:
    """The log's server, the CA and the issuers."""

    server: NatsServer
    ca: bytes
    nursery: Nursery
    seconds: list[float] = field(default_factory=list)

    @asynccontextmanager
    async def log(self) -> AsyncIterator[JetStreamContext]:
        seed = self.server.seeds[Role.PROVISIONER]
        client = await nats.connect(self.server.url, nkeys_seed_str=seed, name="test")
        try:
            yield client.jetstream(timeout=10)
        finally:
            await client.close()

    async def register(self, *, calm: bool = False) -> dict[str, Any]:
        """What the CA has; `calm` lets it answer everything from now on, though not in time."""
        asked = {"call": "register", "calm": calm}

        async def answer() -> dict[str, Any] | None:
            try:
                return await ask(self.nursery.port, asked)
            except (CaUnavailableError, AnswerLostError):
                return None

        found: dict[str, Any] = await until(answer, 20, "the CA's register")
        return found

    async def ledger(self) -> tuple[OrderLedger, dict[str, Any]]:
        register = await self.register(calm=True)
        async with self.log() as context:
            names = (ENROLL, CERTS, DEAD_LETTERS)
            streams = {name: await read_stream(context, name) for name in names}
        return OrderLedger.of(streams, register), register


async def until(condition: Callable[[], Awaitable[Any]], seconds: float, what: str) -> Any:
    """Look until the condition gives something true; fail loudly when it never does."""
    deadline = time.monotonic() + seconds
    while not (found := await condition()):
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds} s"
        await asyncio.sleep(0.1)
    return found


@pytest.mark.timeout(int(2 * FINISH_SECONDS))
async def test_whatever_is_killed_no_certificate_is_lost_and_none_doubled_unseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _say(capsys, f"\n{ORDERS} orders at each CA, TEST_SEED={SEED}")
    monkeypatch.setattr(provision, "ACK_WAIT_SECONDS", ACK_WAIT_SECONDS)
    with nats_server(tmp_path) as server:
        await server.provision()
        with running(tmp_path, server) as chaos:
            await _carry_out(chaos)
            ledger, register = await _settled(chaos)
            counts = register["counts"]
            rows = {kind: ledger.counts(kind, counts.get(kind, {})) for kind in KINDS}
            took = ", ".join(f"{each:.1f} s" for each in chaos.seconds)
            _say(capsys, table(rows))
            _say(capsys, f"kills: {chaos.nursery.kills}, issuers that ended: {chaos.nursery.ended}")
            _say(capsys, f"CA: {counts.get('all', {})}, {took}")

    faults = ledger.faults()
    evidence = tmp_path / "orders.txt"
    evidence.write_text("\n".join(each.story() for each in ledger.attempts.values()))
    told = [f"{len(found)} times {what}, such as {found[0]}" for what, found in faults.items()]
    assert not told, "\n".join([f"TEST_SEED={SEED}, all in {evidence}", *told])
    assert chaos.nursery.ended == 0
    assert chaos.nursery.kills > 0


def entry(certificate: str, arrived: float, *, revoked: bool = False) -> dict[str, Any]:
    """An order of the register that led to a certificate."""
    return {"certificate": certificate, "arrived": arrived, "revoked": revoked, "state": "issued"}


def attempt(kind: str, *entries: dict[str, Any], suspected: Sequence[float] = ()) -> Attempt:
    """An order whose device gets the certificate 01; a possible orphan was recorded when said."""
    issued = CertificateIssued(
        request_sha256="", issuer=kind, serial="01", certificate=b"\x01", not_after=0
    )
    doubts = [(at, _suspicion(kind, number)) for number, at in enumerate(suspected)]
    return Attempt("enrollment", kind, "", "", [issued], suspected=doubts, entries=list(entries))


def _suspicion(kind: str, placement: int) -> OrphanSuspected:
    return OrphanSuspected(
        request_sha256="", enrollment="enrollment", issuer=kind, key="", placement=placement,
        spki_sha256="", ca_spki_sha256="",
    )  # fmt: skip


ONE, TWO = entry("01", 10.0), entry("02", 14.0)


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        (attempt(NAMED, ONE), ""),
        (attempt(NAMED, ONE, TWO, suspected=[12.0]), "two certificates"),
        (attempt(BLIND, ONE, TWO, suspected=[12.0]), ""),
        (attempt(BLIND, ONE, TWO), "no possible orphan covers it"),
        (attempt(BLIND, ONE, TWO, suspected=[16.0]), "before a possible orphan was recorded"),
        (attempt(BLIND, ONE, entry("02", 14.0, revoked=True), suspected=[12.0]), ""),
        (attempt(SEARCHABLE, ONE, TWO, suspected=[12.0]), "is not revoked"),
        (attempt(SEARCHABLE, ONE, entry("02", 14.0, revoked=True), suspected=[12.0]), ""),
        (attempt(BLIND, entry("01", 10.0, revoked=True)), "issued and revoked at the CA"),
        (attempt(BLIND, TWO, suspected=[12.0]), "not made by the CA"),
        (attempt(SHORT_TOKEN, *[ONE] * 4, suspected=[1.0, 2.0, 3.0]), "more than three times"),
    ],
)
def test_the_checks_find_what_they_are_for(found: Attempt, fault: str) -> None:
    records = {certificate_issued(found.kind, "01"): "enrollment"}

    faults = list(found.faults(records))
    assert any(fault in each for each in faults) if fault else faults == []
    assert "issued and not recorded" in list(found.faults({}))


async def _carry_out(chaos: Chaos) -> None:
    """Append everything and kill issuers until each verdict has its outcome."""
    began = time.monotonic()
    killing = asyncio.create_task(chaos.nursery.harass(random.Random(SEED)))
    try:
        async with chaos.log() as context, asyncio.timeout(FINISH_SECONDS):
            await _feed(chaos, context)
        assert not killing.done(), killing
    finally:
        killing.cancel()
        await asyncio.gather(killing, return_exceptions=True)
    chaos.seconds.append(time.monotonic() - began)


async def _settled(chaos: Chaos) -> tuple[OrderLedger, dict[str, Any]]:
    """The log and the register once the CA has no work and the keepers have looked."""
    began = time.monotonic()

    async def idle() -> bool:
        return not (await chaos.register(calm=True))["busy"]

    async def settled() -> tuple[OrderLedger, dict[str, Any]] | None:
        ledger, register = await chaos.ledger()
        return None if ledger.unsettled(SEARCHABLE) else (ledger, register)

    await until(idle, 20, "the end of the CA's work")
    try:
        found = await until(settled, WATCH_SECONDS + 30 + 0.1 * ORDERS, "a settlement")
    except AssertionError:
        found = await chaos.ledger()  # the checks say what is missing
    chaos.seconds.append(time.monotonic() - began)
    ledger, register = found
    return ledger, register


# The processes


@contextmanager
def running(folder: Path, server: NatsServer) -> Iterator[Chaos]:
    """The CA and two issuers for the length of a block."""
    ca = pki.der(pki.make_root(KEY))
    (folder / "ca.der").write_bytes(ca)
    port_file, given = folder / "port", folder / "issuers.json"
    arguments = (str(folder / "ca.der"), str(SEED), str(port_file))
    values = {
        "url": server.url, "seed": server.seeds[Role.ISSUER], "ca": ca.hex(),
        "watch": WATCH_SECONDS, "log": str(folder / "issuers.log"),
    }  # fmt: skip
    given.write_text(json.dumps(values))
    with (
        _process("tests.chaos.order_ca", *arguments, log=folder / "ca.log") as at_ca,
        _process("tests.chaos.order_issuer", str(given), log=folder / "nursery.log") as process,
    ):
        wait_until(port_file.exists, 20, "the CA")
        nursery = Nursery(process, int(port_file.read_text()))
        for name in ISSUERS:
            nursery.start(name)
        yield Chaos(server, ca, nursery)
        at_ca.kill()


@contextmanager
def _process(module: str, *arguments: str, log: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", module, *arguments]
    with log.open("w") as sink:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink, text=True
        )
    try:
        yield process
    finally:
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()


# What gateways and validators append


async def _feed(chaos: Chaos, context: JetStreamContext) -> None:
    """Append requests that devices signed, and their approvals, as fast as there are outcomes."""
    kinds = [kind for kind in KINDS for _ in range(ORDERS)]
    rng = random.Random(SEED)
    rng.shuffle(kinds)
    lives = [rng.uniform(1, 6) if rng.random() < _EXPIRING else 86400 for _ in kinds]
    config = ConsumerConfig(ack_policy=AckPolicy.NONE, deliver_policy=DeliverPolicy.ALL)
    outcomes = await context.pull_subscribe(_OUTCOMES, stream=ENROLL, config=config)
    devices = [identity(f"device {number}", 4711 + number) for number in range(4)]
    gateway = await chaos.server.connect(Role.GATEWAY)
    validator = await chaos.server.connect(Role.VALIDATOR)

    def approval(number: int) -> EnrollmentApproved:
        return _approved(chaos.ca, kinds[number], lives[number])

    appended = ended = 0
    while ended < len(kinds):
        fresh = range(appended, min(len(kinds), ended + _AT_ONCE))
        appended = max(appended, fresh.stop)
        await asyncio.gather(
            *(
                _append(gateway, validator, _requested(devices[n % 4], n), approval(n))
                for n in fresh
            )
        )
        with contextlib.suppress(TimeoutError):
            ended += len(await outcomes.fetch(_AT_ONCE, timeout=0.2))
    await gateway.close()
    await validator.close()


async def _append(
    gateway: JetStreamBus,
    validator: JetStreamBus,
    requested: tuple[EnrollmentId, EnrollmentRequested],
    event: EnrollmentApproved,
) -> None:
    """A request, then its approval."""
    enrollment, request = requested
    message = encode(request)
    await gateway.append(enrollment.subject(Stage.REQUEST), message)
    subject = enrollment.subject(Stage.VERDICT)
    digest = hashlib.sha256(message.payload).hexdigest()
    event = msgspec.structs.replace(event, request_sha256=digest)
    await validator.append(subject, sign(event, subject, VALIDATOR))


def _requested(device: Identity, number: int) -> tuple[EnrollmentId, EnrollmentRequested]:
    transaction_id, content = f"order {number}", b"an envelope"
    attributes = [
        *scep_attributes(transaction_id=tlv(PRINTABLE, transaction_id.encode())),
        *cms_attributes(content),
    ]
    transaction = transaction_token(PROFILE, transaction_id.encode(), spki(device.key.public_key()))
    event = EnrollmentRequested(
        pki_message=signed(content, device, attributes),
        content_key=REQUESTED.content_key,
        sealing_key=REQUESTED.sealing_key,
        transaction_id=transaction_id,
        message_type=19,
        signer_sha256=REQUESTED.signer_sha256,
        client_address="192.0.2.1",
        gateway=GATEWAY,
        reply_budget_ms=1000,
    )
    return EnrollmentId("0", PROFILE, transaction, f"csr{number}", 0), event


def _approved(ca: bytes, kind: str, life: float) -> EnrollmentApproved:
    """The approval of a new key; it is valid for so many seconds."""
    now = int(time.time())
    wanted = template(
        x509.load_der_x509_certificate(ca),
        issuer=kind,
        spki=spki(ec.generate_private_key(ec.SECP256R1()).public_key()),
        not_before=now - 600,
        not_after=now + 30 * 86400,
        extensions=(KEY_USAGE, EKU, SAN),
    )
    return approved(wanted, valid_until=now + int(life))


def _say(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Past pytest's capture: a seed that nobody sees is worth nothing."""
    with capsys.disabled():
        sys.stdout.write(f"{text}\n")
