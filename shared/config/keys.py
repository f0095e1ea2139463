"""Load keys and certificates from files; every error names the file."""

from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from shared.config.fields import is_token_uri
from shared.config.load import SettingsError, read_file, read_secret_file
from shared.config.pkcs11 import TokenEcKey, TokenRsaKey, token_key
from shared.limits import BLOCKED_KEYS, BLOCKED_KEYS_BYTES
from shared.log.envelope import EventSigner, key_id
from shared.x509.blocked_keys import BlockedKeys, read_digests
from shared.x509.loading import loading

CaKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
RsaKey = rsa.RSAPrivateKey | TokenRsaKey
AnyKey = CaKey | TokenRsaKey | TokenEcKey


def read_private_key(path: Path) -> object:
    """Load a private key of any type from unencrypted PEM."""
    pem = read_secret_file(path)
    try:
        return load_pem_private_key(pem, password=None)
    except TypeError:
        raise SettingsError(
            f"{path}: the key is encrypted: remove its password "
            "(openssl pkey -in FILE -out NEW) and protect the file with mode 0600"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise SettingsError(f"{path}: no private key in PEM") from None


def read_rsa_key(path: Path) -> RsaKey:
    """Load an RSA private key: an EC key cannot decrypt SCEP requests."""
    key = token_key(str(path)) if is_token_uri(path) else read_private_key(path)
    if not isinstance(key, RsaKey):
        raise SettingsError(f"{path}: must be an RSA key")
    return key


def read_ca_key(path: Path) -> AnyKey:
    """Load a CA's private key, RSA or P-256, from a file or a PKCS#11 token."""
    return token_key(str(path)) if is_token_uri(path) else read_ca_key_file(path)


def read_ca_key_file(path: Path) -> CaKey:
    """Load a CA's private key, RSA or P-256, from a file."""
    key = read_private_key(path)
    if not isinstance(key, CaKey):
        raise SettingsError(f"{path}: must be an RSA or EC key")
    if isinstance(key, ec.EllipticCurvePrivateKey) and not isinstance(key.curve, ec.SECP256R1):
        raise SettingsError(f"{path}: an EC key must be on P-256")
    return key


def read_event_signer(path: Path) -> EventSigner:
    """Load the Ed25519 key with which a role signs its events."""
    key = read_private_key(path)
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(f"{path}: must be an Ed25519 key")
    return EventSigner.of(key)


def read_opening_key(path: Path) -> X25519PrivateKey:
    """Load an X25519 private key that opens what is sealed to it."""
    key = read_private_key(path)
    if not isinstance(key, X25519PrivateKey):
        raise SettingsError(f"{path}: must be an X25519 key")
    return key


def read_sealing_key(path: Path) -> X25519PublicKey:
    """Load an X25519 public key to which something is sealed."""
    key = _public_key(path)
    if not isinstance(key, X25519PublicKey):
        raise SettingsError(f"{path}: must be an X25519 public key")
    return key


def read_trusted(paths: Iterable[Path]) -> dict[str, Ed25519PublicKey]:
    """Load Ed25519 public keys and return them by key ID."""
    trusted = {}
    for path in paths:
        key = _public_key(path)
        if not isinstance(key, Ed25519PublicKey):
            raise SettingsError(f"{path}: must be an Ed25519 public key")
        trusted[key_id(key)] = key
    return trusted


def _public_key(path: Path) -> object:
    try:
        with loading():
            return load_pem_public_key(read_file(path))
    except ValueError:
        raise SettingsError(f"{path}: no public key in PEM") from None


def read_certificates(path: Path) -> list[x509.Certificate]:
    """Load the certificates of a PEM file, which must hold at least one."""
    try:
        with loading():
            found = x509.load_pem_x509_certificates(read_file(path))
    except ValueError:
        raise SettingsError(f"{path}: no certificate in PEM") from None
    try:
        with loading():
            for certificate in found:
                certificate.public_key()
    except ValueError:
        raise SettingsError(f"{path}: unsupported key type") from None
    return found


def read_blocked_keys(paths: Iterable[Path]) -> BlockedKeys:
    """Load lists of blocked keys."""
    found: set[bytes] = set()
    for path in paths:
        try:
            if path.stat().st_size > BLOCKED_KEYS_BYTES:
                raise SettingsError(f"{path}: longer than {BLOCKED_KEYS_BYTES} bytes")
            found.update(read_digests(read_file(path)))
        except OSError as error:
            raise SettingsError(f"{path}: {error.strerror}") from None
        except ValueError as error:
            raise SettingsError(f"{path}: {error}") from None
        if len(found) > BLOCKED_KEYS:
            raise SettingsError(f"{path}: more than {BLOCKED_KEYS} blocked keys in all")
    return BlockedKeys.of(found)


def read_nkey(path: Path) -> str:
    """Load the seed of a role's nkey."""
    return read_secret_file(path).decode("ascii", "replace").strip()


def is_ca(certificate: x509.Certificate) -> bool:
    """Return whether BasicConstraints say CA; an old self-signed one without them counts too."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return certificate.issuer == certificate.subject


def spki(holder: x509.Certificate | AnyKey) -> bytes:
    """Return the SubjectPublicKeyInfo of a certificate or a private key, as DER."""
    return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def check_pair(certificate: x509.Certificate, key: AnyKey, cert_path: Path, key_path: Path) -> None:
    """Reject a key that does not match its certificate."""
    if spki(key) != spki(certificate):
        raise SettingsError(f"{key_path}: is not the key of {cert_path}")
