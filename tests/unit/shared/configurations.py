"""A complete minimal configuration, written to a directory with every file it names."""

from pathlib import Path
from typing import Any, Final

import nkeys
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.support import pki
from tests.support.world import ISSUING, OPENING, OPERATOR, VALIDATOR

MARKER: Final = "Ma7ker-of-a-s3cret"
TOML: Final = """\
[bus]
url = "nats://127.0.0.1:4222"

[trust]
validator_keys = "validator.pub"
issuer_keys = ["issuer.pub"]
audit_keys = "audit.pub"
sealing_key = "opening.pub"

[gateway]
nkey_path = "gateway.nkey"

[validator]
nkey_path = "validator.nkey"
signing_key_path = "validator.key"
opening_key_path = "opening.key"

[issuer]
nkey_path = "issuer.nkey"
signing_key_path = "issuer.key"

[audit]
nkey_path = "audit.nkey"
signing_key_path = "audit.key"
database_url = "sqlite:///audit.db"

[issuers.local]
ca_cert_path = "ca.pem"
ca_key_path = "ca.key"
secret_path = "ca.secret"

[certificate_profiles.device]

[profiles.corp-2]
issuer_id = "local"
ca_spki_sha256 = "{pin}"
profile_id = "device"
challenge_password = "{challenge}"
ra_cert_path = "ra.pem"
ra_key_path = "ra.key"
"""


def text(pin: str = "ab" * 32) -> str:
    return TOML.format(pin=pin, challenge=MARKER)


def write(directory: Path, changed: str | None = None) -> Path:
    """The file alone, for what `load` says of it."""
    path = directory / "scepstream.toml"
    path.write_text(text() if changed is None else changed)
    return path


def without(table: str) -> str:
    """The configuration without one of its tables."""
    parts = text().split("\n\n")
    return "\n\n".join(p for p in parts if not p.startswith(f"[{table}]"))


def write_all(
    directory: Path, ra_key: rsa.RSAPrivateKey, ca_key: ec.EllipticCurvePrivateKey
) -> Path:
    """The file and all keys and certificates."""
    root = pki.make_root(ca_key)
    ra = pki.make_certificate(
        ra_key.public_key(), ca_key, subject="RA", usage=("digital_signature", "key_encipherment")
    )
    pki.write_certificate(directory / "ca.pem", root)
    pki.write_certificate(directory / "ra.pem", ra)
    keys: dict[str, Any] = {
        "ca": ca_key,
        "ra": ra_key,
        "validator": VALIDATOR.key,
        "issuer": ISSUING.key,
        "audit": OPERATOR.key,
        "opening": OPENING,
    }
    for name, key in keys.items():
        pki.write_key(directory / f"{name}.key", key)
        (directory / f"{name}.pub").write_bytes(pki.public_pem(key.public_key()))
    secrets = {"ca.secret": b"s" * 32}
    for role in ("gateway", "validator", "issuer", "audit"):
        secrets[f"{role}.nkey"] = bytes(nkeys.encode_seed(bytes(32), nkeys.PREFIX_BYTE_USER))
    for name, data in secrets.items():
        (directory / name).write_bytes(data)
        (directory / name).chmod(0o600)
    return write(directory, text(pki.pin(root)))
