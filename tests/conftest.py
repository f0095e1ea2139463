"""Fixtures of all suites: a running system, and tools that a machine may lack."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.support.system import System, running
from tests.support.tools import LEFT_OUT

# Configurations of tests hold challenges: what tests write is theirs alone.
os.umask(0o077)


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One `scepstream up` for all tests that only use it."""
    with running(tmp_path_factory.mktemp("system") / "data") as found:
        yield found


@pytest.fixture(autouse=True)
def default_logs() -> Iterator[None]:
    """Each test begins with the defaults: an operator's command silences its process."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def tmp_home(tmp_path: Path) -> Path:
    """A home directory of the test's own."""
    home = tmp_path / "home"
    home.mkdir()
    return home


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The browser comes last, however tests are shuffled: its event loop runs all along."""
    items.sort(key=lambda item: "browser" in item.path.parts)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what this machine could not test."""
    reasons = {str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", [])}
    for reason in sorted(reasons):
        if LEFT_OUT in reason:
            terminalreporter.write_line(reason.removeprefix("Skipped: ").upper(), yellow=True)
