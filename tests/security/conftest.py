"""One system under siege for all attacks; an attack that succeeds has its own taken away."""

import contextlib
import resource
import socketserver
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

import pytest

from cli.toml import set_keys
from cli.up.layout import Layout, write_private
from tests.security.honest import Fleet, make_challenges
from tests.security.siege import Siege
from tests.support.prepared import add_profiles, prepared
from tests.support.system import start

REPLICAS: Final = ("--gateways", "2", "--validators", "2")
SLOW_SECONDS: Final = 6.0
_CHALLENGES: Final = 160
_FAILED: Final = pytest.StashKey[bool]()


class SlowWebhook(socketserver.BaseRequestHandler):
    """An operators' service that lets everybody wait, and then says nothing."""

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self.request.recv(1 << 16)
            time.sleep(SLOW_SECONDS)


class Server(socketserver.ThreadingTCPServer):
    """Threads that nobody waits for."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256


def besieged(folder: Path, webhook: int) -> Siege:
    """A system of several replicas, its honest devices at work."""
    layout = prepared(folder / "data")
    add_profiles(layout, {"anytime": {"renewal_window": "0s"}})
    _add_slow_profile(layout, webhook)
    with few_descriptors():
        system = start(layout.root, *REPLICAS)
    siege = Siege(system, Fleet(system, make_challenges(system, _CHALLENGES)))
    siege.fleet.start()
    siege.settle()
    return siege


@contextlib.contextmanager
def few_descriptors() -> Iterator[None]:
    """What is started here begins with as many as a shell of most systems has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1024), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _add_slow_profile(layout: Layout, port: int) -> None:
    """A profile whose devices are judged by the slow webhook and by nobody else."""
    add_profiles(layout, {"slow": {"webhook_url": f"http://127.0.0.1:{port}/"}})
    changed = set_keys(layout.config.read_text(), "profiles.slow", {"challenge_password": None})
    write_private(layout.config, changed.encode())


class Sieges:
    """The system of now; a new one once that has fallen."""

    def __init__(self, factory: pytest.TempPathFactory, webhook: int) -> None:
        self._factory, self._webhook = factory, webhook
        self._now: Siege | None = None

    def now(self) -> Siege:
        if self._now is None:
            self._now = besieged(self._factory.mktemp("siege"), self._webhook)
        return self._now

    def drop(self) -> None:
        """Stop it: what a fallen system says proves nothing of the next attack."""
        if self._now is not None:
            self._now.fleet.stop()
            self._now.system.stop()
            self._now = None


@pytest.fixture(scope="session")
def sieges(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sieges]:
    with Server(("127.0.0.1", 0), SlowWebhook) as webhook:
        threading.Thread(target=webhook.serve_forever, daemon=True).start()
        found = Sieges(tmp_path_factory, webhook.server_address[1])
        yield found
        found.drop()
        webhook.shutdown()


@pytest.fixture
def siege(sieges: Sieges, request: pytest.FixtureRequest) -> Iterator[Siege]:
    yield sieges.now()
    if request.node.stash.get(_FAILED, False):
        sieges.drop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember who failed, for its fixture."""
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


@pytest.fixture(scope="session", autouse=True)
def _descriptors() -> None:
    """Attackers hold more connections than a shell's usual limit allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
