"""Settings of the gateway, read from the configuration: limits, profiles, trusted keys."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from services.gateway.ra import RaKeys, RaPair, assemble, read_pairs
from services.gateway.tls import TlsFiles, server_context
from shared.bus.servers import Servers
from shared.ca.chains import ChainKey
from shared.ca.partitions import Partitioning
from shared.config.addresses import Networks
from shared.config.keys import read_certificates, read_nkey, read_sealing_key, read_trusted
from shared.config.load import SettingsError, read_profiles, read_secret_file
from shared.config.profiles import ProfileSection
from shared.config.sections import Configuration, GatewaySection
from shared.log.envelope import Trusted
from shared.log.seal import sealing_key_id
from shared.log.shards import Epoch
from shared.runtime.connections import Shares
from shared.scep.algorithms import (
    AES128,
    CIPHERS,
    DIGESTS,
    SHA256,
    AlgorithmPolicy,
    AnyCipher,
    Digest,
)

_DIGESTS: Final = {digest.name: digest for digest in DIGESTS.values()}
_CIPHERS: Final = {cipher.name: cipher for cipher in CIPHERS.values()}


@dataclass(frozen=True)
class Profile:
    """Settings of one SCEP profile; `reply_budget` is in seconds, `message_limit` in bytes."""

    name: str
    issuer: str
    ca_spki_sha256: tuple[str, ...]
    legacy: bool
    include_chain: bool
    reply_budget: float
    ra: RaKeys
    floor_digest: Digest = SHA256
    floor_cipher: AnyCipher = AES128
    renewal: bool = True
    passwords: tuple[str, ...] = ()
    mtls_bundle: tuple[bytes, ...] = ()
    message_limit: int = 256 * 1024
    any_signer: bool = True
    empty_content: str = "auto"
    staple_ocsp: bool = False
    ra_pairs: tuple[RaPair, ...] = ()

    @property
    def algorithms(self) -> AlgorithmPolicy:
        """The algorithms that requests may use."""
        return AlgorithmPolicy(self.legacy)


@dataclass(frozen=True)
class Limits:
    """Limits of the gateway; sizes in bytes, times in seconds.

    `rate` is requests per second from one source, 0 for no limit; up to `burst` may come at once.
    """

    body: int
    in_flight: int
    in_flight_per_source: int
    failure_floor: float
    max_wait: float = 2.0
    rate: float = 0.0
    burst: int = 1


@dataclass(frozen=True)
class Settings:
    """All settings of the gateway; `left_out` maps profiles that failed to load to the problem.

    `partitionings` are those of the issuers whose CRLs are partitioned.
    """

    servers: Servers
    nkey_seed: str
    epochs: tuple[Epoch, ...]
    retry_window: float
    validators: Trusted
    issuers: Trusted
    operators: Trusted
    sealing_key: X25519PublicKey
    sealing_key_id: str
    profiles: dict[str, Profile]
    default_profile: str | None
    limits: Limits
    trusted_proxies: Networks
    shares: Shares = field(default_factory=Shares)
    tls: TlsFiles | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    partitionings: Mapping[str, Partitioning] = field(default_factory=dict)

    def client_cas(self) -> tuple[bytes, ...]:
        """Return the client CAs (DER) of all mTLS profiles."""
        return tuple(dict.fromkeys(ca for p in self.profiles.values() for ca in p.mtls_bundle))

    def chains(self) -> set[ChainKey]:
        """Return the (issuer, pins) of every chain that a profile needs."""
        return {(p.issuer, p.ca_spki_sha256) for p in self.profiles.values()}


def read_settings(configuration: Configuration, now: float) -> Settings:
    """Read the settings and their key files; `SettingsError` names the profile or file at fault."""
    section, trust = configuration.gateway, configuration.trust
    sealing_key = read_sealing_key(configuration.path(trust.sealing_key))
    profiles, left_out = read_profiles(
        configuration, lambda name, profile: _profile(configuration, name, profile, now)
    )
    return Settings(
        servers=configuration.servers(),
        nkey_seed=read_nkey(configuration.path(section.nkey_path)),
        epochs=configuration.epochs(),
        retry_window=configuration.log.retry_window,
        validators=read_trusted(map(configuration.path, trust.validator_keys)),
        issuers=read_trusted(map(configuration.path, trust.issuer_keys)),
        operators=read_trusted(map(configuration.path, trust.audit_keys)),
        sealing_key=sealing_key,
        sealing_key_id=sealing_key_id(sealing_key),
        profiles=profiles,
        left_out=left_out,
        default_profile=section.default_profile,
        limits=Limits(
            section.body_limit,
            section.max_in_flight,
            section.max_in_flight_per_source,
            section.failure_floor,
            section.max_wait,
            section.rate_per_source,
            section.burst_per_source,
        ),
        trusted_proxies=Networks.of(section.trusted_proxies),
        shares=Shares(section.max_connections_per_source, section.max_unfinished_per_source),
        tls=_tls(configuration, section),
        partitionings={
            name: Partitioning(issuer.crl_partitions, issuer.crl_partition_urls)
            for name, issuer in configuration.partitioned().items()
        },
    )


def _profile(
    configuration: Configuration, name: str, section: ProfileSection, now: float
) -> Profile:
    certs = [configuration.path(path) for path in section.ra_cert_path]
    keys = [configuration.path(path) for path in section.ra_key_path]
    files = zip(certs, keys, strict=True)
    pairs = [pair for cert, key in files for pair in read_pairs(cert, key)]
    return Profile(
        name=name,
        issuer=section.issuer_id,
        ca_spki_sha256=section.ca_spki_sha256,
        legacy=section.legacy,
        include_chain=section.include_chain,
        reply_budget=section.reply_budget,
        ra=assemble(pairs, now, certs),
        ra_pairs=tuple(pairs),
        message_limit=section.largest_message,
        floor_digest=_DIGESTS[section.reply_digest or ("md5" if section.legacy else "sha256")],
        floor_cipher=_CIPHERS[section.reply_cipher or ("des" if section.legacy else "aes128")],
        renewal=section.renews,
        any_signer=section.signer_key == "any",
        empty_content=section.empty_content,
        staple_ocsp=section.staple_ocsp,
        passwords=section.challenge_password if section.password_recipients else (),
        mtls_bundle=_mtls_bundle(configuration, section, now),
    )


def _mtls_bundle(
    configuration: Configuration, section: ProfileSection, now: float
) -> tuple[bytes, ...]:
    """Return the CAs (DER) whose client certificates the mTLS path of a profile accepts."""
    if not section.mtls_enabled or section.mtls_client_ca_trust_bundle_path is None:
        return ()
    path = configuration.path(section.mtls_client_ca_trust_bundle_path)
    certificates = read_certificates(path)
    if all(c.not_valid_after_utc.timestamp() <= now for c in certificates):
        raise SettingsError(f"{path}: every certificate has expired")
    return tuple(c.public_bytes(Encoding.DER) for c in certificates)


def _tls(configuration: Configuration, section: GatewaySection) -> TlsFiles | None:
    """Return the TLS files, checked before a port is opened, or None without TLS."""
    if section.tls_cert_path is None or section.tls_key_path is None:
        return None
    files = TlsFiles(
        configuration.path(section.tls_cert_path), configuration.path(section.tls_key_path)
    )
    read_secret_file(files.key)
    server_context(files)
    return files
