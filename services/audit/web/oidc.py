"""Routes to sign in with an OpenID Connect provider: the redirect, and the callback."""

import hmac
import secrets
from typing import Annotated, Final
from urllib.parse import quote, unquote

import structlog
from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from services.audit.api.dependencies import Dependencies, Injected
from services.audit.api.problems import ProblemError
from services.audit.settings import Oidc
from services.audit.web.login import Next, local, sign_in
from services.audit.web.provider import (
    LoginState,
    NotSignedInError,
    ProviderMismatchError,
    ProviderUnavailableError,
    authorization_url,
    signed_in_as,
)
from services.audit.web.rendering import HOME
from shared.observe.logs import log_failure

router = APIRouter(include_in_schema=False)
_log = structlog.get_logger()
_SECONDS: Final = 600
_PARTS: Final = 4
_MAX_KEPT: Final = 2000
Text = Annotated[str, Query(max_length=4000)]


@router.get("/login/oidc")
async def begin(deps: Injected, next: Next = HOME) -> Response:  # noqa: A002 - the query's word for it
    """Redirect to the provider, and keep the values that identify the login in a cookie."""
    oidc = _configured(deps)
    login = LoginState(*(secrets.token_urlsafe(32) for _ in range(3)))
    try:
        location = await authorization_url(oidc, login)
    except ProviderUnavailableError as error:
        raise _unavailable(error) from None
    except ProviderMismatchError as error:
        raise _mismatch(error) from None
    found = RedirectResponse(location, 303)
    found.set_cookie(
        _cookie(deps),
        " ".join((login.state, login.nonce, login.verifier, _kept(next))),
        max_age=_SECONDS,
        httponly=True,
        samesite="lax",
        secure=deps.settings.page.secure,
    )
    return found


@router.get("/login/oidc/callback")
async def callback(
    request: Request, deps: Injected, state: Text = "", code: Text = "", error: Text = ""
) -> Response:
    """Open a session if the code yields a valid ID token of a user with a role."""
    oidc = _configured(deps)
    parts = request.cookies.get(_cookie(deps), "").split(" ", _PARTS - 1)
    if len(parts) != _PARTS or not hmac.compare_digest(parts[0].encode(), state.encode()):
        raise ProblemError(
            400, "this sign-in was started in another browser or has expired; start again"
        )
    if error or not code:
        raise ProblemError(403, "the identity provider denied the sign-in")
    try:
        operator = await signed_in_as(oidc, LoginState(*parts[:3]), code, deps.clock())
    except ProviderUnavailableError as problem:
        raise _unavailable(problem) from None
    except ProviderMismatchError as problem:
        raise _mismatch(problem) from None
    except NotSignedInError as problem:
        raise ProblemError(403, str(problem)) from None
    _log.info("operator_signed_in", operator=operator.name, level=operator.level.value)
    found = await sign_in(deps, operator, None, local(unquote(parts[3])))
    found.delete_cookie(_cookie(deps), secure=deps.settings.page.secure, httponly=True)
    return found


def _kept(location: str) -> str:
    """Return the location to continue at, quoted for a cookie; the home page if it is too long."""
    found = quote(local(location))
    return found if len(found) <= _MAX_KEPT else HOME


def _configured(deps: Dependencies) -> Oidc:
    oidc = deps.settings.page.oidc
    if oidc is None:
        raise ProblemError(404, "no identity provider is configured")
    return oidc


def _cookie(deps: Dependencies) -> str:
    return f"{deps.cookie}-login"


def _unavailable(error: ProviderUnavailableError) -> ProblemError:
    log_failure("provider_unavailable", error)
    return ProblemError(502, "the identity provider is unavailable; try again")


def _mismatch(error: ProviderMismatchError) -> ProblemError:
    _log.error("provider_misconfigured", detail=str(error))
    return ProblemError(502, f"identity provider misconfigured: {error}")
