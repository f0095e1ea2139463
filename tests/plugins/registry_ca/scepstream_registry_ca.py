"""`registry-ca`: a CA with a register of orders, each under the name that its client chose.

    [issuers.corp]
    kind = "registry-ca"
    ca_cert_path = "corp-ca.pem"

    [issuers.corp.options]
    register_path = "register.db"
    key_path = "corp-ca.key"

The CA here is a few lines in the same process; what matters is that the order's key is its name, so
that the CA makes one certificate for it however often it is asked.
"""

import asyncio
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from services.issuer.certificate import certificate, draft
from services.issuer.connectors.connector import (
    CaUnavailableError,
    ConnectorKind,
    CrlAuthority,
    Issued,
    OcspAuthority,
    Order,
    Prepared,
    RaAuthority,
    Recovery,
    Refused,
    Result,
    UnknownOutcome,
)
from services.issuer.connectors.pinned import PinnedCa, PinnedCas, read_pinned
from shared.config.load import SettingsError, read_secret_file
from shared.config.sections import AnyIssuerSection, Configuration, ConnectorSection
from shared.log.events.certificates import CaChain
from shared.log.events.commands import RevocationReason
from shared.scep.algorithms import SHA256
from shared.scep.certificate import read_certificate
from shared.scep.schemes import scheme_of, signature_identifier

_NAME: Final = "registry-ca"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS certificates (name TEXT PRIMARY KEY, serial TEXT, certificate BLOB);
CREATE TABLE IF NOT EXISTS revocations (serial TEXT PRIMARY KEY, reason TEXT);
"""


@dataclass(frozen=True)
class Register:
    """What the CA knows."""

    path: Path

    @contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        """A connection for one transaction."""
        try:
            with closing(sqlite3.connect(self.path, timeout=1.0)) as connection, connection:
                connection.executescript(_SCHEMA)
                yield connection
        except sqlite3.OperationalError as error:
            raise CaUnavailableError(str(error)) from error

    def add(self, name: str, der: bytes) -> None:
        """Keep the certificate of an order, unless there is one."""
        with self.open() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO certificates VALUES (?, ?, ?)",
                (name, read_certificate(der).serial.hex(), der),
            )

    def set_status(self, serial: str, reason: str) -> None:
        """Revoke a certificate, or change why it is revoked."""
        with self.open() as connection:
            connection.execute("INSERT OR REPLACE INTO revocations VALUES (?, ?)", (serial, reason))

    def find(self, name: str) -> bytes | None:
        """The certificate of an order."""
        with self.open() as connection:
            row = connection.execute(
                "SELECT certificate FROM certificates WHERE name = ?", (name,)
            ).fetchone()
        return row[0] if row else None


@dataclass(frozen=True)
class RegistryConnector:
    """See `Connector`."""

    cas: PinnedCas
    lease: float
    register: Register
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    recovery: Recovery = Recovery.NAMED
    crls: CrlAuthority | None = None
    ocsp: OcspAuthority | None = None
    ras: RaAuthority | None = None
    token_lifetime: float = 0.0
    needs_csr: bool = False
    pending_limit: float = 14 * 86400.0

    @property
    def current(self) -> PinnedCa:
        """See `Connector.current`."""
        return self.cas.current

    def pinned(self, pin: str) -> PinnedCa | None:
        """See `Connector.pinned`."""
        return self.cas.pinned(pin)

    def ca_chain(self) -> CaChain:
        """See `Connector.ca_chain`."""
        return self.cas.ca_chain()

    def prepare(self, order: Order) -> Prepared | Refused:
        """See `Connector.prepare`: the CA chooses the serial number, so none is named."""
        return Prepared()

    async def issue(self, order: Order, prepared: Prepared) -> Result:
        """See `Connector.issue`."""
        der = self._sign(order)
        await asyncio.to_thread(self.register.add, order.key, der)
        return await self.find(order) or UnknownOutcome()

    async def find(self, order: Order, handle: str = "") -> Issued | None:
        """See `Connector.find`."""
        found = await asyncio.to_thread(self.register.find, order.key)
        return Issued(found) if found is not None else None

    async def revoke(
        self, serial: str, ca: str, reason: RevocationReason, certificate: bytes = b""
    ) -> None:
        """See `Connector.revoke`."""
        del certificate
        await asyncio.to_thread(self.register.set_status, serial, str(reason))

    async def check(self) -> str:
        """See `Connector.check`."""
        with self.register.open():
            return "the register opens"

    async def close(self) -> None:
        """See `Connector.close`: nothing is kept open."""

    def _sign(self, order: Order) -> bytes:
        """The certificate, under a serial number of the CA's own."""
        ca = read_certificate(self.current.chain[0])
        algorithm = signature_identifier(scheme_of(ca.spki), SHA256)
        made = draft(order.template, ca.subject, algorithm, secrets.token_bytes(32), order.key)
        return certificate(made.tbs, algorithm, self.key.sign(made.tbs, ec.ECDSA(hashes.SHA256())))


def _build(configuration: Configuration, name: str, section: AnyIssuerSection) -> RegistryConnector:
    options = section.options if isinstance(section, ConnectorSection) else {}
    if not isinstance(section, ConnectorSection) or set(options) != {"register_path", "key_path"}:
        raise SettingsError(f"issuers.{name}.options: register_path and key_path are needed")
    secret = read_secret_file(configuration.path(Path(options["key_path"])))
    key = load_pem_private_key(secret, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SettingsError(f"issuers.{name}.options.key_path: no EC key")
    register = Register(configuration.path(Path(options["register_path"])))
    return RegistryConnector(read_pinned(configuration, section), section.lease, register, key)


KIND: Final = ConnectorKind(_NAME, _build)
