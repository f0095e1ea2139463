"""What the validator takes from the configuration: keys, policies, no secret of anybody else."""

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from services.validator.gates import Policy, RenewalPolicy
from shared.chains import Wanted
from shared.keys import read_event_signer, read_nkey, read_opening_key, read_trusted
from shared.seal import sealing_key_id
from shared.sections import Configuration, ProfileSection
from shared.shards import all_shards
from shared.stored import EventSigner, Trusted


@dataclass(frozen=True)
class Settings:
    """Everything the validator runs on."""

    bus_url: str
    nkey_seed: str
    shards: tuple[str, ...]
    signer: EventSigner
    validators: Trusted
    issuers: Trusted
    operators: Trusted
    opening_keys: dict[str, X25519PrivateKey]
    policies: dict[str, Policy]
    concurrency: int

    def chains(self) -> set[Wanted]:
        """The CA chains that policies name."""
        return {(p.issuer, p.ca_spki_sha256) for p in self.policies.values()}


def read_settings(configuration: Configuration) -> Settings:
    """Read the validator's keys and policies; `SettingsError` names what is wrong."""
    section = configuration.validator
    opening = [read_opening_key(configuration.path(p)) for p in section.opening_key_path]
    return Settings(
        bus_url=configuration.bus.url,
        nkey_seed=read_nkey(configuration.path(section.nkey_path)),
        shards=all_shards([e.epoch() for e in configuration.log.epochs]),
        signer=read_event_signer(configuration.path(section.signing_key_path)),
        validators=read_trusted(map(configuration.path, configuration.trust.validator_keys)),
        issuers=read_trusted(map(configuration.path, configuration.trust.issuer_keys)),
        operators=read_trusted(map(configuration.path, configuration.trust.audit_keys)),
        opening_keys={sealing_key_id(key.public_key()): key for key in opening},
        policies={
            name: _policy(configuration, profile)
            for name, profile in configuration.profiles.items()
        },
        concurrency=section.concurrency,
    )


def _policy(configuration: Configuration, profile: ProfileSection) -> Policy:
    certificate = configuration.certificate_profiles[profile.profile_id]
    return Policy(
        legacy=profile.legacy,
        challenges=tuple(c for c in profile.challenge_password if c),
        key_types=frozenset(certificate.key_types),
        sans=frozenset(certificate.sans),
        key_usages=certificate.key_usages,
        extended_key_usages=certificate.extended_key_usages,
        max_ttl=int(certificate.max_ttl),
        backdate=int(certificate.backdate),
        verdict_ttl=int(configuration.validator.verdict_ttl),
        issuer=profile.issuer_id,
        ca_spki_sha256=profile.ca_spki_sha256,
        crl_distribution_points=certificate.crl_distribution_points,
        manual=profile.approval == "manual",
        renewal=RenewalPolicy(
            allowed=profile.renewal,
            window=None if profile.renewal_window is None else int(profile.renewal_window),
            grace=int(profile.renewal_grace),
            challenge=profile.renewal_challenge,
            any_names=profile.renewal_names == "any",
            key_reuse=profile.renewal_key_reuse,
        ),
    )
