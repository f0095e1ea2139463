"""CPU of the issuer for each certificate, by kind of CA: python -m benchmarks.connectors.

Each connector orders from the lab of its contract tests: the real CA where there is one, else a
fake of its API. The lab runs in a thread of its own, whose CPU does not count. What counts is
placing the order, asking for it while it is pending, and the check of the certificate.
"""

import argparse
import asyncio
import os
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from rich.console import Console
from rich.table import Table

from services.issuer.connectors.connector import Issued, Pending, Prepared, UnknownOutcome
from services.issuer.received import misissued
from tests.contract.test_issuers import ALL
from tests.issuers.lab import Lab
from tests.unit.shared import configurations

_T = TypeVar("_T")
_WARM: Final = 3
_ASK_SECONDS: Final = 0.02


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=50, help="certificates of each CA")
    parser.add_argument("--labs", default=",".join(ALL), help="names of labs, comma-separated")
    options = parser.parse_args(arguments)
    os.umask(0o077)  # the configuration has secrets
    table = Table(title=f"CPU of {options.n} orders")
    for name in ("CA", "ms CPU", "ms"):
        table.add_column(name, justify="right" if name != "CA" else "left")
    for name in options.labs.split(","):
        with tempfile.TemporaryDirectory() as folder, _laboratory(name, Path(folder)) as running:
            cpu, seconds = asyncio.run(_measure(*running, options.n))
        table.add_row(name, f"{cpu * 1e3:.2f}", f"{seconds * 1e3:.1f}")
    Console().print(table)


Elsewhere = Callable[[Coroutine[Any, Any, _T]], _T]


@contextmanager
def _laboratory(name: str, folder: Path) -> Iterator[tuple[Lab, threading.Thread, Any]]:
    """Run a lab in a thread; yield it, the thread, and what runs a coroutine there."""
    keys = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
    configurations.write_all(folder, *keys)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def there(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(60)

    context = import_module(f"tests.issuers.{name}").lab(folder)
    try:
        yield there(context.__aenter__()), thread, there
        there(context.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _measure(lab: Lab, thread: threading.Thread, there: Any, n: int) -> tuple[float, float]:
    """Return CPU and time of one certificate, in seconds."""
    assert thread.ident is not None
    clock = time.pthread_getcpuclockid(thread.ident)
    orders = [lab.order() for _ in range(_WARM + n)]
    for order in orders[:_WARM]:
        await _issue(lab, order, there)
    before = time.process_time() - time.clock_gettime(clock), time.monotonic()
    for order in orders[_WARM:]:
        await _issue(lab, order, there)
    after = time.process_time() - time.clock_gettime(clock), time.monotonic()
    await lab.connector.close()
    return (after[0] - before[0]) / n, (after[1] - before[1]) / n


async def _issue(lab: Lab, order: Any, there: Any) -> None:
    connector = lab.connector
    prepared = connector.prepare(order)
    assert isinstance(prepared, Prepared)
    result: Any = await connector.issue(order, prepared)
    if isinstance(result, Pending):
        handle = result.handle
        await asyncio.to_thread(there, lab.approve(handle))
        while not isinstance(result, Issued):
            await asyncio.sleep(_ASK_SECONDS)
            result = await connector.find(order, handle) or UnknownOutcome()
            handle = result.handle or handle if isinstance(result, Pending) else handle
    ca, approved = connector.current, order.template.not_before + 600
    problem = misissued(order.template, ca.ceilings, ca.chain[0], result.certificate, approved)
    assert problem == "", problem


if __name__ == "__main__":
    main()
