"""certmonger: a daemon on a D-Bus session of its own; always GET, Content-Types to the letter."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest
from cryptography import x509

from tests.interop.clients import new_name, succeed
from tests.interop.verify import check_enrolled, check_refused
from tests.system import System, wait_until
from tests.tools import need

SAN = "device.example"
SETTLED = {"MONITORING", "CA_REJECTED", "CA_UNREACHABLE", "CA_UNCONFIGURED", "NEED_CA"}


@dataclass(frozen=True)
class Certmonger:
    """`getcert` on the session bus of one daemon."""

    getcert: str
    folder: Path
    env: dict[str, str]

    def files(self, request: str) -> tuple[Path, Path]:
        return self.folder / f"{request}.pem", self.folder / f"{request}.key"

    def __call__(self, command: str, *options: str | Path) -> str:
        return succeed([self.getcert, command, "-s", *options], self.folder, self.env).stdout

    def enroll(self, challenge: str, name: str) -> str:
        """Ask, and wait until certmonger has come to an end with it: the status."""
        certificate, key = self.files(name)
        self(
            "request", "-c", "lab", "-I", name, "-f", certificate, "-k", key,
            "-N", f"CN={name},O=Lab", "-D", SAN, "-L", challenge,
        )  # fmt: skip
        return wait_until(lambda: self.settled(name), 60, f"an end of {name}")

    def settled(self, request: str) -> str | None:
        found = re.search(r"^\tstatus: (\w+)$", self("list", "-i", request), re.MULTILINE)
        assert found
        return found[1] if found[1] in SETTLED else None

    def csr(self, request: str) -> x509.CertificateSigningRequest:
        """What was sent, from the daemon's own notes."""
        notes = (self.folder / "home" / ".config" / "certmonger" / "requests").iterdir()
        (note,) = (text for path in notes if f"id={request}\n" in (text := path.read_text()))
        found = re.search(r"^csr=(.*\n( .*\n)*)", note, re.MULTILINE)
        assert found
        return x509.load_pem_x509_csr(found[1].replace("\n ", "\n").encode())


@contextmanager
def session(folder: Path, daemon_command: list[str]) -> Iterator[dict[str, str]]:
    """A bus and the daemon on it; the process environment for its clients.

    The daemon runs a command and ends with it; the command reads a pipe that this block keeps
    open. So everything ends with the block, or with the process that runs it.
    """
    bus, pipe, script = folder / "bus", folder / "pipe", folder / "hold.sh"
    os.mkfifo(pipe)
    script.write_text(f"echo $DBUS_SESSION_BUS_ADDRESS > {bus}.new; mv {bus}.new {bus}; cat {pipe}")
    env = {**os.environ, "HOME": str(folder / "home")}
    with (folder / "daemon.log").open("w") as log:
        hold = os.open(pipe, os.O_RDWR)
        daemon = start_daemon(daemon_command, folder, env, log)
        try:
            wait_until(lambda: bus.exists() or daemon.poll() is not None, what="certmonger")
            assert daemon.poll() is None, (folder / "daemon.log").read_text()
            yield {**env, "DBUS_SESSION_BUS_ADDRESS": bus.read_text().strip()}
        finally:
            os.close(hold)
            stop(daemon)


def start_daemon(
    command: list[str], folder: Path, env: dict[str, str], log: IO[str]
) -> subprocess.Popen[bytes]:
    """In a process group of its own, named by the pid of its first process."""
    return subprocess.Popen(
        [*command, "-s", "-n", "-c", f"/bin/sh {folder / 'hold.sh'}"],
        cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        start_new_session=True,
    )  # fmt: skip


def stop(daemon: subprocess.Popen[bytes]) -> None:
    """Wait for the end that was asked for; whatever of the group stays behind is killed, and told.

    The bus ends a moment after `dbus-run-session`, so that is waited for too.
    """
    try:
        daemon.wait(20)
        wait_until(lambda: not alive(daemon.pid), 10, "the end of certmonger's session")
    finally:
        if left := alive(daemon.pid):
            os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait()
    assert not left


def alive(group: int) -> list[str]:
    """The processes of a group; those that only wait for their parent's look do not count."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, _, process_group = rest.split()[:3]
        if int(process_group) == group and state not in "ZX":
            found.append(name)
    return found


@pytest.fixture
def certmonger(system: System, tmp_path: Path, tmp_home: Path) -> Iterator[Certmonger]:
    assert tmp_home == tmp_path / "home"
    daemon = [need("dbus-run-session", "dbus"), "--", need("certmonger-session", "certmonger")]
    getcert = need("getcert", "certmonger")
    with session(tmp_path, daemon) as env:
        client = Certmonger(getcert, tmp_path, env)
        client("add-scep-ca", "-c", "lab", "-u", system.url("demo"))
        yield client


def test_enrolls(system: System, certmonger: Certmonger) -> None:
    name = new_name("certmonger")
    assert certmonger.enroll(system.challenge(), name) == "MONITORING", told(certmonger, name)
    subject, sans = f"CN={name}, O=Lab", [x509.DNSName(SAN)]
    check_enrolled(system, "demo", certmonger.files(name), subject, sans)


def test_basic_constraints_of_the_request_are_not_copied(
    system: System, certmonger: Certmonger
) -> None:
    name = new_name("certmonger")
    assert certmonger.enroll(system.challenge(), name) == "MONITORING", told(certmonger, name)
    certmonger.csr(name).extensions.get_extension_for_class(x509.BasicConstraints)
    certificate = x509.load_pem_x509_certificate(certmonger.files(name)[0].read_bytes())
    with pytest.raises(x509.ExtensionNotFound):
        certificate.extensions.get_extension_for_class(x509.BasicConstraints)


def test_wrong_challenge_is_refused(system: System, certmonger: Certmonger) -> None:
    name = new_name("certmonger")
    assert certmonger.enroll("wrong", name) == "CA_REJECTED", told(certmonger, name)
    assert not certmonger.files(name)[0].exists()
    check_refused(system, "demo", name)


def told(certmonger: Certmonger, request: str) -> str:
    return certmonger("list", "-i", request) + (certmonger.folder / "daemon.log").read_text()
