"""Entra ID's two routes: the OpenID configuration, and tokens."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from cli.fake_microsoft.exchange import Answer, Call, DeniedError
from cli.fake_microsoft.identity import Endpoint, TokenError, judge_token_request
from cli.fake_microsoft.world import World, guid


def openid(world: World, call: Call) -> Answer:
    """Return what a client library needs to find the token endpoint."""
    app = world.app_of(call.path["tenant"])
    if app is None:
        raise _refused(world, TokenError(400, "invalid_request", 90002, "Tenant not found."))
    root = f"{call.base}{app.id}"
    body = {
        "token_endpoint": f"{root}/oauth2/v2.0/token",
        "authorization_endpoint": f"{root}/oauth2/v2.0/authorize",
        "jwks_uri": f"{root}/discovery/v2.0/keys",
        "issuer": f"{root}/v2.0",
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
    }
    return Answer(200, body)


def token(world: World, call: Call) -> Answer:
    """Issue a token, or say why not.

    Assertions are checked by the real clock, because clients make them. The virtual
    clock moves what the fake issues: tokens and challenges.
    """
    app = world.app_of(call.path["tenant"])
    endpoint = Endpoint(
        f"{call.base}{call.path['tenant']}/oauth2/v2.0/token", audiences(call.base), call.base
    )
    try:
        form = _form(call)
        scope = scope_name(call.base, form.get("scope", ""))
        grant = judge_token_request(app, form, endpoint, world.clock(), world.assertions)
    except TokenError as error:
        raise _refused(world, error) from None
    assert app is not None
    issued = world.issue(app, grant)
    body = {
        "token_type": "Bearer",
        "expires_in": app.token_lifetime,
        "ext_expires_in": app.token_lifetime,
        "access_token": issued.value,
    }
    return Answer(200, body, {"scope": scope, "code": "Success"})


def audiences(base: str) -> dict[str, str]:
    """Return the audience of each scope; a missing or double slash is accepted."""
    graph, intune = base.rstrip("/"), f"{base}intune"
    return {
        f"{graph}/.default": base,
        f"{graph}//.default": base,
        f"{intune}//.default": f"{intune}/",
        f"{intune}/.default": f"{intune}/",
    }


def scope_name(base: str, scope: str) -> str:
    """Return the name of a scope in the journal: graph, intune or nothing."""
    audience = audiences(base).get(scope)
    return "" if audience is None else "graph" if audience == base else "intune"


def _form(call: Call) -> dict[str, str]:
    kind = call.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise TokenError(400, "invalid_request", 900144, "The content type is not supported.")
    try:
        pairs = parse_qsl(
            call.body.decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=20
        )
    except ValueError:
        raise TokenError(400, "invalid_request", 900144, "The request body is malformed.") from None
    if len(dict(pairs)) != len(pairs):
        raise TokenError(400, "invalid_request", 900144, "A parameter is repeated.")
    return dict(pairs)


def _refused(world: World, error: TokenError) -> DeniedError:
    at = datetime.fromtimestamp(world.now(), UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    body: dict[str, Any] = {
        "error": error.error,
        "error_description": f"AADSTS{error.number}: {error.message} Timestamp: {at}",
        "error_codes": [error.number],
        "timestamp": at,
        "trace_id": guid(),
        "correlation_id": guid(),
    }
    notes = {"code": error.error, "note": f"AADSTS{error.number}: {error.message}"}
    return DeniedError(Answer(error.status, body, notes))
