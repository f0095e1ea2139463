"""`scepstream up` as a supervisor: what ends with it, what it brings back, what it refuses."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from benchmarks import parties
from benchmarks.discover import recipient
from benchmarks.enrollments import Enrollment, Recipe, enrollment
from tests.chaos.clients import ask, authorities
from tests.chaos.killer import KINDS, Victim, alive, pids, wait_restarted
from tests.support.system import System, running, scepstream, start, wait_until

TWO = ("--gateways", "2")
TRACEBACK = "Traceback"


@pytest.fixture(scope="module")
def supervised(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system whose processes may be killed, but not it."""
    with running(tmp_path_factory.mktemp("supervised") / "data", *TWO) as system:
        yield system


def request(system: System) -> Enrollment:
    recipe = Recipe(recipient(authorities(system.url())), system.challenge())
    return enrollment(recipe, 0, parties.new_key())


def fingerprint(system: System) -> bytes:
    ca = x509.load_pem_x509_certificates(system.ca_file.read_bytes())[0]
    return ca.fingerprint(hashes.SHA256())


def addresses(run: dict[str, Any]) -> dict[str, Any]:
    """What clients and scrapers know of a system."""
    return {key: run[key] for key in ("urls", "admin_url", "admin_token", "profiles", "ca_file")}


def wait_gone(children: dict[Victim, int]) -> None:
    def gone() -> bool:
        return not any(alive(pid) for pid in children.values())

    wait_until(gone, 30, f"end of {children}")


def kill_all_at_once(system: System) -> None:
    """SIGKILL to the supervisor alone."""
    children = pids(system.run)
    assert len(children) == len(KINDS) + 1
    assert all(alive(pid) for pid in children.values())
    system.process.kill()
    system.process.wait()
    wait_gone(children)


def test_a_killed_supervisor_takes_its_children_along_and_a_second_start_goes_on(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    system = start(data, *TWO)
    try:
        before, ca, asked = system.run, fingerprint(system), request(system)
        issued = ask(system.url(), asked)
        kill_all_at_once(system)
    finally:
        system.process.kill()
        system.process.wait()

    with running(data, *TWO) as again:
        assert addresses(again.run) == addresses(before)
        assert fingerprint(again) == ca
        for url in again.run["urls"]:
            assert ask(f"{url}/demo", asked) == issued
        assert ask(again.url(), request(again)) != issued


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_at_a_signal_with_all_its_children(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path / "data", *TWO) as system:
        children = pids(system.run)
        system.process.send_signal(number)

        assert system.process.wait(60) == 0
        assert not any(alive(pid) for pid in children.values())
        assert not (system.data / "run.json").exists()
    assert TRACEBACK not in (tmp_path / "data.out").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_child_comes_back_at_the_same_place(supervised: System, kind: str) -> None:
    before = supervised.run
    killed = pids(before)[kind, 0]
    os.kill(killed, signal.SIGKILL)

    restarted = wait_restarted(supervised, (kind, 0), killed)
    after = supervised.run
    assert alive(restarted)
    assert pids(after) == pids(before) | {(kind, 0): restarted}
    assert addresses(after) == addresses(before)
    assert after["metrics_urls"] == before["metrics_urls"]
    wait_until(lambda: issues(supervised), 60, f"an enrollment after the kill of {kind}")


def serves(system: System) -> bool:
    """Whether the gateway answers a device's first question."""
    with suppress(httpx.HTTPError):
        return httpx.get(f"{system.url()}?operation=GetCACaps", timeout=1).is_success
    return False


def test_a_killed_child_comes_back_once_the_configuration_can_be_read_again(
    supervised: System,
) -> None:
    before, text = supervised.run, supervised.config.read_text()
    killed = pids(before)["gateway", 0]
    supervised.config.write_text("not toml at all")
    os.kill(killed, signal.SIGKILL)
    first = wait_restarted(supervised, ("gateway", 0), killed)
    wait_restarted(supervised, ("gateway", 0), first)
    assert not serves(supervised)

    supervised.config.write_text(text)
    wait_until(lambda: serves(supervised), 60, "the gateway")
    assert addresses(supervised.run) == addresses(before)
    wait_until(lambda: alive(pids(supervised.run)["gateway", 0]), 30, "run.json to be true")


def test_a_run_file_that_cannot_be_written_ends_no_supervision_and_is_written_later(
    supervised: System,
) -> None:
    before = supervised.run
    in_the_way = supervised.data / ".run.json.new"
    in_the_way.mkdir()
    killed = [pids(before)[kind, 0] for kind in ("validator", "issuer")]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: issues(supervised), 60, "an enrollment")
    assert supervised.run == before

    in_the_way.rmdir()
    for kind, pid in zip(("validator", "issuer"), killed, strict=True):
        assert alive(wait_restarted(supervised, (kind, 0), pid))


def issues(system: System) -> bool:
    """Whether an enrollment succeeds now; a bus that is just coming back is no failure."""
    command = ("enroll", system.url(), "--challenge", system.challenge(), "--cn", "device")
    files = ("--ca-file", str(system.ca_file), "--out", str(system.data.parent / "out"), "--force")
    return scepstream(*command, *files).returncode == 0


# What it refuses: one sentence, exit status 1


def refused(*arguments: str) -> str:
    """The one sentence that `up` ends with."""
    done = scepstream("up", *arguments)
    assert done.returncode == 1, done
    assert done.stdout == ""
    assert TRACEBACK not in done.stderr
    first, *others = done.stderr.splitlines()
    assert first.startswith("scepstream up: ")
    assert others == [], done.stderr
    return first


def is_mentioned(text: str) -> bool:
    """Whether a running process has this in its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(FileNotFoundError, ProcessLookupError):
            if text.encode() in path.read_bytes():
                return True
    return False


def test_a_second_one_on_the_same_directory_is_refused(supervised: System) -> None:
    before = supervised.run

    sentence = refused("--data", str(supervised.data), "--port", "0", "--admin-port", "0")

    assert str(supervised.data) in sentence
    assert "in use by another `scepstream up`" in sentence
    assert supervised.run == before
    assert issues(supervised)


@pytest.mark.parametrize(
    ("taken", "free", "what"),
    [("--port", "--admin-port", "the gateway"), ("--admin-port", "--port", "the admin port")],
)
def test_a_port_that_is_taken_is_named(tmp_path: Path, taken: str, free: str, what: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        port = address.partition(":")[2]
        sentence = refused("--data", str(tmp_path / "data"), taken, port, free, "0")

    assert sentence == f"scepstream up: {what} cannot listen on {address}: the port is in use"
    assert not (tmp_path / "data" / "run.json").exists()
    assert not is_mentioned(str(tmp_path))


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    below = tmp_path / "file" / "data"

    sentence = refused("--data", str(below))

    assert sentence.startswith(f"scepstream up: cannot write to the data directory {below}: ")


def test_a_foreign_directory_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("somebody's")

    sentence = refused("--data", str(tmp_path))

    expected = f"{tmp_path} is neither empty nor a scepstream data directory"
    assert sentence == f"scepstream up: {expected}"
    assert {path.name for path in tmp_path.iterdir()} <= {"precious", "lock"}
    assert (tmp_path / "precious").read_text() == "somebody's"


def test_a_directory_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "VERSION").write_text("9\n")
    (tmp_path / "scepstream.toml").write_text("version = 9\n")

    sentence = refused("--data", str(tmp_path))

    expected = f"the data directory {tmp_path} has version 9, but this program requires version 1"
    assert sentence == f"scepstream up: {expected}"
    assert (tmp_path / "scepstream.toml").read_text() == "version = 9\n"
