"""The built-in CA as a sub-CA, its key in a file or in a SoftHSM token."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from services.issuer.connectors.local import LocalConnector
from services.issuer.connectors.registry import read_connector
from shared.config.load import load
from tests.support import pki
from tests.support.softhsm import Token
from tests.unit.shared.changed import change

SIGNS = ("key_cert_sign", "crl_sign")
_numbers = itertools.count(1)
CaKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass
class LocalLab:
    """A connector whose CA is below `root`; `token` has its key, unless it is in a file.

    `key_path` is the key's file or URI.
    """

    connector: LocalConnector
    root: x509.Certificate
    token: Token | None
    key_path: str

    @property
    def ca(self) -> x509.Certificate:
        return self.connector.current.certificate


def key_of(kind: str) -> CaKey:
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP256R1())


def lab(folder: Path, key: CaKey, token: Token | None, **changes: Any) -> LocalLab:
    """The connector that a configuration makes; `folder` has one, scepstream.toml."""
    above = ec.generate_private_key(ec.SECP256R1())
    root = pki.make_root(above, "Lab root")
    sub = pki.make_certificate(
        key.public_key(), above, subject="Lab sub-CA", issuer="Lab root", usage=SIGNS, ca=True
    )
    pki.write_certificate(folder / "sub.pem", sub)
    pki.write_certificate(folder / "root.pem", root)
    pki.write_key(folder / "sub.key", key)
    path = "sub.key" if token is None else imported(token, folder / "sub.key")
    values = {"ca_cert_path": "sub.pem", "ca_key_path": path, "chain_path": "root.pem"}
    config = change(folder / "scepstream.toml", "issuers.local", **(values | changes))
    connector = read_connector(load(config, {}), "local")
    assert isinstance(connector, LocalConnector)
    return LocalLab(connector, root, token, path)


def imported(token: Token, path: Path) -> str:
    """The URI of a key that was moved from its file to the token."""
    number = next(_numbers)
    token.take(f"lab-{number}", number, path)
    path.unlink()
    return token.uri(f"lab-{number}")
