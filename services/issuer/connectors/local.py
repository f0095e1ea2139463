"""`local`: a CA with its key in a file or a PKCS#11 token; signs CRLs and its successor too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from services.issuer.ceilings import Ceilings
from services.issuer.certificate import Draft, certificate, draft
from services.issuer.connectors.connector import (
    ConnectorKind,
    CrlAuthority,
    Issued,
    OcspAuthority,
    Order,
    Prepared,
    RaAuthority,
    Recovery,
    Refused,
)
from services.issuer.connectors.pinned import read_ceilings
from services.issuer.crl import CrlHead, crl, tbs_crl
from services.issuer.lints import first_error
from services.issuer.readable import unreadable
from shared.ca.partitions import Partitioning
from shared.config.ca_files import read_ca
from shared.config.keys import read_certificates
from shared.config.load import SettingsError, read_secret_file
from shared.config.sections import AnyIssuerSection, Configuration, LocalIssuerSection
from shared.log.events.certificates import CaChain
from shared.log.events.commands import RevocationReason
from shared.log.events.enrollment import CertificateTemplate
from shared.log.reasons import Reason
from shared.scep.algorithms import SHA256
from shared.scep.cacert import write_next_ca_certs
from shared.scep.certificate import Certificate, read_certificate
from shared.scep.schemes import (
    PublicKey,
    Scheme,
    SigningKey,
    public_key,
    scheme_of,
    sign,
    signature_identifier,
    verifies,
)
from shared.scep.signed_data import Signer
from shared.x509.key_ids import public_key_id
from shared.x509.signatures import is_signed_by

_MIN_SECRET = 32


class SigningError(Exception):
    """Raised if a signature does not verify or no CA has the pin: a fault, never a refusal."""


@dataclass(frozen=True)
class LocalCa:
    """A CA's certificate and key, its chain (DER), and its ceilings.

    `secret` is the key from which serial numbers are derived.
    """

    certificate: x509.Certificate
    key: SigningKey
    chain: tuple[bytes, ...]
    secret: bytes
    ceilings: Ceilings

    @cached_property
    def parsed(self) -> Certificate:
        """The CA certificate, parsed into its exact bytes."""
        return read_certificate(self.chain[0])

    @cached_property
    def scheme(self) -> Scheme:
        """The signature scheme of the CA's key."""
        return scheme_of(self.parsed.spki)

    @cached_property
    def algorithm(self) -> bytes:
        """The AlgorithmIdentifier of the CA's signatures."""
        return signature_identifier(self.scheme, SHA256)

    @property
    def name(self) -> bytes:
        """The CA's subject, byte for byte."""
        return self.parsed.subject

    @property
    def pin(self) -> str:
        """The name of the CA in profiles and events."""
        return self.ceilings.ca_spki_sha256

    @cached_property
    def _public_key(self) -> PublicKey:
        return public_key(self.parsed.spki)

    def draft(self, template: CertificateTemplate, enrollment: str) -> Draft:
        """Return the unsigned certificate of an attempt (its subject prefix), to be checked."""
        return draft(template, self.name, self.algorithm, self.secret, enrollment)

    def unsigned(self, made: Draft) -> bytes:
        """Return the certificate as DER with an empty signature, for checks before it is signed."""
        return certificate(made.tbs, self.algorithm, b"")

    def sign(self, made: Draft) -> bytes:
        """Return the certificate as DER, after verifying its signature.

        A faulty signature can give an RSA key away, and a wrong one breaks a device.
        """
        signature = self._signature(made.tbs)
        if not verifies(self._public_key, self.scheme, SHA256, signature, made.tbs):
            raise SigningError("the signed certificate does not verify")
        return certificate(made.tbs, self.algorithm, signature)

    def issue(self, template: CertificateTemplate, name: str) -> bytes:
        """Return a certificate (DER) for a service; see `ServiceCa.issue`."""
        return self.sign(self.draft(template, name))

    def sign_crl(
        self, head: CrlHead, entries: Mapping[bytes, bytes], points: Sequence[str] = ()
    ) -> bytes:
        """See `CrlSigner.sign_crl`; verifies the signature."""
        key_id = self.parsed.key_id or public_key_id(self.parsed.spki)
        tbs = tbs_crl(head, self.name, self.algorithm, key_id, entries, points)
        der = crl(tbs, self.algorithm, self._signature(tbs))
        if not is_signed_by(der, self._public_key):
            raise SigningError("the signed CRL does not verify")
        return der

    def try_key(self) -> None:
        """Sign a constant, and verify the signature; raises `SigningError`."""
        data = b"scepstream"
        if not verifies(self._public_key, self.scheme, SHA256, self._signature(data), data):
            raise SigningError("the CA's key does not match its certificate")

    def sign_next(self, certificates: tuple[bytes, ...]) -> bytes:
        """Return the next CA's chain signed by this CA; gateways answer GetNextCACert with it."""
        return write_next_ca_certs(certificates, Signer(self.key, self.parsed, self.scheme), ())

    def _signature(self, data: bytes) -> bytes:
        return sign(self.key, self.scheme, SHA256, data)


@dataclass(frozen=True)
class LocalConnector:
    """See `Connector`; holds the current CA, the previous ones, and the planned next one.

    The serial number is derived from the attempt and the content, so that an order gives the same
    TBSCertificate however often it is issued. It is recorded before the CA signs.
    """

    current: LocalCa
    previous: tuple[LocalCa, ...] = ()
    planned: LocalCa | None = None
    crl_validity: int = 7 * 86400
    ocsp_validity: int = 0
    ra_certificates: tuple[bytes, ...] = ()

    @property
    def active(self) -> tuple[LocalCa, ...]:
        """The CAs that may have issued: they sign CRLs, and certificates for verdicts on them."""
        return (self.current, *self.previous)

    @property
    def recovery(self) -> Recovery:
        """See `Connector.recovery`."""
        return Recovery.NAMED

    @property
    def pending_limit(self) -> float:
        """See `Connector.pending_limit`: no order waits."""
        return 0.0

    @property
    def token_lifetime(self) -> float:
        """See `Connector.token_lifetime`."""
        return 0.0

    @property
    def needs_csr(self) -> bool:
        """See `Connector.needs_csr`: the template is enough."""
        return False

    @property
    def lease(self) -> float:
        """See `Connector.lease`: no order is recorded, so none is taken over."""
        return 0.0

    @property
    def crls(self) -> CrlAuthority | None:
        """See `Connector.crls`."""
        return self

    @property
    def ocsp(self) -> OcspAuthority | None:
        """See `Connector.ocsp`."""
        return self if self.ocsp_validity else None

    @property
    def ras(self) -> RaAuthority | None:
        """See `Connector.ras`."""
        return self if self.ra_certificates else None

    def pinned(self, pin: str) -> LocalCa | None:
        """See `Connector.pinned`."""
        return next((ca for ca in self.active if ca.pin == pin), None)

    def ca_chain(self) -> CaChain:
        """See `Connector.ca_chain`."""
        return CaChain(
            certificates=self.current.chain,
            previous=tuple(ca.chain[0] for ca in self.previous),
            next_signed=self.next_signed,
        )

    def prepare(self, order: Order) -> Prepared | Refused:
        """See `Connector.prepare`: drafts the certificate and refuses one that is not readable.

        It must load and have no error of `lints`.
        """
        signer = self._signer(order)
        template, enrollment = order.template, order.enrollment
        made = signer.draft(template, enrollment)
        unsigned = signer.unsigned(made)
        if problem := unreadable(
            template, unsigned, lambda plain: signer.unsigned(signer.draft(plain, enrollment))
        ):
            return Refused(problem, Reason.UNREADABLE)
        if problem := first_error(unsigned):
            return Refused(f"the certificate would be invalid: {problem}", Reason.UNREADABLE)
        return Prepared(made.serial, made)

    async def issue(self, order: Order, prepared: Prepared) -> Issued:
        """See `Connector.issue`."""
        signer, made = self._signer(order), prepared.content
        if not isinstance(made, Draft):
            made = signer.draft(order.template, order.enrollment)
        return Issued(signer.sign(made))

    async def find(self, order: Order, handle: str = "") -> None:
        """See `Connector.find`: always None, since issuing again gives the same certificate."""

    async def revoke(
        self,
        serial: str,
        ca: str,
        reason: RevocationReason,
        certificate: bytes = b"",
    ) -> None:
        """See `Connector.revoke`: nothing to do, the CRL is enough."""

    async def check(self) -> str:
        """See `Connector.check`: the key signs, and the signature verifies."""
        self.current.try_key()
        return "the CA's key signs"

    async def close(self) -> None:
        """See `Connector.close`: nothing to close."""

    def _signer(self, order: Order) -> LocalCa:
        found = self.pinned(order.template.ca_spki_sha256)
        if found is None:
            raise SigningError("no local CA matches the pin")
        return found

    @cached_property
    def next_signed(self) -> bytes:
        """The announcement of the next CA, empty if none is planned."""
        return self.current.sign_next(self.planned.chain) if self.planned else b""


def read_local(configuration: Configuration, section: LocalIssuerSection) -> LocalConnector:
    """Read an issuer's CAs from their files; raises `SettingsError` naming the wrong one."""
    secret_path = configuration.path(section.secret_path)
    secret = read_secret_file(secret_path)
    if len(secret) < _MIN_SECRET:
        raise SettingsError(f"{secret_path}: shorter than {_MIN_SECRET} bytes")
    pairs = zip(section.ca_cert_path, section.ca_key_path, strict=True)
    current, *previous = (_read_ca(configuration, section, pair, secret) for pair in pairs)
    planned = None
    if section.next_ca_cert_path and section.next_ca_key_path:
        pair = (section.next_ca_cert_path, section.next_ca_key_path)
        planned = _read_ca(configuration, section, pair, secret)
    return LocalConnector(
        current,
        tuple(previous),
        planned,
        int(section.crl_validity),
        int(section.ocsp_validity or 0),
        tuple(_read_ra(configuration.path(path)) for path in section.ra_cert_path or ()),
    )


def _read_ra(path: Path) -> bytes:
    """Return an RA certificate (DER) to renew; raises `SettingsError` for a CA's."""
    certificate = read_certificates(path)[0]
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        constraints = None
    if constraints is not None and constraints.ca:
        raise SettingsError(f"{path}: a CA certificate, not that of an RA")
    return certificate.public_bytes(Encoding.DER)


def _read_ca(
    configuration: Configuration,
    section: LocalIssuerSection,
    pair: tuple[Path, Path],
    secret: bytes,
) -> LocalCa:
    cert_path, key_path = map(configuration.path, pair)
    chain_path = configuration.path(section.chain_path) if section.chain_path else None
    certificates, key = read_ca(cert_path, key_path, chain_path)
    chain = tuple(c.public_bytes(Encoding.DER) for c in certificates)
    return LocalCa(
        certificate=certificates[0],
        key=key,
        chain=chain,
        secret=secret,
        ceilings=replace(
            read_ceilings(certificates[0], section),
            partitioning=Partitioning(section.crl_partitions, section.crl_partition_urls),
        ),
    )


def _build(configuration: Configuration, name: str, section: AnyIssuerSection) -> LocalConnector:
    if not isinstance(section, LocalIssuerSection):
        raise SettingsError(f"issuers.{name}: not a local CA section")
    return read_local(configuration, section)


KIND: Final = ConnectorKind("local", _build)
