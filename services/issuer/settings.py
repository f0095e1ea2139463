"""The issuer's settings, read from the configuration: CAs, keys, and trusted validators."""

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from services.issuer.ceilings import ended
from services.issuer.connectors.connector import Connector
from services.issuer.connectors.registry import read_connector
from shared.bus.servers import Servers
from shared.config.keys import read_event_signer, read_nkey, read_opening_key, read_trusted
from shared.config.sections import Configuration
from shared.limits import PROFILE_PLACES
from shared.log.envelope import EventSigner, Trusted
from shared.log.seal import sealing_key_id
from shared.log.shards import Epoch


@dataclass(frozen=True)
class Settings:
    """Everything the issuer needs to run."""

    servers: Servers
    nkey_seed: str
    epochs: tuple[Epoch, ...]
    signer: EventSigner
    validators: Trusted
    trusted_issuers: Trusted
    operators: Trusted
    opening_keys: dict[str, X25519PrivateKey]
    issuers: dict[str, Connector]
    concurrency: int

    def places(self) -> int:
        """Return how many verdicts may be processed at once; external CAs have their own places."""
        outside = [c for c in self.issuers.values() if c.lease > 0]
        return self.concurrency + PROFILE_PLACES * len(outside)

    def ended(self, at: float) -> list[str]:
        """Return a sentence for each current CA that has ended at this time (Unix seconds)."""
        found = ((n, ended(a.current.ceilings, int(at))) for n, a in self.issuers.items())
        return [f"issuer {name}: {problem}" for name, problem in found if problem]


def read_settings(configuration: Configuration) -> Settings:
    """Read the issuer's CAs and keys; raises `SettingsError` naming what is wrong."""
    section = configuration.issuer
    opening = [read_opening_key(configuration.path(p)) for p in section.opening_key_path or ()]
    return Settings(
        servers=configuration.servers(),
        nkey_seed=read_nkey(configuration.path(section.nkey_path)),
        epochs=configuration.epochs(),
        signer=read_event_signer(configuration.path(section.signing_key_path)),
        validators=read_trusted(map(configuration.path, configuration.trust.validator_keys)),
        trusted_issuers=read_trusted(map(configuration.path, configuration.trust.issuer_keys)),
        operators=read_trusted(map(configuration.path, configuration.trust.audit_keys)),
        opening_keys={sealing_key_id(key.public_key()): key for key in opening},
        issuers={name: read_connector(configuration, name) for name in configuration.issuers},
        concurrency=section.concurrency,
    )
