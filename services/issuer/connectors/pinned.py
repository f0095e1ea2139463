"""CAs whose keys are elsewhere: their certificates, as the configuration pins them."""

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from services.issuer.ceilings import Ceilings
from services.issuer.connectors.connector import (
    CrlAuthority,
    OcspAuthority,
    Order,
    Prepared,
    RaAuthority,
    Refused,
)
from shared.config.ca_files import check_ca, sort_chain
from shared.config.keys import read_certificates
from shared.config.load import SettingsError
from shared.config.sections import AnyIssuerSection, Configuration
from shared.log.events.certificates import CaChain
from shared.scep.certificate import read_certificate
from shared.scep.errors import ScepError
from shared.scep.schemes import scheme_of
from shared.x509.key_ids import spki_sha256
from shared.x509.usages import EXTENDED_KEY_USAGES


@dataclass(frozen=True)
class PinnedCa:
    """See `IssuingCa`."""

    chain: tuple[bytes, ...]
    ceilings: Ceilings

    @property
    def pin(self) -> str:
        """See `IssuingCa.pin`."""
        return self.ceilings.ca_spki_sha256


@dataclass(frozen=True)
class PinnedCas:
    """The CAs of an external issuer: the current one, and those before it."""

    current: PinnedCa
    previous: tuple[PinnedCa, ...] = ()

    def pinned(self, pin: str) -> PinnedCa | None:
        """See `Connector.pinned`."""
        return next((ca for ca in (self.current, *self.previous) if ca.pin == pin), None)

    def ca_chain(self) -> CaChain:
        """See `Connector.ca_chain`."""
        return CaChain(
            certificates=self.current.chain, previous=tuple(ca.chain[0] for ca in self.previous)
        )


@dataclass(frozen=True)
class ExternalConnector:
    """What connectors of external CAs have in common; the rest of `Connector` is theirs.

    `lease` and `pending_limit` are in seconds.
    """

    cas: PinnedCas
    lease: float
    pending_limit: float

    @property
    def needs_csr(self) -> bool:
        """See `Connector.needs_csr`: most CAs take nothing else."""
        return True

    @property
    def token_lifetime(self) -> float:
        """See `Connector.token_lifetime`."""
        return 0.0

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
        """See `Connector.prepare`: the CA chooses the serial number."""
        del order
        return Prepared()

    async def close(self) -> None:
        """See `Connector.close`: nothing is kept open."""

    @property
    def crls(self) -> CrlAuthority | None:
        """See `Connector.crls`: the CA publishes its own."""
        return None

    @property
    def ocsp(self) -> OcspAuthority | None:
        """See `Connector.ocsp`: the CA's own responder answers."""
        return None

    @property
    def ras(self) -> RaAuthority | None:
        """See `Connector.ras`: operators renew what the CA issued for RAs."""
        return None


def read_pinned(configuration: Configuration, section: AnyIssuerSection) -> PinnedCas:
    """Read `ca_cert_path` and `chain_path`; raises `SettingsError` naming the wrong file."""
    current, *previous = (
        _read(configuration, section, configuration.path(path)) for path in section.ca_cert_path
    )
    return PinnedCas(current, tuple(previous))


def _read(configuration: Configuration, section: AnyIssuerSection, path: Path) -> PinnedCa:
    ca, *above = read_certificates(path)
    check_ca(ca, path, crls=False)  # the CA signs its own
    try:
        scheme_of(read_certificate(ca.public_bytes(Encoding.DER)).spki)
    except ScepError:
        raise SettingsError(f"{path}: unsupported CA key type") from None
    if section.chain_path is not None:
        above += read_certificates(configuration.path(section.chain_path))
    chain = tuple(c.public_bytes(Encoding.DER) for c in sort_chain(ca, above))
    return PinnedCa(chain, read_ceilings(ca, section))


def read_ceilings(ca: x509.Certificate, section: AnyIssuerSection) -> Ceilings:
    """Return a CA's ceilings, from its certificate and the configuration."""
    der = ca.public_bytes(Encoding.DER)
    return Ceilings(
        ca_spki_sha256=spki_sha256(read_certificate(der).spki),
        ca_not_before=int(ca.not_valid_before_utc.timestamp()),
        ca_not_after=int(ca.not_valid_after_utc.timestamp()),
        max_ttl=int(section.max_ttl),
        max_backdate=int(section.max_backdate),
        extended_key_usages=frozenset(
            EXTENDED_KEY_USAGES.get(name, name) for name in section.extended_key_usages
        ),
        certificate_policies=frozenset(section.certificate_policies),
        allow_sid=section.allow_sid,
    )
