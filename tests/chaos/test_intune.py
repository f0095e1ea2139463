"""kill -9 between validate, issue, notify and reply; the journal of Microsoft's fake judges.

What holds, whatever is killed and whatever Microsoft's side does:

* Each device gets an end: its certificate or a failure.
* Of each certificate that a device got, Intune was notified under one transaction, and got to
  answer once that it accepted it. (An answer that is lost on its way is asked for again.)
* A certificate that was made and not given out is revoked, in the record and on the CRL, whether
  Intune had accepted it or not.

TEST_CHAOS_SECONDS and TEST_CHAOS_SEED say for how long and in which order.
"""

import asyncio
import itertools
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from sqlalchemy import select

from cli.fake_microsoft.fake import FakeMicrosoft
from cli.fake_microsoft.judge import discrepancies, thumbprint
from cli.fake_microsoft.model import Entry
from services.audit.settings import database_url
from services.audit.store.engine import open_engine
from services.audit.store.tables import certificates
from shared.config.load import load as load_configuration
from shared.log.catalog import NOTICE
from shared.log.envelope import decode
from shared.log.events.base import EventPayload
from shared.log.events.enrollment import (
    CertificateConfirmed,
    CertificateIssued,
    ConfirmationFailed,
)
from shared.log.events.state import NoticeBegun
from shared.log.stages import Stage
from shared.log.streams import DEAD_LETTERS, REPLAYS
from shared.scep.certrep import CertRep, PkiStatus
from tests.chaos.killer import Killer, pids
from tests.chaos.ledger import ENROLL, Ledger, log_account, read_ledger
from tests.support import messages as m
from tests.support.prepared import add_profiles, configure, prepared
from tests.support.requests import Device, Endpoint, Request, answer, issued, send
from tests.support.system import System, running, wait_until

SECONDS = min(float(os.environ.get("TEST_CHAOS_SECONDS", "6")), 300.0)
SEED = int(os.environ.get("TEST_CHAOS_SEED") or random.SystemRandom().randrange(1_000_000))
REPLICAS = ("--gateways", "2", "--validators", "2")
PROFILE, TENANT = "windows", "contoso"
BUDGET = 4  # seconds of a call, after which another validator decides
DEVICES = 6  # at once
KEYS = 4
END_SECONDS = 90.0
SETTLE_SECONDS = 60.0
KINDS = ("gateway", "validator", "issuer", *(["nats"] if SECONDS > 30 else []))
# Of Microsoft's side: the request is not carried out, or its answer is lost, late or useless.
FAULTS = ("reset", "status", "lost", "delay", "truncated")
SPOILED = ("lost", "truncated")
REFUSAL = "ChallengeExpired"


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeMicrosoft]:
    with FakeMicrosoft(tmp_path_factory.mktemp("microsoft")) as found:
        yield found


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, fake: FakeMicrosoft) -> Iterator[System]:
    layout = prepared(tmp_path_factory.mktemp("intune") / "data", "ec:p256")
    keys = {"challenge_password": [], "reply_budget": "20s", "intune_connection": TENANT}
    add_profiles(layout, {PROFILE: keys})
    layout.config.write_text(layout.config.read_text() + fake.configuration())
    configure(layout.config, f"intune.{TENANT}", budget=f"{BUDGET}s")
    with running(layout.root, *REPLICAS) as found:
        yield found


@pytest.fixture(scope="module")
def devices(system: System, fake: FakeMicrosoft) -> "Devices":
    return Devices(system, fake, Endpoint.of(system, "demo"))


@dataclass
class Ended:
    """A device and what it got in the end: a certificate, or None for a failure."""

    device: Device
    certificate: x509.Certificate | None
    asked: int

    @property
    def transaction(self) -> str:
        return self.device.transaction.decode()


@dataclass
class Devices:
    """Devices with a challenge of their own; each sends its request until it gets an end."""

    system: System
    fake: FakeMicrosoft
    ra: Endpoint
    keys: list[m.Identity] = field(
        default_factory=lambda: [Device.new().identity for _ in range(KEYS)]
    )
    ended: list[Ended] = field(default_factory=list)

    def enroll(self, seed: str) -> Ended:
        """One enrollment, at whichever gateway is there."""
        rng = random.Random(seed)
        device = Device(rng.choice(self.keys))
        challenge = self.fake.mint(TENANT, subject=f"CN={device.name}")
        request = device.enrollment(self.ra, device.csr(challenge))
        deadline, asked = time.monotonic() + END_SECONDS, 0
        while True:
            assert time.monotonic() < deadline, f"{device.name} got no end"
            endpoint = Endpoint(
                f"{rng.choice(self.system.run['urls'])}/{PROFILE}", "", self.ra.certificates
            )
            asked += 1
            reply = self._asked(endpoint, request)
            if reply is not None and reply.status is not PkiStatus.PENDING:
                break
            time.sleep(rng.uniform(0.1, 0.5))
        got = issued(device, reply) if reply.status is PkiStatus.SUCCESS else None
        ended = Ended(device, got, asked)
        self.ended.append(ended)
        return ended

    def _asked(self, endpoint: Endpoint, request: Request) -> CertRep | None:
        """The reply, None if there is none now."""
        try:
            response = endpoint.post(request.body)
        except (httpx.HTTPError, OSError):
            return None
        if response.status_code >= 500:
            return None
        return answer(endpoint, request, response)


# Killed at a chosen moment


def during(
    devices: Devices, route: str, act: Callable[[], object], name: str, seconds: float = 3.0
) -> Ended:
    """What a device gets if something happens while Intune, which has decided, still answers."""
    fake = devices.fake
    before = len(fake.journal(route))
    fake.fault(route, "delay", seconds=seconds)
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(devices.enroll, name)
        wait_until(lambda: len(fake.journal(route)) > before, 60, f"a call of {route}")
        act()
        return found.result(END_SECONDS)


def accepted(fake: FakeMicrosoft, transaction: str) -> list[Entry]:
    """Intune's entries about certificates of a transaction that it accepted."""
    found = fake.journal("success", tenant=TENANT)
    return [e for e in found if e.transaction_id == transaction and e.code == "Success"]


def test_a_validator_that_dies_while_it_notifies_intune_costs_the_certificate(
    devices: Devices,
) -> None:
    ended = during(devices, "success", lambda: devices.system.kill("validator"), "notify")

    assert ended.certificate is None
    assert len(accepted(devices.fake, ended.transaction)) == 1


def test_all_services_may_die_between_validation_and_notification(devices: Devices) -> None:
    """The validators while Intune validates, issuers and gateways once there is a verdict."""
    system = devices.system
    before = asyncio.run(verdicts(system.data))

    def kill_all() -> None:
        for pid in system.run["pids"]["issuer"]:
            os.kill(pid, signal.SIGSTOP)
        system.kill("validator")
        wait_until(lambda: asyncio.run(verdicts(system.data)) > before, 60, "a verdict")
        system.kill("gateway")
        system.kill("issuer")

    ended = during(devices, "validate", kill_all, "all")

    assert ended.asked > 1
    assert ended.certificate is not None
    assert len(accepted(devices.fake, ended.transaction)) == 1


def test_a_validator_that_stops_in_its_call_and_continues_changes_nothing(
    devices: Devices,
) -> None:
    """The message is redelivered to the other one, which decides after the longest call."""
    stopped: list[int] = []

    def stop() -> None:
        begun = asyncio.run(newest(devices.system.data, NOTICE.wildcard(), REPLAYS))
        assert isinstance(begun, NoticeBegun)
        stopped.append(pids(devices.system.run)["validator", int(begun.replica[-1])])
        os.kill(stopped[0], signal.SIGSTOP)

    try:
        ended = during(devices, "success", stop, "stop", 2.0)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)

    assert ended.certificate is None
    assert len(accepted(devices.fake, ended.transaction)) == 1


async def newest(data: Path, subject: str, stream: str) -> EventPayload:
    """The newest event under a subject."""
    async with log_account(data) as context:
        found = await context.get_last_msg(stream, subject)
    assert found.data is not None
    return decode(found.data, dict(found.headers or {}))


async def verdicts(data: Path) -> int:
    """How many verdicts are on the log."""
    async with log_account(data) as context:
        found = await context.stream_info(ENROLL, subjects_filter="enroll.>")
    return sum(each.endswith(f".{Stage.VERDICT}") for each in found.state.subjects or {})


# Killed at random moments


def test_whatever_is_killed_intune_knows_exactly_the_certificates_that_devices_have(
    devices: Devices, capsys: pytest.CaptureFixture[str]
) -> None:
    system, rng = devices.system, random.Random(SEED)
    say(capsys, f"\nintune chaos for {SECONDS:.0f} s, TEST_CHAOS_SEED={SEED}")
    killer = Killer(system, random.Random(SEED), min(4.0, SECONDS / 10), KINDS)
    until = time.monotonic() + SECONDS
    with ThreadPoolExecutor(DEVICES + 1) as pool:
        running_ = [pool.submit(load, devices, until, number) for number in range(DEVICES)]
        faults = pool.submit(spoil, devices.fake, rng, until)
        asyncio.run(killer.run(until))
        faults.result()
        for each in running_:
            each.result()
    devices.fake.clear_faults()

    assert killer.kills.total() >= 3, killer.story
    ledger = settled(system, devices)
    counts = judge(ledger, devices)
    say(capsys, f"kills: {dict(killer.kills)}\nends: {dict(counts)}")
    verified = system.cli("audit", "verify", "--config", str(system.config))
    assert verified.returncode == 0, verified.stdout


def load(devices: Devices, until: float, number: int) -> None:
    """Devices of one client, one after another."""
    for turn in itertools.count():
        if time.monotonic() > until:
            return
        devices.enroll(f"{SEED} {number} {turn}")


def spoil(fake: FakeMicrosoft, rng: random.Random, until: float) -> None:
    """Faults of Microsoft's side, and certificates that it does not accept."""
    while time.monotonic() < until:
        kind = rng.choice(FAULTS)
        options = {"seconds": rng.uniform(0.1, 1.5)} if kind == "delay" else {}
        fake.fault(rng.choice(("validate", "success")), kind, **options)
        if rng.random() < 0.2:
            fake.answer("success", REFUSAL, "Success")
        time.sleep(rng.uniform(0.1, 0.6))


def settled(system: System, devices: Devices) -> Ledger:
    """The log, once each attempt has ended and what is to be revoked is."""

    def found() -> Ledger | None:
        ledger = asyncio.run(read_ledger(system.data))
        if ledger.broken_attempts(system.data):
            return None
        missing = withheld(ledger, devices) - revoked(system)
        return None if missing else ledger

    try:
        return wait_until(found, SETTLE_SECONDS, "an end of everything")
    except AssertionError:
        ledger = asyncio.run(read_ledger(system.data))
        assert ledger.broken_attempts(system.data) == []
        assert withheld(ledger, devices) - revoked(system) == set()
        return ledger


def withheld(ledger: Ledger, devices: Devices) -> set[int]:
    """The serial numbers of certificates that were made and that no device got."""
    made = {int(c.serial, 16) for a in ledger.attempts for c in a.certificates}
    return made - {e.certificate.serial_number for e in devices.ended if e.certificate}


def revoked(system: System) -> set[int]:
    """The serial numbers that record and CRL both have as revoked."""
    engine = open_engine(database_url(load_configuration(system.config)))
    try:
        with engine.connect() as connection:
            query = select(certificates.c.serial).where(certificates.c.revoked_at > 0)
            recorded = {int(serial, 16) for serial in connection.execute(query).scalars()}
    finally:
        engine.dispose()
    url = f"{system.run['urls'][0].removesuffix('/scep')}/crl/local.crl"
    listed = x509.load_der_x509_crl(send("GET", url).content)
    return recorded & {each.serial_number for each in listed}


def judge(ledger: Ledger, devices: Devices) -> Counter[str]:
    """Compare devices, the log and the journal of Intune; count the ends by kind."""
    assert ledger.repeated_subjects() == []
    assert ledger.second_certificates() == []
    assert ledger.streams[DEAD_LETTERS] == []
    by_transaction = {a.transaction_id: a for a in ledger.attempts}
    counts: Counter[str] = Counter()
    for ended in devices.ended:
        last = by_transaction[ended.transaction].events[-1]
        counts[end_of(devices.fake, ended, last)] += 1
    known = {e.transaction for e in devices.ended}
    told = {e.transaction_id for e in devices.fake.journal("success") if e.code == "Success"}
    assert told <= known
    return counts


def end_of(fake: FakeMicrosoft, ended: Ended, last: EventPayload) -> str:
    """How an enrollment ended; Intune, the log and the device agree about it."""
    told = accepted(fake, ended.transaction)
    heard = [e for e in told if e.fault not in SPOILED]
    assert len({e.thumbprint for e in told}) <= 1
    assert len(heard) <= 1, heard
    if ended.certificate is not None:
        assert isinstance(last, CertificateConfirmed)
        assert [e.thumbprint.lower() for e in heard] == [thumbprint(ended.certificate)]
        notified = [n for n in fake.notifications if n.transaction == ended.transaction]
        assert discrepancies(notified[-1], ended.certificate) == []
        return "certificate"
    assert not isinstance(last, CertificateConfirmed | CertificateIssued), last
    if isinstance(last, ConfirmationFailed):
        assert last.withdrawn
        return "accepted, not given out" if told else "not accepted"
    return type(last).__name__


def say(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Past pytest's capture: a seed that nobody sees is worth nothing."""
    with capsys.disabled():
        sys.stdout.write(f"{text}\n")
