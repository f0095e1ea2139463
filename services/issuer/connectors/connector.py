"""What a way to a CA consists of: the seam for connectors.

Theory of operation. A connector turns an `Order` into a certificate. It never sees a challenge and
decides nothing: the verdict's template is what is to be signed, and the issuer checks both the
template (`ceilings.py`) and what comes back (`received.py`).

Nothing may be issued that the log does not know of, and nothing twice. A connector that chooses the
serial number itself names it in `prepare`; it is recorded before `issue` is called. For an external
CA the intent is recorded as a `CertificateOrdered` event with the order's key and a lease. After a
crash or an unknown outcome another issuer waits for the end of the lease and asks `find` for the
order of that key; only where the CA says that there is none does it order again. An enrollment that
fails while an order is open is settled first: what the CA made for it is revoked there.

A kind of connector is one module with a `ConnectorKind`. `local` is built in; a package adds its
own with an entry point of the group `scepstream.issuers`, whose name is the kind.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol, TypeAlias

from services.issuer.ceilings import Ceilings
from services.issuer.crl import CrlHead, RevokedEntry
from shared.config.sections import AnyIssuerSection, Configuration
from shared.log.events.certificates import CaChain
from shared.log.events.commands import RevocationReason
from shared.log.events.enrollment import CertificateTemplate
from shared.log.reasons import Reason

_KEY_CHARACTERS: Final = 32


class CaUnavailableError(Exception):
    """Raised for a CA that cannot be asked now: waiting cures it, and nothing was ordered."""


class RevocationRefusedError(Exception):
    """Raised for a revocation that the CA refuses; the message says why."""


class Recovery(StrEnum):
    """How an order can be found again after a crash or an unknown outcome.

    `named`: the client chooses the order's name and asks for it. `searchable`: orders can be
    searched. `short_token`: an idempotency key that expires. `blind`: there is no way.
    """

    NAMED = "named"
    SEARCHABLE = "searchable"
    SHORT_TOKEN = "short_token"  # noqa: S105 - no secret
    BLIND = "blind"


@dataclass(frozen=True, slots=True)
class Order:
    """One certificate to issue, for an attempt (its subject prefix); the template names the CA.

    `verdict_sha256` is of the verdict as it is stored.
    """

    enrollment: str
    template: CertificateTemplate
    verdict_sha256: str

    @property
    def key(self) -> str:
        """The order's name at the CA: 32 characters of 0-9 and a-f, the same for one verdict."""
        content = f"{self.enrollment} {self.verdict_sha256}".encode()
        return hashlib.sha256(content).hexdigest()[:_KEY_CHARACTERS]


@dataclass(frozen=True, slots=True)
class Prepared:
    """An order that may be issued; `serial` is the serial number where the connector chooses it.

    `content` is the connector's own, and handed back to `issue`.
    """

    serial: bytes = b""
    content: object = None


@dataclass(frozen=True, slots=True)
class Issued:
    """The certificate as DER."""

    certificate: bytes


@dataclass(frozen=True, slots=True)
class Pending:
    """The CA has the order and has not decided."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The CA refused; `detail` is a sentence for people, without secrets."""

    detail: str
    reason: Reason = Reason.CA_REFUSED


@dataclass(frozen=True, slots=True)
class UnknownOutcome:
    """The CA may have issued: `find` tells later."""

    detail: str = ""


Result: TypeAlias = Issued | Pending | Refused | UnknownOutcome


class IssuingCa(Protocol):
    """One CA of an issuer, as profiles pin it."""

    @property
    def chain(self) -> tuple[bytes, ...]:
        """Its certificate and those above it, DER."""

    @property
    def ceilings(self) -> Ceilings:
        """What it signs at most."""

    @property
    def pin(self) -> str:
        """SHA-256 of its SubjectPublicKeyInfo, hex."""


class CrlSigner(IssuingCa, Protocol):
    """A CA whose CRLs are signed here."""

    def sign_crl(self, head: CrlHead, entries: Iterable[RevokedEntry]) -> bytes:
        """Return the CRL as DER."""


class CrlAuthority(Protocol):
    """An issuer whose CRLs are kept here."""

    @property
    def active(self) -> tuple[CrlSigner, ...]:
        """Its CAs that have certificates."""

    @property
    def crl_validity(self) -> int:
        """Seconds from thisUpdate to nextUpdate."""


class Connector(Protocol):
    """An issuer's CAs, and how they are reached.

    Methods may be called twice with the same order, and run on the event loop: they must not block.
    """

    @property
    def recovery(self) -> Recovery:
        """How an order can be found again."""

    @property
    def lease(self) -> float:
        """How many seconds one issuer alone works on an order, and waits for an answer.

        0 only for `local`, whose CA is in this process: no order is recorded for it.
        """

    @property
    def current(self) -> IssuingCa:
        """The CA that signs now."""

    def pinned(self, pin: str) -> IssuingCa | None:
        """Return the CA of this pin, current or previous; None for one that is not here."""

    def ca_chain(self) -> CaChain:
        """Return what gateways and validators are shown."""

    def prepare(self, order: Order) -> Prepared | Refused:
        """Check an order before anything is recorded or sent."""

    async def issue(self, order: Order, prepared: Prepared) -> Result:
        """Place the order; `CaUnavailableError` only where it certainly was not placed.

        The CA makes one certificate for one key, however often and by how many issuers it is
        asked. What else is raised counts as an unknown outcome.
        """

    async def find(self, order: Order) -> Result | None:
        """Return what became of an order with this key; None where the CA has none."""

    async def revoke(self, serial: str, ca: str, reason: RevocationReason) -> None:
        """Give a certificate this status at the CA; asked again, nothing more happens.

        `certificateHold` suspends it and `removeFromCRL` releases it. Raises
        `RevocationRefusedError` for a reason that the CA does not know, `CaUnavailableError`
        where it cannot be asked now.
        """

    @property
    def crls(self) -> CrlAuthority | None:
        """Who signs this issuer's CRLs here; None where the CA publishes its own."""


@dataclass(frozen=True)
class ConnectorKind:
    """One kind of connector: `build` reads its files and raises `SettingsError`."""

    kind: str
    build: Callable[[Configuration, str, AnyIssuerSection], Connector]
