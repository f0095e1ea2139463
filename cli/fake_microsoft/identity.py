"""What Entra ID decides: who gets a token (OAuth 2.0 client credentials, RFC 6749 and 7523)."""

import base64
import hashlib
import hmac
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from cli.fake_microsoft.model import GRAPH_ROLES, SCEP_ROLE, App

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_LIFETIME: Final = 600
_SKEW: Final = 300


class TokenError(Exception):
    """Raised if no token is issued: HTTP status, OAuth error, AADSTS number and what is wrong."""

    def __init__(self, status: int, error: str, number: int, message: str) -> None:
        super().__init__(message)
        self.status, self.error, self.number, self.message = status, error, number, message


@dataclass(frozen=True)
class Endpoint:
    """The endpoint that a request came to, and the audience of each scope that it serves."""

    url: str
    audiences: Mapping[str, str]
    graph: str


@dataclass(frozen=True)
class Grant:
    """What a token is issued for. `jti` is that of the assertion, empty for a secret."""

    audience: str
    roles: tuple[str, ...]
    jti: str = ""


def judge_token_request(
    app: App | None,
    form: Mapping[str, str],
    endpoint: Endpoint,
    now: float,
    seen: Collection[str],
) -> Grant:
    """Return what to issue; `TokenError` if nothing. `seen` are the `jti` of earlier assertions."""
    if app is None:
        raise TokenError(400, "invalid_request", 90002, "Tenant not found.")
    if form.get("grant_type") != "client_credentials":
        raise TokenError(400, "unsupported_grant_type", 70003, "The grant type is not supported.")
    if form.get("client_id") != app.client_id:
        message = "Application was not found in the directory."
        raise TokenError(400, "unauthorized_client", 700016, message)
    jti = _authenticate(app, form, endpoint.url, now, seen)
    audience = endpoint.audiences.get(form.get("scope", ""))
    if audience is None:
        raise TokenError(400, "invalid_resource", 500011, "The resource principal was not found.")
    offered = GRAPH_ROLES if audience == endpoint.graph else (SCEP_ROLE,)
    return Grant(audience, tuple(role for role in app.roles if role in offered), jti)


def _authenticate(
    app: App, form: Mapping[str, str], url: str, now: float, seen: Collection[str]
) -> str:
    """Check the secret or the assertion; return the assertion's `jti`."""
    if "client_assertion" in form:
        if form.get("client_assertion_type") != ASSERTION_TYPE:
            raise _invalid(7000218, "client_assertion_type is not supported.")
        return check_assertion(app, form["client_assertion"], url, now, seen)
    secret = form.get("client_secret")
    if secret is None:
        message = "The request must contain client_assertion or client_secret."
        raise _invalid(7000218, message)
    if any(_equal(secret, each) for each in app.expired_secrets):
        raise _invalid(7000222, "The provided client secret keys are expired.")
    if not any(_equal(secret, each) for each in app.secrets):
        raise _invalid(7000215, "Invalid client secret provided.")
    return ""


def check_assertion(app: App, assertion: str, url: str, now: float, seen: Collection[str]) -> str:
    """Verify an assertion (PS256 or RS256) of the app's certificate; return its `jti`."""
    try:
        head, body, signature = assertion.split(".")
        header, claims = _object(head), _object(body)
        raw = _decode(signature)
    except (ValueError, TypeError, RecursionError):
        raise _invalid(50027, "The assertion is not a JWT.") from None
    _check_signature(app, header, f"{head}.{body}".encode(), raw)
    _check_claims(app, claims, url, now)
    jti = claims.get("jti")
    if not isinstance(jti, str) or not jti:
        raise _invalid(700027, "The assertion has no jti.")
    if jti in seen:
        raise _invalid(700027, "The assertion was used before.")
    return jti


def _check_signature(app: App, header: Mapping[str, Any], signed: bytes, signature: bytes) -> None:
    schemes: dict[str, padding.AsymmetricPadding] = {
        "PS256": padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size),
        "RS256": padding.PKCS1v15(),
    }
    scheme = schemes.get(str(header.get("alg")))
    if scheme is None or header.get("typ", "JWT") != "JWT":
        raise _invalid(700027, "The algorithm of the assertion is not supported.")
    if not _names_certificate(app, header):
        raise _invalid(700027, "The certificate with this thumbprint is not registered.")
    key = x509.load_der_x509_certificate(app.certificate).public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    try:
        key.verify(signature, signed, scheme, hashes.SHA256())
    except InvalidSignature:
        raise _invalid(700027, "The signature of the assertion is invalid.") from None


def _names_certificate(app: App, header: Mapping[str, Any]) -> bool:
    """Return whether the header names the registered certificate, by either thumbprint."""
    digests = {
        "x5t#S256": hashlib.sha256(app.certificate).digest(),
        "x5t": hashlib.sha1(app.certificate, usedforsecurity=False).digest(),
    }
    given = {name: header[name] for name in digests if name in header}
    chain = header.get("x5c", [base64.b64encode(app.certificate).decode()])
    leaf = chain[0] if isinstance(chain, list) and chain else chain
    return (
        bool(given)
        and all(_encode(digests[name]) == value for name, value in given.items())
        and leaf == base64.b64encode(app.certificate).decode()
    )


def _check_claims(app: App, claims: Mapping[str, Any], url: str, now: float) -> None:
    if claims.get("aud") != url:
        raise _invalid(700021, "The audience of the assertion is not this endpoint.")
    if claims.get("iss") != app.client_id or claims.get("sub") != app.client_id:
        raise _invalid(700027, "Issuer and subject of the assertion are not the client ID.")
    issued, expires = claims.get("iat", claims.get("nbf")), claims.get("exp")
    if not _is_number(issued) or not _is_number(expires):
        raise _invalid(700027, "The assertion has no times.")
    assert issued is not None
    assert expires is not None
    if expires <= now or issued > now + _SKEW or expires - issued > _LIFETIME:
        raise _invalid(700024, "The assertion is not within its valid time range.")


def _invalid(number: int, message: str) -> TokenError:
    return TokenError(401, "invalid_client", number, message)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _equal(left: str, right: str) -> bool:
    return hmac.compare_digest(left.encode(), right.encode())


def _object(part: str) -> dict[str, Any]:
    return dict(json.loads(_decode(part)))


def _decode(part: str) -> bytes:
    return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
