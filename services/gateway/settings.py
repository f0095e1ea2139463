"""What the gateway takes from the configuration: its limits, its profiles, whom it believes."""

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from services.gateway.ra import RaKeys, assemble, read_pair
from shared.events import Trusted
from shared.keys import read_nkey, read_sealing_key, read_trusted
from shared.scep.algorithms import AlgorithmPolicy
from shared.seal import sealing_key_id
from shared.sections import Configuration, ProfileSection
from shared.settings import SettingsError
from shared.shards import Epoch


@dataclass(frozen=True)
class Profile:
    """One SCEP endpoint as the gateway serves it."""

    name: str
    issuer: str
    ca_spki_sha256: str
    legacy: bool
    include_chain: bool
    reply_budget: float
    ra: RaKeys

    @property
    def algorithms(self) -> AlgorithmPolicy:
        """What requests may use here."""
        return AlgorithmPolicy(self.legacy)


@dataclass(frozen=True)
class Limits:
    """What the gateway takes at most; sizes in bytes, `failure_floor` in seconds."""

    body: int
    in_flight: int
    in_flight_per_source: int
    failure_floor: float


@dataclass(frozen=True)
class Settings:
    """Everything the gateway runs on."""

    bus_url: str
    nkey_seed: str
    epochs: tuple[Epoch, ...]
    retry_window: float
    validators: Trusted
    issuers: Trusted
    sealing_key: X25519PublicKey
    sealing_key_id: str
    profiles: dict[str, Profile]
    default_profile: str | None
    limits: Limits
    trusted_proxies: frozenset[str]


def read_settings(configuration: Configuration, now: float) -> Settings:
    """Read the gateway's keys; `SettingsError` names the profile and the file that is wrong."""
    section, trust = configuration.gateway, configuration.trust
    sealing_key = read_sealing_key(configuration.path(trust.sealing_key))
    return Settings(
        bus_url=configuration.bus.url,
        nkey_seed=read_nkey(configuration.path(section.nkey_path)),
        epochs=tuple(e.epoch() for e in configuration.log.epochs),
        retry_window=configuration.log.retry_window,
        validators=read_trusted(map(configuration.path, trust.validator_keys)),
        issuers=read_trusted(map(configuration.path, trust.issuer_keys)),
        sealing_key=sealing_key,
        sealing_key_id=sealing_key_id(sealing_key),
        profiles={
            name: _profile(configuration, name, profile, now)
            for name, profile in configuration.profiles.items()
        },
        default_profile=section.default_profile,
        limits=Limits(
            section.body_limit,
            section.max_in_flight,
            section.max_in_flight_per_source,
            section.failure_floor,
        ),
        trusted_proxies=frozenset(section.trusted_proxies),
    )


def _profile(
    configuration: Configuration, name: str, section: ProfileSection, now: float
) -> Profile:
    paths = zip(section.ra_cert_path, section.ra_key_path, strict=True)
    try:
        pairs = [
            read_pair(configuration.path(cert), configuration.path(key)) for cert, key in paths
        ]
        ra = assemble(pairs, now)
    except SettingsError as error:
        raise SettingsError(f"profile {name}: {error}") from None
    return Profile(
        name=name,
        issuer=section.issuer_id,
        ca_spki_sha256=section.ca_spki_sha256,
        legacy=section.legacy,
        include_chain=section.include_chain,
        reply_budget=section.reply_budget,
        ra=ra,
    )
