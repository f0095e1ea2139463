"""Fixtures of all suites: a running system, and tools that a machine may lack."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import System, running
from tests.tools import LEFT_OUT


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One `scepstream up` for all tests that only use it."""
    with running(tmp_path_factory.mktemp("system") / "data") as found:
        yield found


@pytest.fixture
def tmp_home(tmp_path: Path) -> Path:
    """A home directory of the test's own."""
    home = tmp_path / "home"
    home.mkdir()
    return home


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what this machine could not test."""
    for left_out in sorted(LEFT_OUT):
        terminalreporter.write_line(f"LEFT OUT for want of {left_out}", yellow=True)
