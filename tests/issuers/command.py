"""The program of `command_ca.py`, with a register in the lab's folder."""

import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from services.issuer.connectors.connector import Connector
from tests.issuers import command_ca
from tests.issuers.building import build, secret_file
from tests.issuers.lab import Lab
from tests.issuers.orders import order
from tests.support import pki

PASSWORD: Final = "p4ssword-of-the-ca"
WRONG: Final = "wr0ng-p4ssword"


def prepare(folder: Path) -> x509.Certificate:
    """Make a CA in a folder."""
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    root = pki.make_root(key, "Command CA")
    pki.write_key(folder / "ca.key", key)
    pki.write_certificate(folder / "ca.pem", root)
    secret_file(folder, "password", PASSWORD)
    return root


def connector(folder: Path, ca: x509.Certificate, password: str = PASSWORD) -> Connector:
    """The connector that runs the program of this CA."""
    options: dict[str, Any] = {
        "program": sys.executable,
        "arguments": [command_ca.__file__, str(folder / "little-ca")],
        "environment": {"CA_PASSWORD": password},
    }
    return build(folder, "command", ca, options, lease="30s")


@asynccontextmanager
async def lab(folder: Path) -> AsyncIterator[Lab]:
    """See `Lab`; `folder` has a configuration, scepstream.toml."""
    ca = prepare(folder / "little-ca")

    def read(question: str, *values: str) -> list[Any]:
        with closing(sqlite3.connect(folder / "little-ca" / "register.db")) as register:
            register.execute(command_ca.SCHEMA)
            return [row[0] for row in register.execute(question, values)]

    async def made() -> list[bytes]:
        pems = read("select certificate from orders")
        return [pki.der(x509.load_pem_x509_certificate(text.encode())) for text in pems]

    async def is_revoked(serial: str) -> bool:
        number = f"{int(serial, 16):x}"
        return read("select revoked from orders where serial = ?", number) != [None]

    yield Lab(
        connector(folder, ca), made, is_revoked,
        refused=order(ca, not_after=int(ca.not_valid_after_utc.timestamp()) + 86400),
        denied=connector(folder, ca, WRONG), holds=True, secrets=(PASSWORD, WRONG),
    )  # fmt: skip
