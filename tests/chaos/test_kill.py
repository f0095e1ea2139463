"""kill -9 of every process, again and again, under load: nothing is lost and nothing doubled.

TEST_CHAOS_SECONDS and TEST_CHAOS_SEED say for how long and in which order.
"""

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from benchmarks.enrollments import key_pool
from benchmarks.figures import Answer
from services.audit.store.engine import open_engine
from services.audit.store.tables import events
from shared.log.streams import DEAD_LETTERS
from tests.chaos.clients import REFUSED, Load, ask, authorities, new_load
from tests.chaos.killer import KINDS, Killer
from tests.chaos.ledger import Ledger, read_ledger, unlike_rows
from tests.support.rows import checksums
from tests.support.system import System, running, wait_until

SECONDS = float(os.environ.get("TEST_CHAOS_SECONDS", "45"))
SEED = int(os.environ.get("TEST_CHAOS_SEED") or random.SystemRandom().randrange(1_000_000))
REPLICAS = ("--gateways", "2", "--validators", "2", "--issuers", "2")
CLIENTS = 8
KEYS = 16
ASKED_AGAIN = 20
ENROLLMENTS = 2000  # at least so many are replayed
SETTLE_SECONDS = 60.0


def test_whatever_is_killed_every_enrollment_ends_once_and_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _say(capsys, f"\nchaos for {SECONDS:.0f} s, TEST_CHAOS_SEED={SEED}")
    with running(tmp_path / "data", *REPLICAS) as system:
        supervisor = system.run["pids"]["supervisor"]
        trusted = authorities(system.url())
        load = new_load(system, "not-the-challenge", key_pool(KEYS))
        killer = Killer(system, random.Random(SEED), min(4.0, SECONDS / 20))

        asyncio.run(_chaos(load, killer))
        _say(capsys, _summary(load, killer))

        assert system.process.poll() is None
        assert system.run["pids"]["supervisor"] == supervisor
        assert all(killer.kills[kind] >= 2 for kind in KINDS), killer.kills
        answers = _check_answers(load, trusted)
        ledger = _settled(system.data)
        _check_log(ledger, system.data, answers)
        assert unlike_rows(ledger, system.data / "audit.db") == []
        _check_again(system, load, answers)
        _check_proof(system, tmp_path)


async def _chaos(load: Load, killer: Killer) -> None:
    """Load and kills side by side; what was asked before the end is answered after it."""
    until = time.monotonic() + SECONDS
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run(CLIENTS, SEED, until, ENROLLMENTS))
        group.create_task(killer.run(until))


def _check_answers(load: Load, trusted: list[x509.Certificate]) -> tuple[Answer, ...]:
    """A certificate of its own key for the right challenge, badMessageCheck for the wrong one."""
    right = load.answers(trusted, right=True)
    wrong = load.answers(trusted, right=False)
    assert right
    assert wrong
    assert [(a.transaction_id, a.failure) for a in right if a.failure] == []
    assert [(a.transaction_id, a.failure) for a in wrong if a.failure != REFUSED] == []
    return right


def _check_log(ledger: Ledger, data: Path, answers: Sequence[Answer]) -> None:
    assert ledger.repeated_subjects() == []
    assert ledger.broken_attempts(data) == []
    assert ledger.second_certificates() == []
    assert ledger.wrong_answers(answers) == []
    assert ledger.unlike_records() == []
    assert ledger.streams[DEAD_LETTERS] == []


def _check_again(system: System, load: Load, answers: Sequence[Answer]) -> None:
    """The same bytes once more, to whichever gateway: the same certificate."""
    given = {answer.transaction_id: answer.certificate for answer in answers}
    urls = [f"{url}/demo" for url in system.run["urls"]]
    again = [each.request for each in load.asked if each.right][:: len(answers) // ASKED_AGAIN or 1]
    for number, request in enumerate(again):
        found = ask(urls[number % len(urls)], request)
        assert found.public_bytes(Encoding.DER) == given[request.transaction_id]


def _settled(data: Path) -> Ledger:
    """The log once the database has all of it: an auditor that started late still signs it."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        ledger = asyncio.run(read_ledger(data))
        if not unlike_rows(ledger, data / "audit.db", 5.0) or time.monotonic() > deadline:
            return ledger


def _check_proof(system: System, folder: Path) -> None:
    """The log holds, the model is what the log tells, and a replay makes the very same rows."""
    config = ("--config", str(system.config))
    verified = system.cli("audit", "verify", *config)
    assert verified.returncode == 0, verified.stdout
    into = f"sqlite:///{folder}/replayed.db"
    assert 0 < _killed_half_way(into, config) < _events(f"sqlite:///{system.data}/audit.db")
    replayed = system.cli("audit", "replay", "--into", into, *config)
    assert replayed.returncode == 0, replayed.stderr
    assert checksums(into) == checksums(f"sqlite:///{system.data}/audit.db")


def _killed_half_way(into: str, config: Sequence[str]) -> int:
    """Kill -9 of a replay; how many events it had written."""
    command = [sys.executable, "-m", "cli", "audit", "replay", "--into", into, *config]
    process = subprocess.Popen(command)
    try:
        wait_until(lambda: _events(into) > ENROLLMENTS, 60, "half a replay")
    finally:
        process.kill()
        process.wait()
    return _events(into)


def _events(url: str) -> int:
    """How many events a database has, 0 before it has tables."""
    engine = open_engine(url)
    try:
        with engine.connect() as connection:
            return int(connection.execute(select(func.count()).select_from(events)).scalar_one())
    except OperationalError:
        return 0
    finally:
        engine.dispose()


def _summary(load: Load, killer: Killer) -> str:
    """What happened, in a few lines."""
    wrong = sum(not each.right for each in load.asked)
    retried = sum(each.shot.attempts > 1 for each in load.asked)
    slowest = sorted(each.shot.seconds for each in load.asked)
    kills = ", ".join(f"{kind} {killer.kills[kind]}" for kind in KINDS)
    return (
        f"kills: {kills}, in all {killer.kills.total()}\n"
        f"       {'; '.join(killer.story)}\n"
        f"requests: {len(load.asked)}, {wrong} of them with a wrong challenge; "
        f"{retried} sent more than once\n"
        f"retries: {load.retries.total()} {dict(load.retries)}, PENDING {load.retries['PENDING']}\n"
        f"time to answer: median {slowest[len(slowest) // 2]:.2f} s, longest {slowest[-1]:.2f} s"
    )


def _say(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Past pytest's capture: a seed that nobody sees is worth nothing."""
    with capsys.disabled():
        sys.stdout.write(f"{text}\n")
