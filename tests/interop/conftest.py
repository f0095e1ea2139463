"""Real clients against a running system."""

from collections.abc import Iterator

import pytest

from tests.interop.lab import Side, laboratory
from tests.interop.matrix import FORMS, NAME, Recorder
from tests.support.system import System


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "matrix(client, operation): stands for a cell of the matrix")
    config.pluginmanager.register(Recorder(), NAME)


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One system for all clients; `demo` and `legacy` are among its profiles."""
    with laboratory(tmp_path_factory.mktemp("laboratory") / "data") as found:
        yield found


@pytest.fixture(params=FORMS)
def side(system: System, request: pytest.FixtureRequest) -> Side:
    """The endpoints with split RA certificates, then those with a combined one."""
    return Side(system, request.param)
