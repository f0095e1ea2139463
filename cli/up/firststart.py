"""First start: create keys, CA, RA pairs, challenges and the configuration, once."""

import os
import secrets
import string
from pathlib import Path
from typing import Final

import nkeys
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from cli.connector.signing import CERTIFICATE, KEY, connector_files
from cli.up.authority import Authority, make_ca, make_ra, pem
from cli.up.layout import VERSION, Layout, UpError, write_private
from shared.config.ca_files import read_ca
from shared.config.keys import CaKey, spki
from shared.config.load import SettingsError
from shared.log.roles import Role
from shared.x509.key_ids import spki_sha256

_ALPHABET: Final = string.ascii_letters + string.digits
_CHALLENGE_LENGTH: Final = 24

_CONFIG: Final = """\
# Created by the first `scepstream up`. All keys: docs/configuration.md.
# Contains challenges: only its owner may read it.
version = 1

[bus]
url = "nats://127.0.0.1:{nats_port}"

[trust]
validator_keys = "keys/validator-signing.pub"
issuer_keys = "keys/issuer-signing.pub"
audit_keys = "keys/audit-signing.pub"
sealing_key = "keys/validator-opening.pub"
issuer_sealing_key = "keys/issuer-opening.pub"

[gateway]
nkey_path = "keys/gateway.nkey"
default_profile = "demo"

[validator]
nkey_path = "keys/validator.nkey"
signing_key_path = "keys/validator-signing.key"
opening_key_path = "keys/validator-opening.key"

[issuer]
nkey_path = "keys/issuer.nkey"
signing_key_path = "keys/issuer-signing.key"
opening_key_path = "keys/issuer-opening.key"

[audit]
nkey_path = "keys/audit.nkey"
signing_key_path = "keys/audit-signing.key"
database_url = "sqlite:///audit.db"
admin_token_path = "admin-token"

[issuers.local]
kind = "local"
ca_cert_path = "ca/ca.pem"
ca_key_path = "ca/ca.key"
secret_path = "ca/serial.secret"
ra_cert_path = ["ra/signing.pem", "ra/encryption.pem"]

[certificate_profiles.device]
key_types = ["rsa:2048", "rsa:3072", "rsa:4096", "ec:p256", "ec:p384"]
key_usages = ["digitalSignature", "keyEncipherment"]
extended_key_usages = ["clientAuth"]
sans = ["dns", "rfc822", "uri", "ip", "upn"]
max_ttl = "365d"
backdate = "10m"
{profiles}
[profiles.corp]
issuer_id = "local"
ca_spki_sha256 = "{pin}"
profile_id = "device"
intune_enabled = true
intune_connector_cert_path = "connector/connector.pem"
one_time_enabled = true
ra_cert_path = ["ra/signing.pem", "ra/encryption.pem"]
ra_key_path = ["ra/signing.pem", "ra/encryption.pem"]
reply_budget = "10s"
{chain}"""

_PROFILE: Final = """
[profiles.{name}]
issuer_id = "local"
ca_spki_sha256 = "{pin}"
profile_id = "device"
challenge_password = "{challenge}"
ra_cert_path = ["ra/signing.pem", "ra/encryption.pem"]
ra_key_path = ["ra/signing.pem", "ra/encryption.pem"]
legacy = {legacy}
reply_budget = "10s"
{chain}"""


def is_first(layout: Layout) -> bool:
    """Return whether the directory is not set up yet; an interrupted first start is repeated."""
    return not layout.version.exists()


def first_start(
    layout: Layout, ca_kind: str, given: tuple[Path, Path] | None, nats_port: int, now: float
) -> None:
    """Create everything; the version file comes last, so that an interrupted start is repeated.

    `given` is a CA's certificate (chain) and key to use instead of creating one; `now` is in Unix
    seconds.
    """
    copied = read_given(*given, now) if given else None
    write_private(layout.marker, b"")
    ensure_nkeys(layout)
    for name in ("validator", "issuer", "audit"):
        _signing_pair(layout, name)
    for name in ("validator", "issuer"):
        _opening_pair(layout, name)
    ca = copied or make_ca(ca_kind, now)
    write_private(layout.root / "ca" / "ca.key", pem(ca.key))
    chain = (c.public_bytes(Encoding.PEM) for c in (ca.certificate, *ca.above))
    write_private(layout.ca_cert, b"".join(chain))
    write_private(layout.root / "ca" / "serial.secret", secrets.token_bytes(32))
    for use in ("signing", "encryption"):
        write_private(layout.ra(use), make_ra(ca, use, now))
    certificate, key = connector_files("rsa:2048", "scepstream connector", now)
    write_private(layout.connector / CERTIFICATE, certificate)
    write_private(layout.connector / KEY, key)
    write_private(layout.admin_token, secrets.token_urlsafe(32).encode())
    write_private(layout.config, _configuration(ca, nats_port).encode())
    write_private(layout.version, f"{VERSION}\n".encode())
    layout.marker.unlink()


def ensure_nkeys(layout: Layout) -> None:
    """Create bus keys for roles that have none: all at first start, later those of new roles."""
    for role in Role:
        if not layout.key(f"{role}.nkey").exists():
            write_private(layout.key(f"{role}.nkey"), _nkey_seed())


def _nkey_seed() -> bytes:
    return bytes(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER))


def _signing_pair(layout: Layout, role: str) -> None:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    write_private(layout.key(f"{role}-signing.key"), private)
    write_private(layout.key(f"{role}-signing.pub"), public)


def _opening_pair(layout: Layout, role: str) -> None:
    key = X25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    write_private(layout.key(f"{role}-opening.key"), private)
    write_private(layout.key(f"{role}-opening.pub"), public)


def read_given(cert_path: Path, key_path: Path, now: float) -> Authority:
    """Load an existing (sub-)CA with the chain above it; `UpError` says why it is unusable."""
    try:
        (certificate, *above), key = read_ca(cert_path, key_path)
    except SettingsError as error:
        raise UpError(str(error)) from None
    if not isinstance(key, CaKey):
        raise UpError(
            f"{key_path}: names a key in a PKCS#11 token; `up` can use only a CA key in a file"
        )
    for each in (certificate, *above):
        if each.not_valid_after_utc.timestamp() <= now:
            name, end = each.subject.rfc4514_string(), f"{each.not_valid_after_utc:%Y-%m-%d %H:%M}"
            raise UpError(f'{cert_path}: the CA certificate "{name}" expired at {end} UTC')
    return Authority(certificate, key, tuple(above))


def _configuration(ca: Authority, nats_port: int) -> str:
    pin = spki_sha256(spki(ca.certificate))
    # Clients that trust only the root need the sub-CA's certificate.
    sub_ca = ca.certificate.issuer != ca.certificate.subject
    chain = "include_chain = true\n" if sub_ca else ""
    profiles = "".join(
        _PROFILE.format(name=name, pin=pin, challenge=_challenge(), legacy=legacy, chain=chain)
        for name, legacy in (("demo", "false"), ("legacy", "true"))
    )
    return _CONFIG.format(nats_port=nats_port, profiles=profiles, pin=pin, chain=chain)


def _challenge() -> str:
    """Return a password of letters and digits: a PrintableString that every client accepts."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_CHALLENGE_LENGTH))
