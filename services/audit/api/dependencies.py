"""Dependencies of every endpoint, and authentication by bearer token or session cookie."""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param

from services.audit.api.failed_tokens import FailureLimiter
from services.audit.api.problems import ProblemError
from services.audit.commands.context import OperatorContext
from services.audit.roles import Level, Operator
from services.audit.settings import Settings
from services.audit.store.api_tokens import operator_of, token_sha256
from services.audit.store.engine import Engine
from services.audit.store.sessions import is_csrf_token, session_operator
from shared.bus.core import Bus
from shared.config.addresses import source_key
from shared.config.sections import Configuration
from shared.limits import LOGIN_FAILURES, THROTTLED_SOURCES, TOKEN_FAILURES

_BEARER: Final = HTTPBearer(
    auto_error=False, description="An API token, created with `scepstream audit token add`."
)
_CHALLENGE: Final = {"www-authenticate": "Bearer"}
_SAFE: Final = frozenset({"GET", "HEAD"})
CSRF_HEADER: Final = "x-csrf-token"
# Browsers accept the prefix only over TLS and from this host itself (RFC 6265bis s4.1.3.2).
COOKIES: Final = {False: "scepstream", True: "__Host-scepstream"}
_COOKIE: Final = APIKeyCookie(
    name=COOKIES[False],
    auto_error=False,
    description=(
        f"Session cookie of the page; with TLS its name is `{COOKIES[True]}`."
        f" Commands also require the header `{CSRF_HEADER}`."
    ),
)


@dataclass(frozen=True)
class Dependencies:
    """The service's parts; `configuration` reads the file each time, `clock` is in Unix seconds."""

    engine: Engine
    bus: Bus
    settings: Settings
    configuration: Callable[[], Configuration]
    clock: Callable[[], float]
    login_failures: FailureLimiter = field(default_factory=lambda: FailureLimiter(LOGIN_FAILURES))
    token_failures: FailureLimiter = field(default_factory=lambda: FailureLimiter(TOKEN_FAILURES))
    known_tokens: "OrderedDict[str, None]" = field(default_factory=OrderedDict)

    @property
    def public_url(self) -> str | None:
        """The URL under which operators reach the page."""
        return self.settings.page.public_url

    @property
    def cookie(self) -> str:
        """The name of the session cookie."""
        return COOKIES[self.settings.page.secure]

    def context(self, operator: Operator) -> OperatorContext:
        """Return the context in which this operator's commands run."""
        return OperatorContext.of(self.bus, self.settings, self.configuration(), operator.name)

    def command_id(self) -> str:
        """Return a unique name for a command."""
        return secrets.token_hex(8)


def dependencies_of(request: Request) -> Dependencies:
    """Return the dependencies of the application."""
    found: Any = request.app.state.deps
    assert isinstance(found, Dependencies)
    return found


def require(level: Level) -> Callable[..., Awaitable[Operator]]:
    """Return a FastAPI dependency: 401 without valid credentials, 403 below the level."""

    async def check(
        request: Request,
        deps: Annotated[Dependencies, Depends(dependencies_of)],
        _: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
        __: Annotated[str | None, Security(_COOKIE)],
    ) -> Operator:
        operator = getattr(request.state, "operator", None)  # set by the guard if it has checked
        if not isinstance(operator, Operator):
            operator = await identify(request, deps)
        if not operator.level.covers(level):
            detail = f"requires the {level} role; {operator.name} has {operator.level}"
            raise ProblemError(403, detail)
        return operator

    return check


async def identify(request: Request, deps: Dependencies) -> Operator:
    """Return the operator of a request, by bearer token or session.

    Raises:
        ProblemError: 401 without valid credentials, 403 for a session without its CSRF token.
    """
    scheme, token = get_authorization_scheme_param(request.headers.get("authorization"))
    if scheme.lower() == "bearer" and token:
        return await _by_token(request, deps, token)
    operator = await signed_in(request, deps)
    if operator is None:
        raise ProblemError(401, "bearer token required", _CHALLENGE)
    _check_csrf(request, deps)
    return operator


async def _by_token(request: Request, deps: Dependencies, token: str) -> Operator:
    """Return the token's operator. A token that was valid before is exempt from throttling."""
    digest, source, now = token_sha256(token), source_of(request), deps.clock()
    if digest not in deps.known_tokens and (wait := deps.token_failures.wait(source, now)):
        detail = f"too many unknown tokens from this address; try again in {wait} s"
        raise ProblemError(401, detail, {**_CHALLENGE, "retry-after": str(wait)})
    with (
        deps.token_failures.looking_up(source) if digest not in deps.known_tokens else nullcontext()
    ):
        operator = await asyncio.to_thread(operator_of, deps.engine, token)
    if operator is None:
        deps.known_tokens.pop(digest, None)
        deps.token_failures.failed(source, now)
        raise ProblemError(401, "unknown or revoked token", _CHALLENGE)
    deps.known_tokens[digest] = None
    if len(deps.known_tokens) > THROTTLED_SOURCES:
        deps.known_tokens.popitem(last=False)
    return operator


def source_of(request: Request) -> str:
    """Return the key that a client's failures count under: its address, or the /64 for IPv6."""
    return source_key(request.client.host) if request.client else ""


async def signed_in(request: Request, deps: Dependencies) -> Operator | None:
    """Return the operator of the request's session, None without a valid one."""
    secret = request.cookies.get(deps.cookie)
    if not secret:
        return None
    by_provider = deps.settings.page.oidc is not None

    def work() -> Operator | None:
        return session_operator(deps.engine, secret, deps.clock(), by_provider=by_provider)

    return await asyncio.to_thread(work)


def _check_csrf(request: Request, deps: Dependencies) -> None:
    """Refuse (403) a command that is sent with a session cookie but without its CSRF token."""
    shown = request.headers.get(CSRF_HEADER, "")
    if request.method not in _SAFE and not is_csrf_token(request.cookies[deps.cookie], shown):
        raise ProblemError(403, "this page belongs to another session; reload it")


def reject_repeated_parameters(request: Request) -> None:
    """Refuse (400) a repeated query parameter: which value counts would be ambiguous."""
    names = [name for name, _ in request.query_params.multi_items()]
    if len(names) != len(set(names)):
        raise ProblemError(400, "duplicate query parameter")


Injected = Annotated[Dependencies, Depends(dependencies_of)]
Viewer = Annotated[Operator, Depends(require(Level.VIEWER))]
OperatorUser = Annotated[Operator, Depends(require(Level.OPERATOR))]
