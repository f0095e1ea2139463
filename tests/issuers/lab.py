"""A connector and the CA behind it, as the contract of all connectors sees them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from cryptography import x509

from services.issuer.connectors.connector import Connector, Order
from tests.issuers.orders import order
from tests.issuers.proxy import Proxy


async def _nothing(_: str) -> None:
    return None


@dataclass
class Lab:
    """One kind of connector with a running CA.

    `made` returns the certificates (DER) that the CA has made for devices. `is_revoked` takes a
    serial number as hex. `refused` is an order that the CA refuses, `denied` the connector with
    credentials that the CA does not accept; None where a CA has no such thing. `approve` lets a
    pending order pass, by handle; `pends` says that every order is pending first. `revokes` says
    that the CA can revoke certificates at all, `holds` that it can suspend them, `knows_serials`
    that it refuses a serial number of nobody. `secrets` must not appear in any text. `proxy`, if
    any, stands between both and can spoil answers.
    """

    connector: Connector
    made: Callable[[], Awaitable[list[bytes]]]
    is_revoked: Callable[[str], Awaitable[bool]]
    proxy: Proxy | None = None
    refused: Order | None = None
    denied: Connector | None = None
    approve: Callable[[str], Awaitable[None]] = _nothing
    pends: bool = False
    holds: bool = False
    revokes: bool = True
    knows_serials: bool = True
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def ca(self) -> x509.Certificate:
        """The CA's certificate."""
        return x509.load_der_x509_certificate(self.connector.current.chain[0])

    def order(self) -> Order:
        """A new order for this CA."""
        return order(self.ca)
