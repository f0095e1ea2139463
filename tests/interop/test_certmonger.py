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
from tests.interop.lab import SPLIT, Side
from tests.interop.matrix import FORMS
from tests.interop.verify import check_enrolled, check_refused, check_renewed, let_a_second_pass
from tests.support.system import System, wait_until
from tests.support.tools import need

SAN = "device.example"
SANS = [x509.DNSName(SAN)]
SETTLED = {
    "MONITORING", "CA_REJECTED", "CA_UNREACHABLE", "CA_UNCONFIGURED", "NEED_CA", "CA_WORKING",
}  # fmt: skip


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

    def enroll(self, profile: str, challenge: str, name: str) -> str:
        """Ask, and wait until certmonger has come to an end with it: the status."""
        certificate, key = self.files(name)
        self(
            "request", "-c", profile, "-I", name, "-f", certificate, "-k", key,
            "-N", f"CN={name},O=Lab", "-D", SAN, "-L", challenge,
        )  # fmt: skip
        return wait_until(lambda: self.settled(name), 60, f"an end of {name}")

    def renew(self, command: str, name: str) -> str:
        """`resubmit` keeps the key, `rekey` makes one; the status when there is a certificate."""
        before = self.files(name)[0].read_bytes()
        self(command, "-i", name)
        wait_until(lambda: self.files(name)[0].read_bytes() != before, 60, f"{command} of {name}")
        return wait_until(lambda: self.settled(name), 60, f"an end of {name}")

    def poll(self, name: str) -> None:
        """What certmonger does by itself after a while: a CertPoll."""
        self("refresh", "-i", name)

    def settled(self, request: str) -> str | None:
        found = self.status(request)
        return found if found in SETTLED else None

    def status(self, request: str) -> str:
        found = re.search(r"^\tstatus: (\w+)$", self("list", "-i", request), re.MULTILINE)
        assert found
        return found[1]

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


@pytest.fixture(scope="module")
def certmonger(system: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Certmonger]:
    """One daemon that knows each profile as a CA of the same name."""
    folder = tmp_path_factory.mktemp("certmonger")
    (folder / "home").mkdir()
    daemon = [need("dbus-run-session", "dbus"), "--", need("certmonger-session", "certmonger")]
    getcert = need("getcert", "certmonger")
    with session(folder, daemon) as env:
        client = Certmonger(getcert, folder, env)
        for side in (Side(system, form) for form in FORMS):
            for manual in (False, True):
                client(
                    "add-scep-ca", "-c", side.profile(manual=manual), "-u", side.url(manual=manual)
                )
        client("add-scep-ca", "-c", "corp", "-u", system.url("corp"))
        yield client


@pytest.mark.matrix("certmonger", "enrol")
def test_enrolls(side: Side, certmonger: Certmonger) -> None:
    enrolled(side, certmonger)


@pytest.mark.matrix("certmonger", "renew")
def test_resubmit_renews_by_a_pkcsreq_with_the_old_key(side: Side, certmonger: Certmonger) -> None:
    name, old = enrolled(side, certmonger)
    let_a_second_pass(old)
    assert certmonger.renew("resubmit", name) == "MONITORING", told(certmonger, name)
    new = check_renewed(side.system, side.profile(), certmonger.files(name), old)
    assert new.public_key() == old.public_key()


@pytest.mark.matrix("certmonger", "renew")
def test_rekey_renews_by_a_pkcsreq_with_a_new_key(side: Side, certmonger: Certmonger) -> None:
    name, old = enrolled(side, certmonger)
    assert certmonger.renew("rekey", name) == "MONITORING", told(certmonger, name)
    new = check_renewed(side.system, side.profile(), certmonger.files(name), old)
    assert new.public_key() != old.public_key()


@pytest.mark.matrix("certmonger", "poll")
def test_polls_until_the_operator_has_approved(side: Side, certmonger: Certmonger) -> None:
    name, profile = new_name("certmonger"), side.profile(manual=True)
    status = certmonger.enroll(profile, side.challenge(manual=True), name)
    assert status == "CA_WORKING", told(certmonger, name)
    side.approve(name)
    certmonger.poll(name)
    wait_until(lambda: certmonger.status(name) == "MONITORING", 60, f"certificate of {name}")
    check_enrolled(side.system, profile, certmonger.files(name), subject(name), SANS)


@pytest.mark.matrix("certmonger", "refusal")
def test_wrong_challenge_is_refused(side: Side, certmonger: Certmonger) -> None:
    name = new_name("certmonger")
    status = certmonger.enroll(side.profile(), "wrong", name)
    assert status == "CA_REJECTED", told(certmonger, name)
    assert not certmonger.files(name)[0].exists()
    check_refused(side.system, side.profile(), name)


def test_enrolls_with_a_one_time_challenge(system: System, certmonger: Certmonger) -> None:
    name = new_name("certmonger")
    options = ("--profile", "corp", "--cn", name, "--san", f"dns:{SAN}")
    done = system.cli("challenge", "new", *options, "--config", str(system.config))
    assert done.returncode == 0, done.stderr
    status = certmonger.enroll("corp", done.stdout.strip(), name)
    assert status == "MONITORING", told(certmonger, name)
    check_enrolled(system, "corp", certmonger.files(name), subject(name), SANS)


def test_basic_constraints_of_the_request_are_not_copied(
    system: System, certmonger: Certmonger
) -> None:
    name, certificate = enrolled(Side(system, SPLIT), certmonger)
    certmonger.csr(name).extensions.get_extension_for_class(x509.BasicConstraints)
    with pytest.raises(x509.ExtensionNotFound):
        certificate.extensions.get_extension_for_class(x509.BasicConstraints)


def enrolled(side: Side, certmonger: Certmonger) -> tuple[str, x509.Certificate]:
    """A new device's name and certificate."""
    name, profile = new_name("certmonger"), side.profile()
    status = certmonger.enroll(profile, side.challenge(), name)
    assert status == "MONITORING", told(certmonger, name)
    files = certmonger.files(name)
    return name, check_enrolled(side.system, profile, files, subject(name), SANS)


def subject(name: str) -> str:
    return f"CN={name}, O=Lab"


def told(certmonger: Certmonger, request: str) -> str:
    return certmonger("list", "-i", request) + (certmonger.folder / "daemon.log").read_text()
