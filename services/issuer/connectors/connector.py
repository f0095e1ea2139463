"""The interface of connectors: how the issuer speaks to a CA.

Theory of operation. A connector turns an `Order` into a certificate. It never sees a challenge and
decides nothing: the verdict's template says what is to be signed, and the issuer checks both the
template (`ceilings.py`) and the result (`received.py`).

No certificate may be issued that the log does not know of, and none twice undetected. A connector
that chooses the serial number itself returns it from `prepare`; it is recorded before `issue` is
called. For an external CA the intent is recorded as a `CertificateOrdered` event with the order's
key and a lease. After a crash or an unknown outcome another issuer waits for the end of the lease.
What it does then depends on the connector's `Recovery`: it calls `find`, or it places the order
again. Before an order is placed again that the CA may already have carried out, a possible orphan
is recorded for operators. If an enrollment fails while an order is open, the order is settled
first: a certificate that the CA made for it is revoked there.

A kind of connector is one module with a `ConnectorKind`. `local` is built in; a package adds its
own with an entry point in the group `scepstream.issuers`, whose name is the kind.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol, TypeAlias

from services.issuer.ceilings import Ceilings
from services.issuer.crl import CrlHead
from shared.config.sections import AnyIssuerSection, Configuration
from shared.log.events.certificates import CaChain
from shared.log.events.commands import RevocationReason
from shared.log.events.enrollment import CertificateTemplate
from shared.log.reasons import Reason

_KEY_CHARACTERS: Final = 32
_BACKDATED: Final = 3600  # seconds by which a certificate usually begins before it is approved


class CaUnavailableError(Exception):
    """Raised if a CA cannot be asked now; nothing was ordered, and the call is retried later.

    The message is a sentence for operators, without secrets. `retry_after` is the CA's own wish in
    seconds, 0 if it has none. `denied` says that the CA does not accept the credentials.
    """

    def __init__(self, detail: str, retry_after: float = 0.0, *, denied: bool = False) -> None:
        """Record why, and when to try again."""
        super().__init__(detail)
        self.retry_after = retry_after
        self.denied = denied


class AnswerLostError(Exception):
    """Raised if a call may have reached the CA and its answer is missing or not readable."""


class RevocationRefusedError(Exception):
    """Raised if the CA refuses a revocation; the message says why."""


def refuse_suspension(reason: RevocationReason) -> None:
    """Raise `RevocationRefusedError` for a CA that can only revoke, if the reason is a hold."""
    if reason in (RevocationReason.CERTIFICATE_HOLD, RevocationReason.REMOVE_FROM_CRL):
        raise RevocationRefusedError("this CA cannot suspend a certificate, only revoke it")


class Recovery(StrEnum):
    """How an order can be found again after a crash or an unknown outcome.

    `named`: the client chooses the order's name and can ask for it. `searchable`: certificates can
    be searched by their content. `short_token`: an idempotency key that expires. `deferred`: the
    CA makes nothing before `find` is called with the handle that `issue` returned. `blind`: not at
    all, unless the CA gave the order a handle.
    """

    NAMED = "named"
    SEARCHABLE = "searchable"
    SHORT_TOKEN = "short_token"  # noqa: S105 - no secret
    DEFERRED = "deferred"
    BLIND = "blind"


@dataclass(frozen=True, slots=True)
class Order:
    """One certificate to issue for an attempt (`enrollment`, its subject prefix).

    The template names the CA. `verdict_sha256` is the digest of the verdict as it is stored. `csr`
    is the device's CSR as DER, b"" unless the connector needs it. It contains the device's
    challenge: no connector logs it.
    """

    enrollment: str
    template: CertificateTemplate
    verdict_sha256: str
    csr: bytes = field(default=b"", repr=False)

    @property
    def key(self) -> str:
        """The order's name at the CA: 32 characters of 0-9 and a-f, the same for one verdict."""
        content = f"{self.enrollment} {self.verdict_sha256}".encode()
        return hashlib.sha256(content).hexdigest()[:_KEY_CHARACTERS]

    @property
    def tagged_not_after(self) -> int:
        """The approved end of validity, less up to a tenth of it and at most an hour, by the key.

        At a CA that can be searched only by content, the key and this second identify the order.
        """
        lifetime = self.template.not_after - self.template.not_before - _BACKDATED
        span = max(1, min(3600, lifetime // 10))
        return self.template.not_after - int(self.key[:8], 16) % span


@dataclass(frozen=True, slots=True)
class Prepared:
    """An order that may be issued; `serial` is the serial number if the connector chooses it.

    `content` belongs to the connector and is passed back to `issue`.
    """

    serial: bytes = b""
    content: object = None


@dataclass(frozen=True, slots=True)
class Issued:
    """The certificate as DER.

    `others` are further certificates that the CA made for the order; they are revoked.
    """

    certificate: bytes
    others: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Pending:
    """The CA has the order and has not decided.

    `handle` is the CA's name for the order; it is recorded and passed back to `find`. With the
    recovery `blind` an order without one counts as an unknown outcome.
    """

    handle: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """The CA refused; `detail` is a sentence for people, without secrets."""

    detail: str
    reason: Reason = Reason.CA_REFUSED


@dataclass(frozen=True, slots=True)
class UnknownOutcome:
    """The CA may have issued; `find` shows it later."""

    detail: str = ""


Result: TypeAlias = Issued | Pending | Refused | UnknownOutcome


class IssuingCa(Protocol):
    """One CA of an issuer, which profiles name by its pin."""

    @property
    def chain(self) -> tuple[bytes, ...]:
        """The CA's certificate and those above it, as DER."""

    @property
    def ceilings(self) -> Ceilings:
        """The most that the CA signs."""

    @property
    def pin(self) -> str:
        """The SHA-256 of the CA's SubjectPublicKeyInfo, as hex."""


class CrlSigner(IssuingCa, Protocol):
    """A CA whose CRLs are signed by the issuer service."""

    def sign_crl(
        self, head: CrlHead, entries: Mapping[bytes, bytes], points: Sequence[str] = ()
    ) -> bytes:
        """Return the CRL as DER.

        `entries` are encoded, by serial number; `points` are the URLs of a partition, () if the CRL
        is complete.
        """


class CrlAuthority(Protocol):
    """An issuer whose CRLs the issuer service publishes."""

    @property
    def active(self) -> tuple[CrlSigner, ...]:
        """The issuer's CAs that may have issued certificates."""

    @property
    def crl_validity(self) -> int:
        """Seconds from thisUpdate to nextUpdate."""


class ServiceCa(IssuingCa, Protocol):
    """A CA that certifies keys of the services."""

    def issue(self, template: CertificateTemplate, name: str) -> bytes:
        """Return a certificate (DER) for a service, whose serial number follows from `name` too."""


class OcspAuthority(Protocol):
    """An issuer whose OCSP responses the issuer service signs."""

    @property
    def active(self) -> tuple[ServiceCa, ...]:
        """The issuer's CAs that may have issued certificates."""

    @property
    def ocsp_validity(self) -> int:
        """Seconds from thisUpdate to nextUpdate."""


class RaAuthority(Protocol):
    """An issuer whose RA certificates the issuer service renews."""

    @property
    def active(self) -> tuple[ServiceCa, ...]:
        """The issuer's CAs that may have issued certificates."""

    @property
    def ra_certificates(self) -> tuple[bytes, ...]:
        """The RA certificates (DER) to renew."""


class Connector(Protocol):
    """An issuer's CAs, and how to reach them.

    Methods may be called twice with the same order. They run on the event loop and must not block.
    """

    @property
    def recovery(self) -> Recovery:
        """How an order can be found again."""

    @property
    def needs_csr(self) -> bool:
        """Whether orders must contain the device's CSR."""

    @property
    def lease(self) -> float:
        """For how many seconds one issuer has an order to itself, and waits for an answer.

        0 only for `local`, whose CA is in this process: no order is recorded for it.
        """

    @property
    def pending_limit(self) -> float:
        """For how many seconds the CA may leave an order undecided."""

    @property
    def token_lifetime(self) -> float:
        """For how many seconds a repeated order gives the same certificate; 0 if it never does.

        Counts only for the recovery `short_token`.
        """

    @property
    def current(self) -> IssuingCa:
        """The CA that signs now."""

    def pinned(self, pin: str) -> IssuingCa | None:
        """Return the CA with this pin, current or previous; None if the issuer has no such CA."""

    def ca_chain(self) -> CaChain:
        """Return the chain that is published for gateways and validators."""

    def prepare(self, order: Order) -> Prepared | Refused:
        """Check an order before anything is recorded or sent."""

    async def issue(self, order: Order, prepared: Prepared) -> Result:
        """Place the order.

        The recovery `named` means that the CA makes one certificate for one key, however often it
        is asked. Raises `CaUnavailableError` only if the order certainly was not placed; any other
        error counts as an unknown outcome.
        """

    async def find(self, order: Order, handle: str = "") -> Result | None:
        """Return what became of an order that was placed; None if the CA does not have it.

        `handle` is the CA's name for the order if `Pending` gave one. Without one this is called
        for the recoveries `named` and `searchable` only. The order has a CSR only if it may still
        be carried out: without one the CA must not be made to issue. Raises `CaUnavailableError`
        if the CA cannot be asked now.
        """

    async def revoke(
        self, serial: str, ca: str, reason: RevocationReason, certificate: bytes = b""
    ) -> None:
        """Set a certificate's status at the CA; repeating the call changes nothing.

        `ca` is the CA's pin, `certificate` the certificate as DER, b"" if it cannot be read from
        the log. `certificateHold` suspends the certificate and `removeFromCRL`
        releases it. Raises `RevocationRefusedError` for a reason that the CA does not support, and
        `CaUnavailableError` if it cannot be asked now.
        """

    async def check(self) -> str:
        """Try the CA without ordering anything; return what works, in a sentence for operators.

        Raises `CaUnavailableError` whose message says what is wrong and what to do.
        """

    async def close(self) -> None:
        """Close connections; calls under way may fail."""

    @property
    def crls(self) -> CrlAuthority | None:
        """Signs this issuer's CRLs in this process; None if the CA publishes its own."""

    @property
    def ocsp(self) -> OcspAuthority | None:
        """Certifies the signers of this issuer's OCSP responses; None if it has none."""

    @property
    def ras(self) -> RaAuthority | None:
        """Renews RA certificates; None if the issuer has none to renew."""


@dataclass(frozen=True)
class ConnectorKind:
    """One kind of connector; `build` reads its files and raises `SettingsError`."""

    kind: str
    build: Callable[[Configuration, str, AnyIssuerSection], Connector]
