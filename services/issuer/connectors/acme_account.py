"""An ACME account: its registration, nonces and signed calls (RFC 8555 s6 and s7.3)."""

import asyncio
import base64
import re
from collections.abc import Container
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import httpx
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from services.issuer.connectors.connector import AnswerLostError, CaUnavailableError
from services.issuer.connectors.http import Answer, HttpClient, retry_after
from shared.config.load import SettingsError
from shared.runtime.process import now

if TYPE_CHECKING:
    from joserfc.jwk import ECKey, OctKey, RSAKey

_TRIES: Final = 4  # a CA may reject a nonce at any time (s6.5)
_NONCES: Final = 64
_NONCE: Final = re.compile(r"[A-Za-z0-9_-]{1,200}")
_URL: Final = re.compile(r"[!-~]{1,400}")  # a handle on the log has at most so many characters
_ERROR: Final = "urn:ietf:params:acme:error:"
_NO_TYPE: Final = "about:blank"  # RFC 9457 s4.2.1: it says no more than the status
_FORBIDDEN: Final = 403
# Types of problems (s6.7) that are about the account, its key or its rate, whatever is ordered.
_ACCOUNT: Final = frozenset(
    {
        "accountDoesNotExist",
        "badPublicKey",
        "badSignatureAlgorithm",
        "externalAccountRequired",
        "invalidContact",
        "rateLimited",
        "unauthorized",
        "unsupportedContact",
        "userActionRequired",
    }
)
_NEEDED: Final = ("newNonce", "newAccount", "newOrder", "revokeCert")
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384"}
_ENCODED: Final = re.compile(r"[A-Za-z0-9+/=_-]{48,}")
_MINIMUM_BITS: Final = 2048


@dataclass(frozen=True)
class AccountKey:
    """A private key, and the JWS algorithm that it signs with."""

    algorithm: str
    key: "ECKey | RSAKey | OctKey" = field(repr=False)

    @property
    def public(self) -> dict[str, Any]:
        """The public key as a JWK."""
        return dict(self.key.as_dict(private=False))

    def sign(self, header: dict[str, Any], payload: bytes) -> dict[str, Any]:
        """Return a JWS in the flattened JSON serialization, its header protected."""
        from joserfc import jws  # noqa: PLC0415 - an optional extra

        registry = jws.JWSRegistry(algorithms=[self.algorithm], strict_check_header=False)
        protected = {"alg": self.algorithm, **header}
        return dict(
            jws.serialize_json({"protected": protected}, payload, self.key, registry=registry)
        )


@dataclass(frozen=True)
class Binding:
    """An External Account Binding: the CA's own account to which the ACME account belongs."""

    key_id: str
    key: AccountKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem document: its type without the common prefix, "" if there is none.

    `names` says that a subproblem names an identifier (s6.7.1).
    """

    kind: str
    words: str
    names: bool = False

    @property
    def is_the_accounts(self) -> bool:
        """Whether it is a failure of the account, and not about what is ordered."""
        return self.kind in _ACCOUNT and not (self.kind == "unauthorized" and self.names)


@dataclass
class Account:
    """An account at the CA with this directory; it is registered when it is first needed."""

    http: HttpClient
    directory_url: str
    key: AccountKey = field(repr=False)
    registration: dict[str, Any]
    binding: Binding | None = None
    _directory: dict[str, str] = field(default_factory=dict, init=False, repr=False)
    _url: str = field(default="", init=False)
    _nonces: list[str] = field(default_factory=list, init=False, repr=False)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock, init=False, repr=False)

    async def call(
        self, place: str, payload: Any = None, accept: str = "", answers: Container[str] = ()
    ) -> Answer:
        """Send a signed call to a URL, or to a resource of the directory.

        Without a payload it only reads (POST-as-GET). Raises what `HttpClient.call` raises, and
        `CaUnavailableError` for a failure of the account. `answers` are types of problems that are
        answers to this call and no such failure.
        """
        await self._ready()
        answer = await self._signed(self._directory.get(place, place), payload, accept)
        said = problem(answer)
        if said.kind == "accountDoesNotExist":
            self._url = ""
            raise CaUnavailableError("the CA no longer knows the ACME account")
        if said.is_the_accounts and said.kind not in answers:
            detail = f"the CA does not accept the ACME account: {said.words}"
            raise CaUnavailableError(detail, retry_after(answer.headers, now()))
        if answer.status == _FORBIDDEN and not said.kind:
            raise CaUnavailableError("the CA does not permit this call (403), without a reason")
        return answer

    async def register(self) -> str:
        """Register the account, or find it; return its URL."""
        self._url = ""
        await self._ready()
        return self._url

    def owns(self, url: object) -> bool:
        """Return whether a URL is of the directory's origin: no other server is ever called."""
        if not isinstance(url, str) or not _URL.fullmatch(url):
            return False
        try:
            return _origin(url) == _origin(self.directory_url)
        except httpx.InvalidURL:
            return False

    async def _ready(self) -> None:
        async with self._lock:
            try:
                if not self._directory:
                    self._directory = await self._read_directory()
                if not self._url:
                    self._url = await self._register()
            except AnswerLostError as error:  # an account orders nothing
                raise CaUnavailableError(str(error)) from error

    async def _read_directory(self) -> dict[str, str]:
        answer = await self.http.call("GET", self.directory_url)
        found = answer.json() if answer.ok else None
        if not isinstance(found, dict) or not all(self.owns(found.get(n)) for n in _NEEDED):
            raise CaUnavailableError("the URL is not that of an ACME directory (RFC 8555 s7.1.1)")
        return {name: url for name, url in found.items() if self.owns(url)}

    async def _register(self) -> str:
        """Find the key's account before a new one is asked for: bindings may serve only once."""
        place = self._directory["newAccount"]
        try:
            answer = await self._signed(place, {"onlyReturnExisting": True})
            if problem(answer).kind == "accountDoesNotExist":
                answer = await self._signed(place, self.registration | self._bound(place))
        except CaUnavailableError as error:
            detail = f"the ACME account cannot be registered: {error}"
            raise CaUnavailableError(detail, error.retry_after) from None
        url, found = answer.headers.get("location", ""), answer.json() if answer.ok else None
        if not self.owns(url) or not isinstance(found, dict):
            said = problem(answer).words or f"status {answer.status}"
            raise CaUnavailableError(f"the ACME account cannot be registered: {said}")
        if found.get("status") != "valid":
            raise CaUnavailableError("the CA has deactivated or revoked the ACME account")
        return url

    def _bound(self, place: str) -> dict[str, Any]:
        """Return the member of a registration that binds it (s7.3.4)."""
        if self.binding is None:
            return {}
        header = {"kid": self.binding.key_id, "url": place}
        payload = msgspec.json.encode(self.key.public)
        return {"externalAccountBinding": self.binding.key.sign(header, payload)}

    async def _signed(self, url: str, payload: Any, accept: str = "") -> Answer:
        """Send a call, again if the CA rejects the nonce: then it did not act on it."""
        content = b"" if payload is None else msgspec.json.encode(payload)
        headers = {"content-type": "application/jose+json"} | ({"accept": accept} if accept else {})
        for _ in range(_TRIES):
            by: dict[str, Any] = {"kid": self._url} if self._url else {"jwk": self.key.public}
            body = self.key.sign({**by, "nonce": await self._nonce(), "url": url}, content)
            sent = msgspec.json.encode(body)
            answer = await self.http.call(
                "POST", url, content=sent, headers=headers, answers=(_FORBIDDEN,)
            )
            rejected = problem(answer).kind == "badNonce"
            if rejected:
                self._nonces.clear()
            self._keep_nonce(answer)
            if not rejected:
                return answer
        raise CaUnavailableError("the CA accepts no nonce")

    async def _nonce(self) -> str:
        if not self._nonces:
            try:
                self._keep_nonce(await self.http.call("HEAD", self._directory["newNonce"]))
            except AnswerLostError as error:
                raise CaUnavailableError(str(error)) from error
        if not self._nonces:
            raise CaUnavailableError("the CA gives no nonce")
        return self._nonces.pop()

    def _keep_nonce(self, answer: Answer) -> None:
        nonce = answer.headers.get("replay-nonce", "")
        if _NONCE.fullmatch(nonce) and len(self._nonces) < _NONCES:
            self._nonces.append(nonce)


def problem(answer: Answer) -> Problem:
    """Return what an answer says is wrong (RFC 8555 s6.7); an answer without fault has no kind."""
    if answer.ok or answer.content[:1] != b"{":
        return Problem("", "" if answer.ok else answer.words())
    return described(answer.json())


def described(found: object) -> Problem:
    """Return a problem document; long base64 is left out, because it may be a CSR."""
    if not isinstance(found, dict):
        return Problem("", "")
    kind = str(found.get("type", ""))
    kind = kind.removeprefix(_ERROR) if ":" in kind and kind != _NO_TYPE else ""
    detail = _ENCODED.sub("...", str(found.get("detail", "")))
    said = f"{detail} ({kind})" if kind else detail
    return Problem(kind, Answer(0, {}, said.encode()).words(), _names(found.get("subproblems")))


def _names(subproblems: object) -> bool:
    every = subproblems if isinstance(subproblems, list) else []
    return any(isinstance(each, dict) and bool(each.get("identifier")) for each in every)


def b64url(content: bytes) -> str:
    """Return base64url without padding (RFC 7515 s2)."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode("ascii")


def account_key(content: bytes, where: str) -> AccountKey:
    """Return the key of a PEM file; `where` names it in a `SettingsError`."""
    jwk = _jwk()
    try:
        found = load_pem_private_key(content, None)
    except (ValueError, TypeError):
        raise SettingsError(f"{where}: not a PEM private key without a password") from None
    plain = found.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    if isinstance(found, ec.EllipticCurvePrivateKey) and found.curve.name in _CURVES:
        return AccountKey(_CURVES[found.curve.name], jwk.ECKey.import_key(plain))
    if isinstance(found, rsa.RSAPrivateKey) and found.key_size >= _MINIMUM_BITS:
        return AccountKey("RS256", jwk.RSAKey.import_key(plain))
    raise SettingsError(f"{where}: not a key on P-256 or P-384, nor RSA of 2048 bits or more")


def binding(key_id: str, mac_key: str, where: str) -> Binding:
    """Return the binding of a CA; `mac_key` is base64url, as CAs hand it out (s7.3.4)."""
    jwk = _jwk()
    try:
        octets = base64.b64decode(mac_key + "=" * (-len(mac_key) % 4), b"-_", validate=True)
    except ValueError:
        raise SettingsError(f"{where}: not base64url") from None
    return Binding(key_id, AccountKey("HS256", jwk.OctKey.import_key(octets)))


def _jwk() -> Any:
    try:
        from joserfc import jwk  # noqa: PLC0415 - an optional extra
    except ImportError:
        raise SettingsError('acme: joserfc is missing: pip install "scepstream[acme]"') from None
    return jwk


def _origin(url: str) -> tuple[str, str, int | None]:
    parsed = httpx.URL(url)
    return parsed.scheme, parsed.host, parsed.port
