"""Private keys in PKCS#11 tokens, named by URIs (RFC 7512). Needs the extra `pkcs11`."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import unquote

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from shared.config.fields import TOKEN_SCHEME
from shared.config.load import SettingsError, read_secret_file
from shared.scep.asn1 import OCTET_STRING, Der
from shared.scep.errors import FailInfo, ScepError

_T = TypeVar("_T")
# Errors of the PKCS#11 token rather than of the input: the next use opens a new session.
_AWAY: Final = frozenset(
    {
        "DeviceError", "DeviceMemory", "DeviceRemoved", "HostMemory", "KeyHandleInvalid",
        "ObjectHandleInvalid", "SessionClosed", "SessionHandleInvalid", "TokenNotPresent",
        "UserNotLoggedIn",
    }
)  # fmt: skip
_UNKNOWN: Final = frozenset({"ArgumentsBad", "MechanismInvalid", "MechanismParamInvalid"})


class TokenUnavailableError(Exception):
    """Raised if a PKCS#11 token does not respond; it says nothing about the input."""


def token_key(uri: str) -> "TokenRsaKey | TokenEcKey":
    """Return the key that a URI names; `SettingsError` if it is not available.

    The URI has the form `pkcs11:token=LABEL;object=LABEL?module-path=FILE&pin-source=FILE`.
    """
    place = _parse(uri)
    slot = _Slot(place)
    modulus, exponent, point = slot.with_key(_public_parts)
    if modulus is not None and exponent is not None:
        return TokenRsaKey(slot, rsa.RSAPublicNumbers(exponent, modulus).public_key())
    if point is not None:
        return TokenEcKey(slot, ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point))
    raise SettingsError(f"{place}: neither an RSA key nor an EC key on P-256")


@dataclass(frozen=True)
class _Place:
    """The location of a key; the PIN stays in its file until it is used."""

    token: str
    object: str
    module: str
    pin_source: Path

    def __str__(self) -> str:
        return f"{TOKEN_SCHEME}token={self.token};object={self.object}"


def _parse(uri: str) -> _Place:
    path, _, query = uri.removeprefix(TOKEN_SCHEME).partition("?")
    parts = [p.partition("=") for p in (*path.split(";"), *query.split("&")) if p]
    found = {name: unquote(value) for name, _, value in parts}
    wanted = ("token", "object", "module-path", "pin-source")
    missing = [name for name in wanted if not found.get(name)]
    if missing:
        # The query is left out: it may contain a PIN.
        raise SettingsError(f"{TOKEN_SCHEME}{path}: {missing[0]} is missing")
    token, label, module, pin = (found[name] for name in wanted)
    return _Place(token, label, module, Path(pin.removeprefix("file:")))


# The process logs in to a PKCS#11 token once, however many of its keys are used.
_sessions: Final[dict[tuple[str, str], Any]] = {}
# Some modules (SoftHSM) notice that a token has returned only when they are initialized again. This
# ends all sessions of the module; their handles may then name other keys, so that every key counts
# how often its module was initialized.
_starts: Final[dict[str, int]] = {}
_next_start: Final[dict[str, float]] = {}
_START_SECONDS: Final = 1.0


@dataclass
class _Slot:
    """A private key in a PKCS#11 token, looked up again after the token was lost."""

    place: _Place
    _session: Any = None
    _key: Any = None
    _start: int = 0

    def with_key(self, work: Callable[[Any, Any], _T]) -> _T:
        """Return `work(session, private key)`, opening the session if necessary.

        `SettingsError` if the key was never available, `TokenUnavailableError` if it no longer is.
        """
        try:
            import pkcs11  # noqa: PLC0415 - an optional extra
        except ImportError:
            raise SettingsError("a PKCS#11 key requires the extra scepstream[pkcs11]") from None
        try:
            if self._session is None or self._start != _starts.get(self.place.module, 0):
                self._reopen(pkcs11)
            return work(self._session, self._key)
        except SettingsError as error:
            if self._key is None:
                raise
            raise TokenUnavailableError(str(error)) from None  # the key was available before
        except pkcs11.exceptions.PKCS11Error as error:
            kind = type(error).__name__
            if kind in _AWAY:
                self._session = None
                _sessions.pop((self.place.module, self.place.token), None)
                raise TokenUnavailableError(f"{self.place}: {kind}") from None
            raise

    def _reopen(self, pkcs11: Any) -> None:
        """Open a session; if a token that was there before does not open, restart its module."""
        try:
            self._open(pkcs11)
        except SettingsError:
            if self._key is None or not _restart(pkcs11, self.place.module):
                raise
            self._open(pkcs11)

    def _open(self, pkcs11: Any) -> None:
        place = self.place
        try:
            session = _session(pkcs11, place)
            kind = pkcs11.ObjectClass.PRIVATE_KEY
            self._key = session.get_key(object_class=kind, label=place.object)
            self._session, self._start = session, _starts.get(place.module, 0)
        except (pkcs11.exceptions.PKCS11Error, RuntimeError, OSError) as error:
            raise SettingsError(f"{place}: {type(error).__name__}") from None


def _restart(pkcs11: Any, module: str) -> bool:
    """Initialize a module again; return False if that was tried a moment ago, or fails."""
    if time.monotonic() < _next_start.get(module, 0.0):
        return False
    for known in [key for key in _sessions if key[0] == module]:
        del _sessions[known]
    _starts[module] = _starts.get(module, 0) + 1
    try:
        pkcs11.lib(module).reinitialize()
    except (pkcs11.exceptions.PKCS11Error, RuntimeError, OSError):
        return False
    finally:
        _next_start[module] = time.monotonic() + _START_SECONDS
    return True


def _session(pkcs11: Any, place: _Place) -> Any:
    known = _sessions.get((place.module, place.token))
    if known is None:
        pin = read_secret_file(place.pin_source).decode("utf-8", "replace").strip()
        token = pkcs11.lib(place.module).get_token(token_label=place.token)
        known = _sessions[place.module, place.token] = token.open(user_pin=pin)
    return known


def _public_parts(session: Any, key: Any) -> tuple[int | None, int | None, bytes | None]:
    """Return (modulus, exponent, None) of an RSA key, (None, None, point) of an EC key."""
    import pkcs11  # noqa: PLC0415 - as above

    if key.key_type is pkcs11.KeyType.RSA:
        modulus, exponent = key[pkcs11.Attribute.MODULUS], key[pkcs11.Attribute.PUBLIC_EXPONENT]
        return int.from_bytes(modulus, "big"), int.from_bytes(exponent, "big"), None
    public = session.get_key(object_class=pkcs11.ObjectClass.PUBLIC_KEY, label=key.label)
    return None, None, Der(public[pkcs11.Attribute.EC_POINT]).value(OCTET_STRING)


@dataclass(frozen=True)
class TokenRsaKey:
    """An RSA key in a PKCS#11 token, with the methods that the codec and the local CA use."""

    _slot: _Slot = field(repr=False)
    _public: rsa.RSAPublicKey

    @property
    def key_size(self) -> int:
        """Size of the modulus in bits."""
        return self._public.key_size

    def public_key(self) -> rsa.RSAPublicKey:
        """Return the public key."""
        return self._public

    def sign(
        self, data: bytes, padding: padding.AsymmetricPadding, algorithm: hashes.HashAlgorithm
    ) -> bytes:
        """Return a PKCS#1 v1.5 signature, as CAs and RAs use; `padding` is ignored."""
        import pkcs11  # noqa: PLC0415 - as above

        del padding
        mechanism = getattr(pkcs11.Mechanism, f"{algorithm.name.upper()}_RSA_PKCS")
        return bytes(self._slot.with_key(lambda _, key: key.sign(data, mechanism=mechanism)))

    def decrypt(self, ciphertext: bytes, padding: padding.AsymmetricPadding) -> bytes:
        """Return the plaintext.

        `ValueError` if the ciphertext does not decrypt, badAlg if the token lacks the mechanism.
        """
        import pkcs11  # noqa: PLC0415 - as above

        options = _decryption(pkcs11, padding)
        try:
            return bytes(self._slot.with_key(lambda _, key: key.decrypt(ciphertext, **options)))
        except pkcs11.exceptions.PKCS11Error as error:
            if type(error).__name__ in _UNKNOWN:
                raise ScepError(
                    "the RA's PKCS#11 token does not support this algorithm", FailInfo.BAD_ALG
                ) from None
            raise ValueError("does not decrypt") from None


def _decryption(pkcs11: Any, how: padding.AsymmetricPadding) -> dict[str, Any]:
    if not isinstance(how, padding.OAEP):
        return {"mechanism": pkcs11.Mechanism.RSA_PKCS}
    digest, mgf = how.algorithm.name.upper(), how.mgf._algorithm.name.upper()  # noqa: SLF001 - there is no public accessor
    mechanism = {"SHA1": pkcs11.Mechanism.SHA_1}.get(digest) or getattr(pkcs11.Mechanism, digest)
    parameters = (mechanism, getattr(pkcs11.MGF, mgf), None)
    return {"mechanism": pkcs11.Mechanism.RSA_PKCS_OAEP, "mechanism_param": parameters}


@dataclass(frozen=True)
class TokenEcKey:
    """A P-256 key in a PKCS#11 token, for a local CA."""

    _slot: _Slot = field(repr=False)
    _public: ec.EllipticCurvePublicKey

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Return the public key."""
        return self._public

    def sign(self, data: bytes, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """Return an ECDSA signature over the SHA-256 of `data`, as DER."""
        import pkcs11  # noqa: PLC0415 - as above

        del signature_algorithm
        digest, mechanism = hashlib.sha256(data).digest(), pkcs11.Mechanism.ECDSA
        raw = bytes(self._slot.with_key(lambda _, key: key.sign(digest, mechanism=mechanism)))
        half = len(raw) // 2
        return encode_dss_signature(
            int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big")
        )
