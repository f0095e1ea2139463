"""pyscep, a Python library that signs with an identity of its own, as macOS does.

Like scepreq, which was made from it, it finds only RA certificates with one usage each.
"""

from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from shared.log.enrollment import State
from shared.log.reasons import Reason
from tests.interop.clients import ended, new_name, run
from tests.interop.environments import HERE, Environment
from tests.interop.lab import BOTH, SPLIT, Side
from tests.interop.verify import check_enrolled, record

split = pytest.mark.parametrize("side", [SPLIT], indirect=True)
ISSUED, REFUSED = 0, 3
SERVER_AUTH, CLIENT_AUTH = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


@pytest.fixture(scope="session")
def python() -> Path:
    return Environment("pyscep").python()


@split
@pytest.mark.parametrize("signer", ["own", "strange"])
def test_it_enrolls_whoever_signs(side: Side, python: Path, tmp_path: Path, signer: str) -> None:
    """Its requests ask for serverAuth and clientAuth, whatever its caller wants."""
    name = new_name("pyscep")
    arguments = [side.system.url(BOTH), side.system.challenge(BOTH), name, signer]
    ended(run([python, HERE / "pyscep_driver.py", *arguments], tmp_path), ISSUED)

    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    check_enrolled(side.system, BOTH, files, f"CN={name}", usages=(SERVER_AUTH, CLIENT_AUTH))


@split
def test_a_profile_without_serverauth_refuses_what_it_asks_for(
    side: Side, python: Path, tmp_path: Path
) -> None:
    name = new_name("pyscep")
    arguments = [side.url(), side.challenge(), name, "own"]
    ended(run([python, HERE / "pyscep_driver.py", *arguments], tmp_path), REFUSED)

    assert record(side.system, name, State.REJECTED).result == Reason.USAGE_NOT_ALLOWED


@split
def test_a_wrong_challenge_is_a_refusal_that_it_reads(
    side: Side, python: Path, tmp_path: Path
) -> None:
    arguments = [side.url(), "wrong", new_name("pyscep"), "strange"]
    ended(run([python, HERE / "pyscep_driver.py", *arguments], tmp_path), REFUSED)
