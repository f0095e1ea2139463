"""A CA in a process of its own that answers late, not at all, or later, and keeps a register.

Each connection is one line of JSON in and one out. The listening socket disappears now and then.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from services.issuer.certificate import certificate, draft
from shared.log.events.enrollment import CertificateTemplate
from shared.scep.algorithms import SHA256
from shared.scep.certificate import read_certificate
from shared.scep.schemes import scheme_of, signature_identifier

KEY: Final = ec.derive_private_key(11, ec.SECP256R1())
NAMED: Final = "named"
SEARCHABLE: Final = "searchable"
SHORT_TOKEN: Final = "short_token"
BLIND: Final = "blind"
DEFERRED: Final = "deferred"
HANDLE: Final = "handle"  # blind, and each order waits under a handle at first
KINDS: Final = (NAMED, SEARCHABLE, SHORT_TOKEN, BLIND, DEFERRED, HANDLE)
LEASE: Final = 1.0
TOKEN_SECONDS: Final = 5.0  # what the connector says
TOKEN_KEPT: Final = 6.5  # what the CA does: the rest is for clocks and the network
LONGEST: Final = 2.2 * LEASE  # an answer, the work before and the work after it together
_UNAVAILABLE: Final = 0.08
_LOST: Final = 0.15
_SLOW: Final = 0.15
_REFUSED: Final = 0.03
_PENDING: Final = {DEFERRED: 1.0, HANDLE: 1.0}
_SOMETIMES: Final = 0.1
_INDEXED: Final = 0.5 * LEASE  # the longest until a search finds what was made


@dataclass
class Entry:
    """An order of the register; `name` is whose it is, by which only `named` orders are found."""

    kind: str
    name: str
    template: CertificateTemplate
    arrived: float
    handle: str
    state: str = "pending"
    der: bytes = b""
    made: float = 0.0
    shown: float = 0.0
    revoked: bool = False

    def said(self) -> dict[str, Any]:
        """What the CA answers."""
        return {"state": self.state, "handle": self.handle, "certificates": [self.der.hex()]}

    def line(self) -> dict[str, Any]:
        """What the test reads of the register."""
        return {
            "kind": self.kind, "name": self.name, "arrived": self.arrived, "state": self.state,
            "certificate": self.der.hex(), "made": self.made, "revoked": self.revoked,
        }  # fmt: skip


@dataclass
class Ca:
    """The CA; `counts` of a kind are of answers lost and of requests refused."""

    ca: bytes
    rng: random.Random
    entries: list[Entry] = field(default_factory=list)
    counts: dict[str, "Counter[str]"] = field(default_factory=lambda: defaultdict(Counter))
    at_work: int = 0
    calm: bool = False

    async def serve(self, announce: Callable[[int], None]) -> None:
        """Listen on a port of its own, with short absences, forever."""
        port = 0
        while True:
            server = await asyncio.start_server(self._connected, "127.0.0.1", port, limit=2**20)
            if not port:
                port = server.sockets[0].getsockname()[1]
                announce(port)
            await asyncio.sleep(self.rng.uniform(0.5, 1.5))
            server.close()
            if not self.calm:
                self.counts["all"]["absences"] += 1
                await asyncio.sleep(self.rng.uniform(0.05, 0.2))

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readline()
            if line.endswith(b"\n"):
                await self._answer(json.loads(line), writer)
        except OSError:
            self.counts["all"]["hung up"] += 1
        finally:
            writer.close()

    async def _answer(self, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        """Act whether or not anybody waits for the answer; then answer, or hang up."""
        if asked["call"] == "register":
            self.calm = asked["calm"]
            writer.write(json.dumps(self._register()).encode() + b"\n")
            await writer.drain()
            return
        kind, chance = asked["kind"], self.rng.random
        if not self.calm and chance() < _UNAVAILABLE:
            self.counts[kind]["refused"] += 1
            writer.write(b'{"state": "unavailable"}\n')
            return
        self.at_work += 1
        try:
            await self._pause()
            said = getattr(self, f"_{asked['call']}")(asked)
        finally:
            self.at_work -= 1
        await self._pause()
        if chance() < _LOST:
            self.counts[kind]["lost"] += 1
            return
        writer.write(json.dumps(said).encode() + b"\n")

    async def _pause(self) -> None:
        slow = self.rng.random() < _SLOW
        longest = LONGEST / 2 if slow else 0.03
        await asyncio.sleep(self.rng.uniform(0.0, longest))

    def _register(self) -> dict[str, Any]:
        waiting = [e for e in self.entries if e.state == "pending" and e.kind != DEFERRED]
        return {
            "busy": self.at_work + len(waiting),
            "counts": self.counts,
            "orders": [each.line() for each in self.entries],
        }

    # What clients ask for

    def _place(self, asked: dict[str, Any]) -> dict[str, Any]:
        kind, name = asked["kind"], asked["name"]
        template = msgspec.convert(asked["template"], CertificateTemplate)
        known = self._known(kind, name)
        if known is not None:
            return known.said()
        handle = f"{self.rng.getrandbits(64):016x}"
        entry = Entry(kind, name, template, time.time(), handle)
        self.entries.append(entry)
        if self.rng.random() >= _PENDING.get(kind, _SOMETIMES):
            self._decide(entry)
        elif kind != DEFERRED:
            loop = asyncio.get_running_loop()
            loop.call_later(self.rng.uniform(0.0, LEASE), self._decide, entry)
        return entry.said()

    def _known(self, kind: str, name: str) -> Entry | None:
        """The order that placing one more does not add to."""
        now = time.time()
        for each in reversed(self.entries):
            if each.kind == kind and each.name == name:
                if kind == NAMED or (kind == SHORT_TOKEN and now - each.arrived < TOKEN_KEPT):
                    return each
                return None
        return None

    def _find(self, asked: dict[str, Any]) -> dict[str, Any]:
        kind, handle = asked["kind"], asked["handle"]
        if kind == SEARCHABLE and (found := self._search(asked)):
            return {"state": "issued", "certificates": [each.der.hex() for each in found]}
        for each in self.entries:
            if each.kind != kind:
                continue
            if each.handle == handle or (kind == NAMED and each.name == asked["name"]):
                if kind == DEFERRED and self.rng.random() >= _SOMETIMES:
                    self._decide(each)
                return each.said()
        return {"state": "none"}

    def _search(self, asked: dict[str, Any]) -> list[Entry]:
        """By key and end of validity; revoked ones last, and what was made just now not yet."""
        found = [
            each
            for each in self.entries
            if each.der
            and each.kind == SEARCHABLE
            and each.shown <= time.time()
            and each.template.spki.hex() == asked["spki"]
            and each.template.not_after == asked["not_after"]
        ]
        return sorted(found, key=lambda each: (each.revoked, each.der))

    def _revoke(self, asked: dict[str, Any]) -> dict[str, Any]:
        for each in self.entries:
            if each.der and read_certificate(each.der).serial.hex() == asked["serial"]:
                each.revoked = True
        return {"state": "revoked"}

    def _decide(self, entry: Entry) -> None:
        if entry.state != "pending":
            return
        if self.rng.random() < _REFUSED:
            entry.state = "refused"
            return
        ca = read_certificate(self.ca)
        algorithm = signature_identifier(scheme_of(ca.spki), SHA256)
        secret = self.rng.randbytes(32)
        made = draft(entry.template, ca.subject, algorithm, secret, entry.name)
        signature = KEY.sign(made.tbs, ec.ECDSA(hashes.SHA256()))
        entry.der = certificate(made.tbs, algorithm, signature)
        entry.made = time.time()
        entry.shown = entry.made + self.rng.uniform(-_INDEXED, _INDEXED)
        entry.state = "issued"


def main() -> None:
    """Arguments: the CA's certificate (DER file), the seed, and the file to write the port to."""
    ca, seed, port_file = sys.argv[1:]

    def announce(port: int) -> None:
        fresh = Path(f"{port_file}.new")
        fresh.write_text(str(port))
        fresh.rename(port_file)

    found = Ca(Path(ca).read_bytes(), random.Random(int(seed)))
    asyncio.run(found.serve(announce))


if __name__ == "__main__":
    main()
