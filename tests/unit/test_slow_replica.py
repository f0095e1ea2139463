"""What is refused because nothing is there holds when the replica that answers reads is behind."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent / "services"


@pytest.mark.parametrize(
    "tests",
    [
        ("audit/record/test_consumer.py", "audit/record/test_catch_up.py"),
        ("gateway/test_lookups.py", "gateway/test_crls.py"),
        ("issuer/test_consumer.py", "issuer/test_orders.py", "issuer/test_crl_keeper.py"),
        ("validator/challenges/test_one_time.py", "validator/challenges/test_notify.py"),
        ("validator/test_consumer.py", "validator/test_renewals.py", "validator/test_holds.py"),
    ],
)
def test_who_looks_things_up_decides_the_same_on_a_slow_replica(tests: tuple[str, ...]) -> None:
    """The same tests once more: direct reads never show the newest message of a stream."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.fakes.slow_replica"]
    command += ["-p", "no:cacheprovider", *(str(HERE / each) for each in tests)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, cwd=HERE.parents[2]
    )
    assert done.returncode == 0, done.stdout
