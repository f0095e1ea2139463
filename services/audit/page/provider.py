"""An OpenID Connect provider: who a code stands for (OpenID Connect Core 1.0 s3.1)."""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote_plus, urlencode

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from services.audit.admin.auth import Level, Operator
from services.audit.settings import Oidc

# No "none", and no HMAC: a public key must never be taken for a secret.
_ALGORITHMS: Final = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]
_LEEWAY_SECONDS: Final = 60
_TIMEOUT_SECONDS: Final = 10.0
_MAX_NAME: Final = 200


class ProviderAwayError(Exception):
    """Raised where the provider does not answer as one should."""


class NotSignedInError(Exception):
    """Raised for a login that does not hold; the message is the one sentence to read."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one login is known by on its way; kept by the browser that began it."""

    state: str
    nonce: str
    verifier: str

    def challenge(self) -> str:
        """PKCE's S256 (RFC 7636 s4.2)."""
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


async def authorization_url(oidc: Oidc, attempt: Attempt) -> str:
    """Where the browser goes to sign in; `ProviderAwayError`."""
    async with httpx.AsyncClient(timeout=_TIMEOUT_SECONDS) as client:
        metadata = await _metadata(client, oidc)
    asked = {
        "response_type": "code",
        "client_id": oidc.client_id,
        "redirect_uri": oidc.redirect_uri,
        "scope": "openid profile email",
        "state": attempt.state,
        "nonce": attempt.nonce,
        "code_challenge": attempt.challenge(),
        "code_challenge_method": "S256",
    }
    endpoint = metadata["authorization_endpoint"]
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked)}"


async def signed_in_as(oidc: Oidc, attempt: Attempt, code: str, now: float) -> Operator:
    """Who it is, with the highest of their roles' levels.

    `ProviderAwayError`; `NotSignedInError` for a token that does not hold, or without any role.
    """
    async with httpx.AsyncClient(timeout=_TIMEOUT_SECONDS) as client:
        metadata = await _metadata(client, oidc)
        tokens = await _exchange(client, metadata, oidc, attempt, code)
        keys = await _json(client, "GET", metadata["jwks_uri"])
    claims = _claims(oidc, tokens.get("id_token"), keys, int(now))
    if not hmac.compare_digest(
        str(claims.get("nonce")).encode("utf-8", "replace"), attempt.nonce.encode()
    ):
        raise NotSignedInError("the ID token is of another login")
    return operator_of_claims(oidc, claims)


def operator_of_claims(oidc: Oidc, claims: Mapping[str, Any]) -> Operator:
    """The name that orders are given under, marked as the provider's, and the level. Pure."""
    told = claims.get(oidc.roles_claim)
    roles = told if isinstance(told, list) else [told]
    levels = [oidc.levels[r] for r in roles if isinstance(r, str) and r in oidc.levels]
    subject, name = _shown(claims, "sub"), _shown(claims, "preferred_username", "email")
    if not subject:
        raise NotSignedInError("the provider's ID token names nobody")
    # Only `sub` is one user's for ever (s5.7); the other is for people.
    shown = f"{name} ({subject})" if name else subject
    if not levels:
        raise NotSignedInError(f"{shown} has no role that may look at this page")
    return Operator(f"oidc:{shown}", max(levels, key=list(Level).index))


def _shown(claims: Mapping[str, Any], *names: str) -> str:
    """The first of these claims that is a text, as far as it can be printed."""
    told = (each for name in names if isinstance(each := claims.get(name), str) and each)
    return "".join(c for c in next(told, "") if c.isprintable())[:_MAX_NAME]


async def _metadata(client: httpx.AsyncClient, oidc: Oidc) -> dict[str, str]:
    """The provider's own document, if it is the configured one's (Discovery 1.0 s4.3)."""
    address = f"{oidc.issuer.rstrip('/')}/.well-known/openid-configuration"
    found = await _json(client, "GET", address)
    names = ("authorization_endpoint", "token_endpoint", "jwks_uri")
    if found.get("issuer") != oidc.issuer or not all(isinstance(found.get(n), str) for n in names):
        raise ProviderAwayError("another issuer's metadata, or none")
    return {name: found[name] for name in names}


async def _exchange(
    client: httpx.AsyncClient,
    metadata: Mapping[str, str],
    oidc: Oidc,
    attempt: Attempt,
    code: str,
) -> dict[str, Any]:
    """The tokens for a code (RFC 6749 s4.1.3, RFC 7636 s4.5)."""
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": oidc.redirect_uri,
        "code_verifier": attempt.verifier,
    }
    basic = None
    if oidc.client_secret is None:
        form["client_id"] = oidc.client_id
    else:
        # Each is form-encoded first (RFC 6749 s2.3.1).
        basic = httpx.BasicAuth(quote_plus(oidc.client_id), quote_plus(oidc.client_secret))
    return await _json(client, "POST", metadata["token_endpoint"], data=form, auth=basic)


async def _json(client: httpx.AsyncClient, method: str, url: str, **options: Any) -> dict[str, Any]:
    try:
        answer = await client.request(method, url, **options)
        found = answer.raise_for_status().json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError):
        raise ProviderAwayError(url.partition("?")[0]) from None
    if not isinstance(found, dict):
        raise ProviderAwayError(url.partition("?")[0])
    return found


def _claims(oidc: Oidc, token: object, keys: Mapping[str, Any], now: int) -> dict[str, Any]:
    """The ID token's claims, checked as OpenID Connect Core 1.0 s3.1.3.7 wants it."""
    registry = jwt.JWTClaimsRegistry(
        now=now,
        leeway=_LEEWAY_SECONDS,
        iss={"essential": True, "value": oidc.issuer},
        aud={"essential": True, "value": oidc.client_id},
        exp={"essential": True},
        iat={"essential": True},
        nonce={"essential": True},
    )
    try:
        key_set = KeySet.import_key_set({"keys": keys["keys"]})
        read = jwt.decode(str(token), key_set, algorithms=_ALGORITHMS)
        registry.validate(read.claims)
    except (JoseError, ValueError, KeyError, TypeError):
        raise NotSignedInError("the provider's ID token does not hold") from None
    several = isinstance(read.claims["aud"], list) and len(read.claims["aud"]) > 1
    if read.claims.get("azp", None if several else oidc.client_id) != oidc.client_id:
        raise NotSignedInError("the provider's ID token is for another client")
    return read.claims
