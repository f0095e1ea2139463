"""The issuer's settings, read from the configuration: CAs, keys, and trusted validators."""

from dataclasses import dataclass

from services.issuer.ceilings import ended
from services.issuer.connectors.connector import Connector
from services.issuer.connectors.registry import read_connector
from shared.bus.servers import Servers
from shared.config.keys import read_event_signer, read_nkey, read_trusted
from shared.config.sections import Configuration
from shared.limits import PROFILE_PLACES
from shared.log.envelope import EventSigner, Trusted
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
    return Settings(
        servers=configuration.servers(),
        nkey_seed=read_nkey(configuration.path(section.nkey_path)),
        epochs=configuration.epochs(),
        signer=read_event_signer(configuration.path(section.signing_key_path)),
        validators=read_trusted(map(configuration.path, configuration.trust.validator_keys)),
        trusted_issuers=read_trusted(map(configuration.path, configuration.trust.issuer_keys)),
        operators=read_trusted(map(configuration.path, configuration.trust.audit_keys)),
        issuers={name: read_connector(configuration, name) for name in configuration.issuers},
        concurrency=section.concurrency,
    )
