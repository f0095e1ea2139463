"""A log full of what nobody should have written: it starts, records, proves and replays.

TEST_PLANTS says how many are planted with each role's key, TEST_PLANTS_SEED which ones. By hand:

    make plants N=20000
"""

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.scep.certrep import PkiStatus
from tests.security.honest import Fleet
from tests.security.plants import Planter
from tests.security.siege import Siege, assert_proof_holds
from tests.security.test_plants import WRITERS, plant
from tests.support.postgres import emptied, postgres_server
from tests.support.prepared import command, configure, prepared
from tests.support.requests import Device, Endpoint, ask, certificate, recorded
from tests.support.rows import checksums
from tests.support.system import System, running, wait_until

PLANTS = int(os.environ.get("TEST_PLANTS", "60"))
SEED = int(os.environ.get("TEST_PLANTS_SEED") or random.SystemRandom().randrange(1_000_000))
DATABASES = ["sqlite", "postgresql"] if PLANTS > 100 else ["postgresql"]
_SECONDS = 60 + PLANTS / 20


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.mark.parametrize("database", DATABASES)
def test_a_log_full_of_plants_starts_records_proves_and_replays(
    tmp_path: Path, postgres: str, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        sys.stdout.write(f"\n{PLANTS} plants a role, TEST_PLANTS_SEED={SEED}\n")
    layout = prepared(tmp_path / "data")
    live = f"sqlite:///{layout.root}/audit.db"
    if database == "postgresql":
        live = emptied(postgres)
        configure(layout.config, "audit", database_url=live)
    with running(layout.root) as system:
        _enroll(system)
        siege = Siege(system, Fleet(system, []))
        for role in WRITERS:
            plant(siege, role, Planter(role, SEED).any(PLANTS))
        _enroll(system)
    with running(layout.root) as system:
        _enroll(system)
        assert_proof_holds(system, set())
        into = f"sqlite:///{tmp_path}/replayed.db"
        wait_until(lambda: _replayed(system, into) == checksums(live), _SECONDS, "the same rows")


def _replayed(system: System, into: str) -> dict[str, str]:
    """The rows of a replay, which goes on where it was: workers still give up on plants."""
    done = command("audit", "replay", "--into", into, "--config", str(system.config))
    assert done.returncode == 0, done.stderr
    return checksums(into)


def _enroll(system: System) -> None:
    """Enroll somebody honest, who asks again when told PENDING, and wait for the record.

    Some plants (seed 982787) end the validator's pull without a word: it is silent until the
    watchdog starts another after six seconds, and the first answer is PENDING.
    """
    endpoint, device = Endpoint.of(system), Device.new()
    request = device.enrollment(endpoint)
    reply = ask(endpoint, request)
    for _ in range(5):
        if reply.status is PkiStatus.PENDING:
            reply = ask(endpoint, request)
    certificate(endpoint, device, reply)
    recorded(system, device, "issued")
