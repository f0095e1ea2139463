"""OCSP: requests a second, and CPU of the gateway for each: python -m benchmarks.ocsp.

Certificates are enrolled first. Then clients with connections of their own ask about them, by GET
and by POST, and with a nonce, so that no two requests have the same bytes.
"""

import argparse
import asyncio
import base64
import itertools
import secrets
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from rich.console import Console
from rich.table import Table

from benchmarks.cpu import settled, spent
from benchmarks.http1 import Connection, Endpoint
from benchmarks.system import system
from benchmarks.target import Shape, Target, load
from cli.toml import set_keys
from shared.x509.cert_ids import ca_ids

_QUIET_SECONDS: Final = 10.0
_SUCCESSFUL: Final = b"\x0a\x01\x00"  # the responseStatus at the beginning of an OCSPResponse


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=20_000, help="requests of each kind")
    parser.add_argument("--certificates", type=int, default=200)
    parser.add_argument("--connections", type=int, default=8)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="scepstream-") as folder:
        kept = Path(folder)
        with system(kept=kept):
            pass
        config = kept / "data" / "scepstream.toml"
        config.write_text(set_keys(config.read_text(), "issuers.local", {"ocsp_validity": "4d"}))
        with system(kept=kept) as target:
            load(target, Shape(options.certificates, 8))
            settled(target.pids, _QUIET_SECONDS)
            Console().print(_measured(kept / "data", target, options.n, options.connections))


def _measured(data: Path, target: Target, n: int, connections: int) -> Table:
    ca = x509.load_pem_x509_certificate((data / "ca" / "ca.pem").read_bytes())
    with sqlite3.connect(f"file:{data / 'audit.db'}?mode=ro", uri=True) as database:
        found = database.execute("SELECT serial FROM certificates")
        serials = [int(serial, 16) for (serial,) in found]
    plain = [_request(ca, serial) for serial in serials]
    fresh = (_request(ca, serial, nonce=True) for serial in itertools.cycle(serials))
    endpoint = Endpoint.of(target.url)
    kinds: dict[str, Callable[[], Iterator[bytes]]] = {
        "GET": lambda: (_get(endpoint, each) for each in itertools.cycle(plain)),
        "POST": lambda: (_post(endpoint, each) for each in itertools.cycle(plain)),
        "POST with a nonce": lambda: (_post(endpoint, each) for each in fresh),
    }
    table = Table(title=f"{n} OCSP requests about {len(serials)} certificates")
    for name in ("kind", "requests/s", "gateway ms CPU", "nats-server ms CPU"):
        table.add_column(name, justify="right")
    for name, requests in kinds.items():
        prepared = list(itertools.islice(requests(), n))
        before, started = settled(target.pids, _QUIET_SECONDS), time.monotonic()
        asyncio.run(_ask(endpoint, prepared, connections))
        seconds = time.monotonic() - started
        used = spent(before, settled(target.pids, _QUIET_SECONDS))
        cells = [f"{used.get(process, 0.0) / n * 1e3:.3f}" for process in ("gateway", "nats")]
        table.add_row(name, f"{n / seconds:.0f}", *cells)
    return table


def _request(ca: x509.Certificate, serial: int, *, nonce: bool = False) -> bytes:
    named = next(each for each in ca_ids(ca.public_bytes(Encoding.DER)) if each.algorithm == "sha1")
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
        named.name_hash, named.key_hash, serial, hashes.SHA1()
    )
    if nonce:
        builder = builder.add_extension(x509.OCSPNonce(secrets.token_bytes(16)), critical=False)
    return builder.build().public_bytes(Encoding.DER)


def _get(endpoint: Endpoint, request: bytes) -> bytes:
    text = quote(base64.b64encode(request).decode(), safe="")
    return f"GET /ocsp/local/{text} HTTP/1.1\r\nHost: {endpoint.host}\r\n\r\n".encode()


def _post(endpoint: Endpoint, request: bytes) -> bytes:
    head = (
        f"POST /ocsp/local HTTP/1.1\r\nHost: {endpoint.host}\r\n"
        f"Content-Type: application/ocsp-request\r\nContent-Length: {len(request)}\r\n\r\n"
    )
    return head.encode() + request


async def _ask(endpoint: Endpoint, requests: Iterable[bytes], connections: int) -> None:
    """Send them all; raise `RuntimeError` unless every response is successful."""
    shared, loop = iter(requests), asyncio.get_running_loop()

    async def work() -> None:
        _, connection = await loop.create_connection(Connection, endpoint.host, endpoint.port)
        for request in shared:
            found = await connection.exchange(request)
            if found.status != HTTPStatus.OK or _SUCCESSFUL not in found.body[:8]:
                raise RuntimeError(f"HTTP {found.status}, {found.body[:8].hex()}")
        connection.close()

    await asyncio.gather(*(work() for _ in range(connections)))


if __name__ == "__main__":
    main()
