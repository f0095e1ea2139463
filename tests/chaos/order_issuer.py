"""The real issuer at the CA of `order_ca`, in processes that are forked, and killed with -9.

A nursery has imported everything, so that an issuer starts in a fraction of a second. For each
line on its input, an issuer's name and the CA's port, it kills that one, if it runs, and starts it
again.
"""

import asyncio
import json
import os
import random
import signal
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography import x509

from services.issuer import breaker, orders, orphans, service
from services.issuer.connectors.connector import (
    AnswerLostError,
    CaUnavailableError,
    Issued,
    Order,
    Pending,
    Prepared,
    Recovery,
    Refused,
    Result,
    UnknownOutcome,
)
from services.issuer.connectors.pinned import ExternalConnector, PinnedCa, PinnedCas
from services.issuer.settings import Settings
from shared.bus.servers import Servers
from shared.log.events.commands import RevocationReason
from shared.log.shards import Epoch
from shared.observe.logs import configure_logging
from shared.runtime import log_clock, process, worker
from shared.runtime.reload import Source
from tests.chaos.order_ca import HANDLE, KEY, KINDS, LEASE, TOKEN_SECONDS
from tests.support import pki
from tests.support.world import ISSUING, TRUSTED_ISSUERS, TRUSTED_OPERATORS, TRUSTED_VALIDATORS

ACK_WAIT_SECONDS: Final = 1.0


@dataclass(frozen=True)
class ChaosConnector(ExternalConnector):
    """See `Connector`; `kind` is one of `KINDS`, each of which is an issuer of its own."""

    kind: str
    port: int

    @property
    def recovery(self) -> Recovery:
        return Recovery.BLIND if self.kind == HANDLE else Recovery(self.kind)

    @property
    def needs_csr(self) -> bool:
        return False

    @property
    def token_lifetime(self) -> float:
        return TOKEN_SECONDS

    async def issue(self, order: Order, prepared: Prepared) -> Result:
        del prepared
        template = order.template
        if self.recovery is Recovery.SEARCHABLE:
            template = msgspec.structs.replace(template, not_after=order.tagged_not_after)
        asked = {"name": order.key, "template": msgspec.to_builtins(template)}
        return await self._asked("place", asked) or UnknownOutcome("no such order")

    async def find(self, order: Order, handle: str = "") -> Result | None:
        spki, until = order.template.spki.hex(), order.tagged_not_after
        asked = {"name": order.key, "handle": handle, "spki": spki, "not_after": until}
        return await self._asked("find", asked)

    async def revoke(
        self, serial: str, ca: str, reason: RevocationReason, certificate: bytes = b""
    ) -> None:
        del ca, reason, certificate
        try:
            await self._said("revoke", {"serial": serial})
        except AnswerLostError as error:
            raise CaUnavailableError("the answer was lost") from error

    async def check(self) -> str:
        return "not checked"

    async def _asked(self, call: str, asked: dict[str, Any]) -> Result | None:
        try:
            said = await self._said(call, asked)
        except AnswerLostError:
            return UnknownOutcome("lost")
        match said["state"]:
            case "issued":
                first, *others = map(bytes.fromhex, said["certificates"])
                return Issued(first, tuple(others))
            case "pending":
                return Pending(said["handle"])
            case "refused":
                return Refused("the CA does not want to")
        return None

    async def _said(self, call: str, asked: dict[str, Any]) -> dict[str, Any]:
        """The CA's answer; `CaUnavailableError` if it certainly did nothing."""
        said = await ask(self.port, {"call": call, "kind": self.kind, **asked})
        if said["state"] == "unavailable":
            raise CaUnavailableError("busy")
        return said


async def ask(port: int, asked: dict[str, Any]) -> dict[str, Any]:
    """Ask the CA once; raises `CaUnavailableError` or `AnswerLostError`."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError as error:
        raise CaUnavailableError("the connection was refused") from error
    try:
        writer.write(json.dumps(asked).encode() + b"\n")
        line = await reader.read(-1)
    except OSError as error:
        raise AnswerLostError from error
    finally:
        writer.close()
    if not line.endswith(b"\n"):
        raise AnswerLostError
    found: dict[str, Any] = json.loads(line)
    return found


def quicken(watch: float) -> None:
    """Shorten the product's pauses; `watch` is for how many seconds an orphan is searched."""
    shorter: tuple[tuple[object, str, float], ...] = (
        (orders, "_FIRST_PAUSE", 0.2),
        (orders, "_LONGEST_PAUSE", 0.5),
        (breaker, "_FIRST_PAUSE", 0.1),
        (breaker, "_LONGEST_PAUSE", 0.4),
        (breaker, "_TRIAL", 0.2),
        (orphans, "_LOOK_SECONDS", 0.3),
        (orphans, "_SEARCH_SECONDS", 0.5),
        (orphans, "WATCH_SECONDS", watch),
        (worker, "ACK_WAIT_SECONDS", ACK_WAIT_SECONDS),
        (worker, "_MAX_NAK_SECONDS", 1.0),
        (worker, "_RETRY_SECONDS", 0.1),
        (log_clock, "_FIRST_SECONDS", 0.05),
    )
    for module, name, value in shorter:
        assert hasattr(module, name)
        setattr(module, name, value)


def settings(url: str, nkey_seed: str, ca: bytes, port: int) -> Settings:
    found = x509.load_der_x509_certificate(ca)
    assert pki.spki(found.public_key()) == pki.spki(KEY.public_key())
    cas = PinnedCas(PinnedCa((ca,), pki.ceilings(found)))
    return Settings(
        servers=Servers.of(url),
        nkey_seed=nkey_seed,
        epochs=(Epoch(0, ("0",)),),
        signer=ISSUING,
        validators=TRUSTED_VALIDATORS,
        trusted_issuers=TRUSTED_ISSUERS,
        operators=TRUSTED_OPERATORS,
        opening_keys={},
        issuers={kind: ChaosConnector(cas, LEASE, 86400.0, kind, port) for kind in KINDS},
        concurrency=8,
    )


def run_issuer(name: str, first: Settings, log: Path) -> None:
    """The process that will be killed: the issuer as its command runs it."""
    random.seed()
    with log.open("ab") as sink:
        os.dup2(sink.fileno(), sys.stderr.fileno())
    configure_logging("issuer", name)
    operations = process.listen("127.0.0.1", 0)
    source = Source(first, lambda: first)
    process.run(lambda signals: service.serve(source, name, operations, signals))


def start(name: str, first: Settings, log: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        run_issuer(name, first, log)
    except BaseException:  # noqa: BLE001 - a fork must not return into the nursery
        traceback.print_exc()
    finally:
        os._exit(1)


def end(pid: int) -> bool:
    """Kill -9; whether it had ended by itself."""
    found, _ = os.waitpid(pid, os.WNOHANG)
    if found:
        return True
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


def main() -> None:
    """Argument: a JSON file with url, seed, ca (hex), watch and log."""
    given = json.loads(Path(sys.argv[1]).read_text())
    quicken(given["watch"])
    running: dict[str, int] = {}
    for line in sys.stdin:
        name, port = line.split()
        by_itself = name in running and end(running[name])
        first = settings(given["url"], given["seed"], bytes.fromhex(given["ca"]), int(port))
        running[name] = start(name, first, Path(given["log"]))
        sys.stdout.write(f"{'ended' if by_itself else 'started'}\n")
        sys.stdout.flush()
    for pid in running.values():
        end(pid)


if __name__ == "__main__":
    main()
