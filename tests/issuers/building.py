"""Connectors as an issuer builds them, from a table of a configuration."""

import socket
from importlib import import_module
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from services.issuer.connectors.connector import Connector
from services.issuer.connectors.registry import BUILT_IN
from shared.config.load import load
from tests.support import pki
from tests.unit.shared.changed import change


def build(
    folder: Path, kind: str, ca: x509.Certificate, options: dict[str, Any], lease: str = "5s"
) -> Connector:
    """The connector of a kind, for a CA; `folder` has a configuration, scepstream.toml."""
    pki.write_certificate(folder / "outside.pem", ca)
    config = change(
        folder / "scepstream.toml", "issuers.outside", kind=kind, ca_cert_path="outside.pem",
        lease=lease, options=options,
    )  # fmt: skip
    configuration = load(config, {})
    module = BUILT_IN.get(kind, kind.replace("-", "_"))
    found = import_module(f"services.issuer.connectors.{module}").KIND
    made = found.build(configuration, "outside", configuration.issuers["outside"])
    assert isinstance(made.current.chain[0], bytes)
    assert made.current.chain[0] == ca.public_bytes(Encoding.DER)
    return made  # type: ignore[no-any-return]


def secret_file(folder: Path, name: str, text: str) -> str:
    """The name of a file of mode 0600 with this text."""
    path = folder / name
    path.write_text(text)
    path.chmod(0o600)
    return name


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])
