"""RA keys of a profile: the signing key, the decryption keys and what GetCACert returns."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from shared.config.keys import RsaKey, check_pair, read_certificates, read_rsa_key
from shared.config.load import SettingsError
from shared.scep.certificate import Certificate, read_certificate
from shared.scep.envelope import read_envelope
from shared.scep.errors import ScepError
from shared.scep.pkimessage import DecryptionKey, PkiMessage
from shared.scep.schemes import public_key
from shared.scep.signed_data import Signer
from shared.x509.key_ids import spki_sha256
from shared.x509.signatures import is_issued_by

_MIN_BITS = 2048


@dataclass(frozen=True)
class RaPair:
    """An RA certificate with its key, what its key usage permits, and the certificate's file."""

    certificate: x509.Certificate
    key: RsaKey
    signs: bool
    decrypts: bool
    path: Path | None = None

    @property
    def spki_sha256(self) -> str:
        """The SHA-256 of the key's SubjectPublicKeyInfo, in hex."""
        return spki_sha256(self.parsed.spki)

    @property
    def der(self) -> bytes:
        """The certificate as DER."""
        return self.parsed.der

    @cached_property
    def parsed(self) -> Certificate:
        """The certificate's exact bytes."""
        return read_certificate(self.certificate.public_bytes(Encoding.DER))


@dataclass(frozen=True)
class RaKeys:
    """The current signer, all decryption keys (newest first) and the current certificates (DER).

    `begun` holds all currently valid pairs, newest first.
    """

    signer: Signer
    decryption: tuple[DecryptionKey, ...]
    certificates: tuple[bytes, ...]
    not_after: datetime
    begun: tuple[RaPair, ...] = ()
    _by_ca: dict[bytes, "RaKeys"] = field(default_factory=dict, compare=False, repr=False)

    def under(self, ca: bytes) -> "RaKeys":
        """Return these keys with the current pairs chosen from those that this CA (DER) issued.

        Return `self` unless the CA issued both a signing and a decrypting pair. A CA rollover thus
        changes the RA certificates and the CA certificate at once.
        """
        if ca not in self._by_ca:
            own = [pair for pair in self.begun if _issued(ca, pair)]
            fits = any(p.signs for p in own) and any(p.decrypts for p in own)
            self._by_ca[ca] = _chosen(tuple(own), self.decryption, self.begun) if fits else self
        return self._by_ca[ca]

    def addressed(self, message: PkiMessage, now: float) -> "RaKeys":
        """Return these keys with the signer that belongs to the request's recipient, while valid.

        A device that keeps older RA certificates accepts only replies signed under those. Return
        `self` if the request names no older pair or its signer has expired.
        """
        if len(self.begun) == len(self.certificates):
            return self
        try:
            recipients = read_envelope(message.signed.content).recipients
        except ScepError:
            return self
        named = (p for r in recipients for p in self.begun if p.decrypts and r.names(p.parsed))
        pair = next(named, None)
        if pair is None or pair.der in self.certificates:
            return self
        moment = datetime.fromtimestamp(now, UTC)
        signing = self._beside(pair)
        if signing is None or signing.certificate.not_valid_after_utc <= moment:
            return self
        return replace(self, signer=Signer(signing.key, signing.parsed))

    def _beside(self, pair: RaPair) -> RaPair | None:
        """Return the pair if it signs, else its CA's signing pair with the nearest notBefore."""
        if pair.signs:
            return pair
        begin, issuer = pair.certificate.not_valid_before_utc, pair.parsed.issuer
        signing = [p for p in self.begun if p.signs and p.parsed.issuer == issuer]
        apart = [abs(p.certificate.not_valid_before_utc - begin) for p in signing]
        return signing[apart.index(min(apart))] if signing else None


def read_pairs(cert_path: Path, key_path: Path) -> list[RaPair]:
    """Read the pairs of one key: the file's first certificate, and earlier ones of the same key.

    Raises `SettingsError` if certificate and key do not match or are unsuitable.
    """
    certificate, *others = read_certificates(cert_path)
    key = read_rsa_key(key_path)
    check_pair(certificate, key, cert_path, key_path)
    if key.key_size < _MIN_BITS:
        raise SettingsError(f"{key_path}: RSA key has {key.key_size} bits, needs {_MIN_BITS}")
    signs, decrypts = _usages(certificate)
    if not signs and not decrypts:
        raise SettingsError(f"{cert_path}: needs digitalSignature or keyEncipherment")
    pair = RaPair(certificate, key, signs, decrypts, cert_path)
    earlier = (replace(pair, certificate=other) for other in others)
    return [pair, *(each for each in earlier if each.spki_sha256 == pair.spki_sha256)]


def _usages(certificate: x509.Certificate) -> tuple[bool, bool]:
    """Return (may sign, may decrypt): both without a KeyUsage extension (RFC 5280 s4.2.1.3)."""
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True, True
    return usage.digital_signature, usage.key_encipherment


def _issued(ca: bytes, pair: RaPair) -> bool:
    parsed = read_certificate(ca)
    return is_issued_by(pair.der, parsed.subject, public_key(parsed.spki))


def assemble(pairs: list[RaPair], now: float, files: Sequence[Path] = ()) -> RaKeys:
    """Choose a profile's current pairs: the newest for each use. Older ones still decrypt.

    Expired pairs are ignored, so that an old pair may simply expire. A pair whose notBefore is in
    the future decrypts but does not become current yet. `files` are named in the `SettingsError`
    if no pair is suitable.
    """
    moment = datetime.fromtimestamp(now, UTC)
    valid = [p for p in pairs if p.certificate.not_valid_after_utc > moment]
    newest_first = sorted(valid, key=lambda p: p.certificate.not_valid_before_utc, reverse=True)
    begun = tuple(p for p in newest_first if p.certificate.not_valid_before_utc <= moment)
    for use, found in (
        ("digitalSignature", any(p.signs for p in begun)),
        ("keyEncipherment", any(p.decrypts for p in begun)),
    ):
        if not found:
            named = ", ".join(map(str, files)) or "ra_cert_path"
            raise SettingsError(f"{named}: no valid certificate with {use}")
    decryption = tuple(DecryptionKey(p.key, p.parsed) for p in newest_first if p.decrypts)
    return _chosen(begun, decryption, begun)


def _chosen(
    candidates: tuple[RaPair, ...],
    decryption: tuple[DecryptionKey, ...],
    begun: tuple[RaPair, ...],
) -> RaKeys:
    """Return the keys with the first candidate for each use current; one pair may serve both."""
    signing = next(p for p in candidates if p.signs)
    decrypting = next(p for p in candidates if p.decrypts)
    current = [signing] if signing is decrypting else [signing, decrypting]
    return RaKeys(
        signer=Signer(signing.key, signing.parsed),
        decryption=decryption,
        certificates=tuple(p.der for p in current),
        not_after=min(p.certificate.not_valid_after_utc for p in current),
        begun=begun,
    )
