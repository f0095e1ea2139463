"""pyscep, a Python library that signs with an identity of its own, as macOS does.

Like scepreq, which was made from it, it finds only RA certificates with one usage each.
"""

from pathlib import Path

import pytest

from tests.interop.clients import ended, new_name, run
from tests.interop.environments import HERE, Environment
from tests.interop.lab import SPLIT, Side
from tests.interop.verify import check_enrolled

split = pytest.mark.parametrize("side", [SPLIT], indirect=True)
ISSUED, REFUSED = 0, 3


@pytest.fixture(scope="session")
def python() -> Path:
    return Environment("pyscep").python()


@split
@pytest.mark.parametrize("signer", ["own", "strange"])
def test_it_enrolls_whoever_signs(side: Side, python: Path, tmp_path: Path, signer: str) -> None:
    name = new_name("pyscep")
    arguments = [side.url(), side.challenge(), name, signer]
    ended(run([python, HERE / "pyscep_driver.py", *arguments], tmp_path), ISSUED)

    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    check_enrolled(side.system, side.profile(), files, f"CN={name}")


@split
def test_a_wrong_challenge_is_a_refusal_that_it_reads(
    side: Side, python: Path, tmp_path: Path
) -> None:
    arguments = [side.url(), "wrong", new_name("pyscep"), "strange"]
    ended(run([python, HERE / "pyscep_driver.py", *arguments], tmp_path), REFUSED)
