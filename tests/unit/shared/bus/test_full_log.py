"""A log on a full disk loses lines, and nothing else goes wrong for it."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
from shared.observe.logs import configure_logging, log_failure
import structlog
configure_logging("gateway", "gateway-0")
for number in range(2000):
    try:
        raise ValueError("x" * number)
    except ValueError as error:
        log_failure("message_failed", error)
        structlog.get_logger().info("something", text="y" * number)
print("went on")
"""


def test_a_line_that_cannot_be_written_raises_nothing() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            stdout=subprocess.PIPE, stderr=full, text=True, check=False, timeout=60,
        )  # fmt: skip

    assert done.stdout == "went on\n"


def test_lines_are_written_where_they_can_be() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=60
    )

    assert done.stderr.count('"event": "message_failed"') == 2000
    assert done.returncode == 0
