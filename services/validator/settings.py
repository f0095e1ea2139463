"""The validator's settings, read from the configuration: keys, policies, and who may enroll."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from services.validator.access import Access, read_access, renewal_needs_challenge
from services.validator.gates import Policy, RenewalPolicy
from services.validator.microsoft.connection import TenantConnection
from shared.bus.servers import Servers
from shared.ca.chains import ChainKey
from shared.ca.partitions import NO_PARTITIONS, Partitioning
from shared.config.keys import (
    read_blocked_keys,
    read_event_signer,
    read_nkey,
    read_opening_key,
    read_sealing_key,
    read_trusted,
)
from shared.config.load import read_profiles
from shared.config.profiles import ProfileSection
from shared.config.sections import Configuration
from shared.limits import PROFILE_PLACES
from shared.log.envelope import EventSigner, Trusted
from shared.log.seal import sealing_key_id
from shared.log.shards import Epoch
from shared.x509.blocked_keys import BlockedKeys
from shared.x509.name_patterns import read_san_pattern, read_subject_pattern
from shared.x509.name_templates import read_san_template, read_subject_template
from shared.x509.policies import read_policy


@dataclass(frozen=True)
class Settings:
    """Everything the validator needs to run.

    `left_out` maps each profile that this replica does not serve to the reason.
    """

    servers: Servers
    nkey_seed: str
    epochs: tuple[Epoch, ...]
    signer: EventSigner
    validators: Trusted
    issuers: Trusted
    operators: Trusted
    opening_keys: dict[str, X25519PrivateKey]
    csr_recipient: X25519PublicKey | None
    policies: dict[str, Policy]
    access: dict[str, Access]
    concurrency: int
    blocked_keys: BlockedKeys = field(default_factory=BlockedKeys)
    left_out: Mapping[str, str] = field(default_factory=dict)

    def places(self) -> int:
        """Return how many requests may be processed at once.

        Requests that wait for an external service, or for their profile to be served, get places of
        their own, so that they do not block the others.
        """
        asking = [n for n, access in self.access.items() if access.asks_outside]
        return self.concurrency + PROFILE_PLACES * (len(asking) + len(self.left_out))

    def connections(self) -> dict[str, TenantConnection]:
        """Return the connections to tenants of Intune that the profiles use, by name."""
        found = (access.tenant for access in self.access.values())
        return {tenant.name: tenant for tenant in found if tenant is not None}

    def chains(self) -> set[ChainKey]:
        """Return the CA chains that the policies name."""
        return {(p.issuer, p.ca_spki_sha256) for p in self.policies.values()}


def read_settings(configuration: Configuration, now: float) -> Settings:
    """Read the validator's keys and policies; raises `SettingsError` naming what is wrong."""
    section = configuration.validator
    access, left_out = read_profiles(
        configuration, lambda _, profile: read_access(configuration, profile, now)
    )
    opening = [read_opening_key(configuration.path(p)) for p in section.opening_key_path]
    return Settings(
        servers=configuration.servers(),
        nkey_seed=read_nkey(configuration.path(section.nkey_path)),
        epochs=configuration.epochs(),
        signer=read_event_signer(configuration.path(section.signing_key_path)),
        validators=read_trusted(map(configuration.path, configuration.trust.validator_keys)),
        issuers=read_trusted(map(configuration.path, configuration.trust.issuer_keys)),
        operators=read_trusted(map(configuration.path, configuration.trust.audit_keys)),
        csr_recipient=_csr_recipient(configuration),
        opening_keys={sealing_key_id(key.public_key()): key for key in opening},
        policies={
            name: _policy(configuration, name, configuration.profiles[name]) for name in access
        },
        access=access,
        concurrency=section.concurrency,
        blocked_keys=read_blocked_keys(map(configuration.path, section.blocked_keys_path or ())),
        left_out=left_out,
    )


def _csr_recipient(configuration: Configuration) -> X25519PublicKey | None:
    """Return the key to which CSRs for external CAs are sealed, None if there is none."""
    path = configuration.trust.issuer_sealing_key
    return read_sealing_key(configuration.path(path)) if path is not None else None


def _policy(configuration: Configuration, name: str, profile: ProfileSection) -> Policy:
    certificate = configuration.certificate_profiles[profile.profile_id]
    return Policy(
        legacy=profile.legacy,
        fleet=profile.fleet or name,
        key_types=frozenset(certificate.key_types),
        sans=frozenset(certificate.sans),
        subject_patterns=tuple(map(read_subject_pattern, certificate.subject_patterns)),
        san_patterns=tuple(map(read_san_pattern, certificate.san_patterns)),
        subject_template=tuple(map(read_subject_template, certificate.subject_template)),
        san_templates=tuple(map(read_san_template, certificate.san_templates)),
        sid_extension=certificate.sid_extension,
        key_usages=certificate.key_usages,
        extended_key_usages=certificate.extended_key_usages,
        max_ttl=int(min(certificate.max_ttl, configuration.issuers[profile.issuer_id].max_ttl)),
        backdate=int(certificate.backdate),
        verdict_ttl=int(configuration.validator.verdict_ttl),
        issuer=profile.issuer_id,
        external=configuration.issuers[profile.issuer_id].kind != "local",
        ca_spki_sha256=profile.ca_spki_sha256,
        crl_distribution_points=certificate.crl_distribution_points,
        crl_partitioning=_partitioning(configuration, profile.issuer_id),
        ca_issuers=certificate.ca_issuers,
        ocsp=certificate.ocsp,
        must_staple=certificate.must_staple,
        certificate_policies=tuple(map(read_policy, certificate.certificate_policies)),
        manual=profile.approval == "manual",
        staple_ocsp=profile.staple_ocsp,
        connection=profile.intune_connection or "",
        withheld=profile.intune_wait_for_success_notification,
        any_signer=profile.signer_key == "any",
        renewal=RenewalPolicy(
            allowed=profile.renews,
            window=None if profile.renewal_window is None else ceil(profile.renewal_window),
            grace=int(profile.renewal_grace),
            challenge=renewal_needs_challenge(profile),
            any_names=profile.renewal_names == "any",
            key_reuse=profile.renewal_key_reuse,
        ),
    )


def _partitioning(configuration: Configuration, issuer: str) -> Partitioning:
    section = configuration.partitioned().get(issuer)
    if section is None:
        return NO_PARTITIONS
    return Partitioning(section.crl_partitions, section.crl_partition_urls)
