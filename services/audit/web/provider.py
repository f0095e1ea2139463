"""OpenID Connect client: exchange a code for an operator (OpenID Connect Core 1.0 s3.1)."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote_plus, urlencode

import httpx
from joserfc import jwt
from joserfc.errors import (
    BadSignatureError,
    ClaimError,
    ExpiredTokenError,
    JoseError,
    MissingClaimError,
)
from joserfc.jwk import KeySet

from services.audit.roles import Level, Operator
from services.audit.settings import Oidc
from shared.text.echoes import echoes
from shared.text.printable import visible

# Neither "none" nor HMAC: a public key must never be used as an HMAC secret.
_ALGORITHMS: Final = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]
_LEEWAY_SECONDS: Final = 60
TIMEOUT_SECONDS: Final = 10.0  # of one whole request; a callback makes three
_MAX_NAME: Final = 200
_BUSY: Final = (408, 425, 429)


class ProviderUnavailableError(Exception):
    """Raised if the provider is unreachable, too slow, or answers with a temporary error."""


class ProviderMismatchError(Exception):
    """Raised if provider and configuration do not match; retrying does not help. One sentence."""


class NotSignedInError(Exception):
    """Raised for a login that is refused; the message is one sentence for the user."""


@dataclass(frozen=True, slots=True)
class LoginState:
    """The values that tie a callback to its login; kept in a cookie of the browser."""

    state: str
    nonce: str
    verifier: str

    def challenge(self) -> str:
        """Return the code challenge of PKCE with S256 (RFC 7636 s4.2)."""
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _client(oidc: Oidc) -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=TIMEOUT_SECONDS, verify=oidc.tls or True)


async def authorization_url(oidc: Oidc, login: LoginState) -> str:
    """Return the URL at which the user signs in.

    Raises:
        ProviderUnavailableError: the provider is unavailable.
        ProviderMismatchError: the provider's metadata do not match the configuration.
    """
    async with _client(oidc) as client:
        metadata = await _metadata(client, oidc)
    parameters = {
        "response_type": "code",
        "client_id": oidc.client_id,
        "redirect_uri": oidc.redirect_uri,
        "scope": "openid profile email",
        "state": login.state,
        "nonce": login.nonce,
        "code_challenge": login.challenge(),
        "code_challenge_method": "S256",
    }
    endpoint = metadata["authorization_endpoint"]
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(parameters)}"


async def signed_in_as(oidc: Oidc, login: LoginState, code: str, now: float) -> Operator:
    """Exchange the code for the user, with the highest level of their roles.

    Raises:
        ProviderUnavailableError: the provider is unavailable.
        ProviderMismatchError: the provider does not match the configuration.
        NotSignedInError: the login is invalid, or the user has no role.
    """
    async with _client(oidc) as client:
        metadata = await _metadata(client, oidc)
        tokens = await _exchange(client, metadata, oidc, login, code)
        keys = await _json(client, "GET", metadata["jwks_uri"])
    claims = _claims(oidc, tokens.get("id_token"), keys, int(now))
    if not hmac.compare_digest(
        str(claims.get("nonce")).encode("utf-8", "replace"), login.nonce.encode()
    ):
        raise NotSignedInError("the ID token belongs to another sign-in")
    return operator_of_claims(oidc, claims)


def operator_of_claims(oidc: Oidc, claims: Mapping[str, Any]) -> Operator:
    """Return the operator, whose name is prefixed with `oidc:`, with the highest level. Pure."""
    roles = _roles(claims, oidc.roles_claim)
    levels = [oidc.levels[r] for r in roles or () if r in oidc.levels]
    subject, name = _shown(claims, "sub"), _shown(claims, "preferred_username", "email")
    if not subject:
        raise NotSignedInError("the ID token has no subject")
    # Only `sub` identifies a user permanently (s5.7); the other name is for display.
    shown = f"{name} ({subject})" if name else subject
    if not levels:
        missing = f"the ID token has no claim {oidc.roles_claim}"
        roles_text = missing if roles is None else f"{oidc.roles_claim}: {_listed(roles)}"
        raise NotSignedInError(f"{shown} has no role with access to this page ({roles_text})")
    return Operator(f"oidc:{shown}", max(levels, key=list(Level).index))


def _roles(claims: Mapping[str, Any], path: str) -> list[str] | None:
    """Return the roles in the claim of this name or dotted path; None if there is no such claim."""
    value: Any = claims.get(path)
    if value is None:
        value = claims
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
    if value is None:
        return None
    return [
        each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str)
    ]


def _listed(roles: list[str]) -> str:
    """Return the roles as text, shortened to fit into an error message."""
    text = visible(", ".join(roles)) or "none"
    return text if len(text) <= _MAX_NAME else f"{text[:_MAX_NAME]}..."


def _shown(claims: Mapping[str, Any], *names: str) -> str:
    """Return the printable characters of the first of these claims that is non-empty text."""
    texts = (each for name in names if isinstance(each := claims.get(name), str) and each)
    return "".join(c for c in next(texts, "") if c.isprintable())[:_MAX_NAME]


async def _metadata(client: httpx.AsyncClient, oidc: Oidc) -> dict[str, Any]:
    """Fetch the provider's metadata and check its issuer (Discovery 1.0 s4.3)."""
    address = f"{oidc.issuer.rstrip('/')}/.well-known/openid-configuration"
    found = await _json(client, "GET", address)
    names = ("authorization_endpoint", "token_endpoint", "jwks_uri")
    if found.get("issuer") != oidc.issuer:
        other = visible(str(found.get("issuer")))[:_MAX_NAME]
        raise ProviderMismatchError(
            f"audit.oidc_issuer is {oidc.issuer}, the provider's issuer is {other}"
        )
    for name in names:
        if not isinstance(found.get(name), str):
            raise ProviderMismatchError(f"the provider's metadata has no {name}")
    methods = found.get("token_endpoint_auth_methods_supported")
    return {name: found[name] for name in names} | {"methods": methods}


async def _exchange(
    client: httpx.AsyncClient,
    metadata: Mapping[str, Any],
    oidc: Oidc,
    login: LoginState,
    code: str,
) -> dict[str, Any]:
    """Exchange the code for tokens (RFC 6749 s4.1.3, RFC 7636 s4.5)."""
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": oidc.redirect_uri,
        "code_verifier": login.verifier,
    }
    basic = None
    if oidc.client_secret is None:
        form["client_id"] = oidc.client_id
    elif _by_post(metadata.get("methods")):
        form |= {"client_id": oidc.client_id, "client_secret": oidc.client_secret}
    else:
        # RFC 6749 s2.3.1: ID and secret are form-encoded first.
        basic = httpx.BasicAuth(quote_plus(oidc.client_id), quote_plus(oidc.client_secret))
    secrets = (oidc.client_secret or "", code, login.verifier)
    endpoint = metadata["token_endpoint"]
    return await _json(client, "POST", endpoint, secrets, data=form, auth=basic)


def _by_post(methods: object) -> bool:
    """Return whether the secret goes into the form: only if the provider has no basic auth.

    The default without a list is client_secret_basic (Discovery 1.0 s3).
    """
    listed = methods if isinstance(methods, list) else []
    return "client_secret_post" in listed and "client_secret_basic" not in listed


async def _json(
    client: httpx.AsyncClient, method: str, url: str, secrets: tuple[str, ...] = (), **options: Any
) -> dict[str, Any]:
    """Return the JSON object of the response. Errors never repeat one of the secrets sent."""
    place = url.partition("?")[0]
    answer = await _ask(client, method, url, place, options)
    if answer.is_server_error or answer.status_code in _BUSY:
        raise ProviderUnavailableError(f"{place} returned HTTP {answer.status_code}")
    try:
        found = answer.json()
    except (ValueError, RecursionError):
        found = None
    if not answer.is_success:
        raise _refused(place, answer.status_code, found, secrets)
    if not isinstance(found, dict):
        raise ProviderMismatchError(f"{place} did not return a JSON object")
    return found


async def _ask(
    client: httpx.AsyncClient, method: str, url: str, place: str, options: dict[str, Any]
) -> httpx.Response:
    """Return the complete response; `place` is the URL as errors show it."""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return await client.request(method, url, **options)
    except TimeoutError:
        raise ProviderUnavailableError(f"{place} did not answer in time") from None
    except httpx.InvalidURL:
        raise ProviderMismatchError(f"{visible(place)[:_MAX_NAME]} is not a URL") from None
    except httpx.HTTPError as error:
        if _is_untrusted(error):
            problem = f"the certificate of {place} is not trusted; set audit.oidc_ca_path"
            raise ProviderMismatchError(problem) from None
        raise ProviderUnavailableError(place) from None


def _is_untrusted(error: BaseException | None) -> bool:
    """Return whether the cause is a certificate that does not verify."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error is not None


def _refused(place: str, status: int, found: object, secrets: tuple[str, ...]) -> Exception:
    """Return the error for a refusal, with the provider's error code (RFC 6749 s5.2)."""
    error = found.get("error") if isinstance(found, dict) else None
    if error == "invalid_grant":
        return NotSignedInError("this sign-in was used before or has expired; start again")
    shown = error[:_MAX_NAME] if isinstance(error, str) else ""
    code = f": {visible(shown)}" if shown and not echoes(shown, secrets) else ""
    return ProviderMismatchError(f"{place} returned HTTP {status}{code}")


def _claims(oidc: Oidc, token: object, keys: Mapping[str, Any], now: int) -> dict[str, Any]:
    """Return the claims of the ID token, validated by OpenID Connect Core 1.0 s3.1.3.7."""
    registry = jwt.JWTClaimsRegistry(
        now=now,
        leeway=_LEEWAY_SECONDS,
        iss={"essential": True, "value": oidc.issuer},
        aud={"essential": True, "value": oidc.client_id},
        exp={"essential": True},
        iat={"essential": True},
        nonce={"essential": True},
    )
    claims = _decoded(token, keys)
    try:
        registry.validate(claims)
    except ExpiredTokenError:
        raise NotSignedInError("the ID token has expired; start again") from None
    except MissingClaimError as error:
        raise NotSignedInError(f"the ID token has no claim {error.claim}") from None
    except ClaimError as error:
        value = visible(str(claims.get(error.claim)))[:_MAX_NAME]
        expected = {"iss": oidc.issuer, "aud": oidc.client_id}.get(error.claim)
        suffix = f", expected {expected}" if expected else ""
        sentence = f"invalid ID token: {error.claim} is {value}{suffix}"
        raise NotSignedInError(sentence) from None
    except (JoseError, ValueError, TypeError):
        raise NotSignedInError("invalid ID token") from None
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if claims.get("azp", None if several else oidc.client_id) != oidc.client_id:
        raise NotSignedInError("the ID token is for another client")
    return claims


def _decoded(token: object, keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return the claims of a token after verifying its signature with the provider's keys."""
    key_set = _key_set(keys)
    try:
        return jwt.decode(str(token), key_set, algorithms=_ALGORITHMS).claims
    except BadSignatureError:
        raise NotSignedInError(
            "the ID token's signature does not match any of the provider's keys"
        ) from None
    except (JoseError, ValueError, KeyError, TypeError):
        raise NotSignedInError("the ID token cannot be decoded") from None


def _key_set(keys: Mapping[str, Any]) -> KeySet:
    """Return the keys that can be read; unknown key types are ignored (RFC 7517 s5)."""
    listed = keys.get("keys")
    found: list[Any] = []
    for each in listed if isinstance(listed, list) else ():
        with contextlib.suppress(JoseError, ValueError, KeyError, TypeError):
            found += KeySet.import_key_set({"keys": [each]}).keys
    if not found:
        raise ProviderMismatchError("the provider's JWKS has no usable key")
    return KeySet(found)
