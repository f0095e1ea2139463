"""Renewals at every start: replace RA and TLS pairs that expire soon; old RA keys still decrypt."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from cli.connector.signing import CERTIFICATE, Connector, make_certificate
from cli.toml import set_keys
from cli.up.authority import Authority, make_ra, make_tls, ra_use
from cli.up.layout import Layout, write_private
from shared.config.ca_files import read_ca
from shared.config.keys import CaKey, read_certificates
from shared.config.load import load
from shared.config.profiles import ProfileSection
from shared.config.sections import AnyIssuerSection, Configuration, LocalIssuerSection

_RENEW_BEFORE: Final = timedelta(days=30)


def renew_ra(layout: Layout, now: float) -> list[str]:
    """Replace RA pairs that expire soon and return their uses.

    After a kill at any point, the next start continues.
    """
    ends_before = datetime.fromtimestamp(now, UTC) + _RENEW_BEFORE
    configuration = load(layout.config)
    done = []
    for profile in configuration.profiles.values():
        ca = _current_ca(configuration, configuration.issuers[profile.issuer_id])
        if ca is None or ca.certificate.not_valid_after_utc < ends_before:
            continue  # a new pair cannot outlive the CA
        for path, use in _due(configuration, profile, ca, ends_before):
            if use != "signing":
                _keep_previous(layout, path)
            write_private(path, make_ra(ca, use, now))
            done.append(use)
    return done


def _current_ca(configuration: Configuration, issuer: AnyIssuerSection) -> Authority | None:
    """Return the issuer's signing CA if its key is in a file, else None."""
    if not isinstance(issuer, LocalIssuerSection):
        return None
    key_path = configuration.path(issuer.ca_key_path[0])
    if not key_path.exists():
        return None
    cert_path = configuration.path(issuer.ca_cert_path[0])
    chain_path = configuration.path(issuer.chain_path) if issuer.chain_path else None
    (certificate, *above), key = read_ca(cert_path, key_path, chain_path)
    return Authority(certificate, key, tuple(above)) if isinstance(key, CaKey) else None


def _due(
    configuration: Configuration, profile: ProfileSection, ca: Authority, ends_before: datetime
) -> Iterator[tuple[Path, str]]:
    """Yield (file, use) of RA pairs to renew.

    They were issued by this CA, expire soon, are not a previous pair, and certificate and key are
    in one file.
    """
    for cert_path, key_path in zip(profile.ra_cert_path, profile.ra_key_path, strict=True):
        path = configuration.path(cert_path)
        if cert_path != key_path or path.stem.endswith(_PREVIOUS) or not path.exists():
            continue
        certificate = read_certificates(path)[0]
        if certificate.not_valid_after_utc < ends_before and _issued(ca, certificate):
            yield path, ra_use(certificate)


def _issued(ca: Authority, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(ca.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


_PREVIOUS: Final = "-previous"


def _keep_previous(layout: Layout, path: Path) -> None:
    """Keep an RA pair for decryption: devices that cached GetCACert still encrypt to its key."""
    previous = path.with_stem(path.stem + _PREVIOUS)
    write_private(previous, path.read_bytes())
    name, kept = (f'"{p.relative_to(layout.root)}"' for p in (path, previous))
    text = layout.config.read_text()
    if kept not in text:
        text = text.replace(name, f"{name}, {kept}")
        for issuer, section in load(layout.config).issuers.items():
            if isinstance(section, LocalIssuerSection) and section.ra_cert_path:
                # The issuer renews none that was replaced.
                keys = {"ra_cert_path": list(map(str, section.ra_cert_path))}
                text = set_keys(text, f"issuers.{issuer}", keys)
        write_private(layout.config, text.encode())


def renew_connector(layout: Layout, now: float) -> bool:
    """Reissue the stand-in's certificate for its key if it expires soon; return whether it did."""
    path = layout.connector / CERTIFICATE
    if not path.exists():
        return False
    ends_before = datetime.fromtimestamp(now, UTC) + _RENEW_BEFORE
    if read_certificates(path)[0].not_valid_after_utc >= ends_before:
        return False
    connector = Connector.read(layout.connector)
    write_private(path, make_certificate(connector.key, connector.name, now))
    return True


def ensure_admin_token(layout: Layout) -> None:
    """Add `admin_token_path` to the configuration of an older directory that has the token."""
    configuration = load(layout.config)
    if configuration.audit.admin_token_path is None and layout.admin_token.exists():
        keys = {"admin_token_path": str(layout.admin_token.relative_to(layout.root))}
        text = set_keys(layout.config.read_text(), "audit", keys)
        write_private(layout.config, text.encode())


def ensure_tls(layout: Layout, host: str, now: float) -> None:
    """Issue a TLS pair for the listeners of `up`, unless the operator configured another one."""
    configuration = load(layout.config)
    own = layout.root / "tls" / "server.pem"
    if configuration.gateway.tls_cert_path not in (None, own.relative_to(layout.root)):
        return
    ca = _current_ca(configuration, next(iter(configuration.issuers.values())))
    if ca is None:
        return
    ends_before = datetime.fromtimestamp(now, UTC) + _RENEW_BEFORE
    if not own.exists() or read_certificates(own)[0].not_valid_after_utc < ends_before:
        write_private(own, make_tls(ca, list(dict.fromkeys((host, "localhost", "127.0.0.1"))), now))
    if configuration.gateway.tls_cert_path is None:
        path = str(own.relative_to(layout.root))
        keys = {"tls_cert_path": path, "tls_key_path": path}
        text = set_keys(layout.config.read_text(), "gateway", keys)
        write_private(layout.config, text.encode())
