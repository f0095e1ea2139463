"""A running system under attack: what must hold all along, and how that is looked at."""

import contextlib
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
import nkeys
import pytest

from cli.up.layout import Layout
from shared.config.keys import read_nkey
from shared.log.events.base import EventPayload
from shared.log.roles import Role
from tests.chaos.killer import alive, pids
from tests.security.honest import KINDS, Fleet
from tests.security.plants import headers_of, strangers
from tests.security.wire import RawNats
from tests.support.prepared import command
from tests.support.requests import Endpoint
from tests.support.system import System, wait_until

MEMORY: Final = 50 * 1024 * 1024
# nats-server's memory follows what it stores: measured, 113 MiB more for 40 MiB of odd messages.
_MEMORY_BY_STORED: Final = 4
_SETTLE_SECONDS: Final = 20.0
# What nats-server no longer uses it gives back with Go's collector, which runs by itself every two
# minutes. Measured: a connection that asks and does not read makes it 130 MiB larger, and 115 s
# later it is as small as before.
_COLLECT_SECONDS: Final = 180.0
_AFTER: Final = 1  # of each kind, begun after the attack
_LATER: Final = re.compile("events? of the log (is|are) not in the database yet$")  # devices go on
_EVENT: Final = re.compile(r"(?P<stream>[A-Z_0-9]+)#(?P<sequence>\d+) (?P<subject>.*?): .*")


@dataclass
class Siege:
    """A system with honest devices at work, and what it was like before."""

    system: System
    fleet: Fleet
    before: dict[str, int] = field(default_factory=dict)
    pids: dict[tuple[str, int], int] = field(default_factory=dict)
    stored: int = 0

    @property
    def layout(self) -> Layout:
        """Where the system's keys are."""
        return Layout(self.system.data)

    @property
    def nats_port(self) -> int:
        """Where the bus listens."""
        found = re.search(r"listen: \"?[^:]*:(\d+)", self.layout.nats_config.read_text())
        assert found is not None
        return int(found[1])

    def connect(self, role: Role, **changes: object) -> RawNats:
        """A raw connection with a role's credential."""
        return RawNats.connect(self.nats_port, self.seed(role), **changes)

    def seed(self, role: Role) -> str:
        """The nkey of a role."""
        return read_nkey(self.layout.key(f"{role}.nkey"))

    def plant(self, role: Role, subject: str, event: EventPayload) -> None:
        """Write an event as a stranger: with a role's key to the bus, and no key to sign with."""
        message = strangers(event, subject)
        with self.connect(role) as nats:
            answer = nats.request(subject.encode(), message.payload, headers_of(message))
        assert answer.kind == "stored" or answer.kind.startswith("error"), answer

    def public_key(self, role: Role) -> str:
        """The public half of it, which is no secret."""
        return str(nkeys.from_seed(bytearray(self.seed(role).encode())).public_key.decode())

    def endpoint(self, profile: str = "demo", gateway: int = 0) -> Endpoint:
        """What an attacker knows of a profile."""
        return Endpoint.of(self.system, profile, gateway)

    def settle(self) -> None:
        """Before the first attack: every kind was served, memory is what it is."""
        begun = time.monotonic()
        wait_until(lambda: self._served(begun), 60, "honest devices served")
        self.pids = pids(self.system.run)
        self.stored = self._stored()
        self.before = {name: memory(pid) for name, pid in self._processes().items()}

    def _processes(self) -> dict[str, int]:
        return {f"{kind}-{number}": pid for (kind, number), pid in self.pids.items()}

    def _served(self, moment: float) -> bool:
        served = self.fleet.begun_since(moment)
        return all(served[kind] >= _AFTER for kind in KINDS)

    @contextmanager
    def attacked(self) -> Iterator[None]:
        """The block is the attack: during and after it, nobody honest may notice."""
        begun = time.monotonic()
        yield
        ended = time.monotonic()
        problems: list[str] = []
        try:
            wait_until(lambda: self._served(ended), _SETTLE_SECONDS, "devices after the attack")
        except AssertionError as error:
            problems.append(f"{error}: {dict(self.fleet.begun_since(ended))}")
        problems += _troubles(self.fleet, begun)
        problems += self._vitals()
        problems += self._record(begun)
        if problems:
            pytest.fail("\n".join(problems), pytrace=False)

    def _vitals(self) -> list[str]:
        found = [
            f"{name} was restarted or is gone"
            for name, pid in self._processes().items()
            if not alive(pid)
        ]
        if pids(self.system.run) != self.pids:
            found.append("processes were restarted")
        found += [f"{name} is not ready: {said}" for name, said in self._unready().items()]
        return found + self._grown()

    def _unready(self) -> dict[str, str]:
        """Who does not say that it is ready, within a moment."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while True:
            found = {
                name: said
                for name, url in self.system.run["metrics_urls"].items()
                if (said := _readiness(url.removesuffix("metrics") + "readyz"))
            }
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.2)

    def _grown(self) -> list[str]:
        """Whose memory is more than MEMORY above what it was, once it had time to give it back."""
        begun = time.monotonic()
        while True:
            grown = {
                name: memory(pid) - self.before[name]
                for name, pid in self._processes().items()
                if alive(pid)
            }
            found = [name for name, size in grown.items() if size > self._allowed(name)]
            waited = time.monotonic() - begun
            if all(waited > _patience(name) for name in found):
                return [f"{name} grew by {grown[name] / 2**20:.0f} MiB" for name in found]
            time.sleep(0.5)

    def _allowed(self, name: str) -> int:
        """By how much a process may have grown."""
        if not name.startswith("nats"):
            return MEMORY
        return MEMORY + _MEMORY_BY_STORED * max(0, self._stored() - self.stored)

    def _stored(self) -> int:
        """How many bytes the log takes."""
        found = 0
        for path in self.layout.nats_store.rglob("*.blk"):
            with contextlib.suppress(FileNotFoundError):  # blocks come and go
                found += path.stat().st_size
        return found

    def _record(self, begun: float) -> list[str]:
        """The newest honest certificates since then are on record."""
        good = [each for each in self.fleet.since(begun) if not each.trouble]
        newest = {each.transaction for each in good[-10:]}
        deadline = time.monotonic() + _SETTLE_SECONDS
        while missing := newest - issued_on_record(self.system.data / "audit.db", newest):
            if time.monotonic() > deadline:
                return [f"the record lacks {len(missing)} of {len(newest)} honest enrollments"]
            time.sleep(0.2)
        return []

    def assert_proof_holds(self) -> None:
        """`audit verify` ends, and finds fault with what was planted alone."""
        assert_proof_holds(self.system, self.fleet.transactions)


def _patience(name: str) -> float:
    """How many seconds a process has to give back what it took."""
    return _COLLECT_SECONDS if name.startswith("nats") else _SETTLE_SECONDS


def assert_proof_holds(system: System, honest: set[str]) -> None:
    """`audit verify` ends, and finds no fault with the database or with honest transactions."""
    done = command("audit", "verify", "--all", "--config", str(system.config))
    *findings, last = done.stdout.splitlines() or [""]
    assert re.match(r"(verified|verification failed): \d+ events?,", last), (
        done.stdout + done.stderr
    )
    false = [line for line in findings if not (_planted(line, honest) or _LATER.search(line))]
    if false:
        pytest.fail("\n".join(["audit verify finds fault:", *false[:10]]), pytrace=False)


def _planted(finding: str, honest: set[str]) -> bool:
    """Whether a finding is about an event of nobody honest."""
    found = _EVENT.fullmatch(finding)
    return found is not None and not honest & set(found["subject"].split("."))


def _troubles(fleet: Fleet, begun: float) -> list[str]:
    """What went wrong for honest devices since then, each kind of trouble once."""
    troubles = Counter(
        f"{each.kind}: {each.trouble}" for each in fleet.since(begun) if each.trouble
    )
    return [f"{count} x {trouble}" for trouble, count in troubles.most_common(5)]


def _readiness(url: str) -> str:
    """Empty where it is ready."""
    try:
        response = httpx.get(url, timeout=5, trust_env=False)
    except httpx.HTTPError as error:
        return type(error).__name__
    return "" if response.is_success else response.text.strip()


def memory(pid: int) -> int:
    """What a process holds for itself: anonymous memory, for files are the system's to keep."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"RssAnon:\s+(\d+) kB", text)
    return int(found[1]) * 1024 if found else 0


def issued_on_record(database: Path, transactions: set[str]) -> set[str]:
    """Which of these transactions (subject tokens) have a certificate in the database."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
        rows = connection.execute(
            "SELECT subject FROM events WHERE type = 'CertificateIssued'"
            " ORDER BY recorded_at DESC LIMIT 2000"
        ).fetchall()
    return {token for (subject,) in rows for token in subject.split(".")} & transactions
