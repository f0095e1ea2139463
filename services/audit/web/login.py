"""Routes to sign in with an API token and to sign out."""

import asyncio
import secrets
from typing import Annotated, Final
from urllib.parse import parse_qs, unquote

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from services.audit.api.dependencies import Dependencies, Injected, source_of
from services.audit.api.guard import is_own_origin
from services.audit.api.problems import ProblemError
from services.audit.roles import Operator
from services.audit.store.api_tokens import operator_of
from services.audit.store.sessions import close_session, is_csrf_token, open_session
from services.audit.web.rendering import HOME, page
from shared.limits import FORM_BYTES

router = APIRouter(include_in_schema=False)
_MAX_NEXT: Final = 8000
Next = Annotated[str, Query()]


@router.get("/login")
async def login_page(deps: Injected, next: Next = HOME) -> Response:  # noqa: A002 - the query's word for it
    """Show the login form."""
    return _form(deps, next)


@router.post("/login")
async def login(request: Request, deps: Injected, next: Next = HOME) -> Response:  # noqa: A002
    """Open a session for a valid API token; each address may fail ten times a minute."""
    refuse_others(request, deps.public_url)
    address = source_of(request)
    token = (await form(request)).get("token", "").strip()
    wait = deps.login_failures.wait(address, deps.clock())
    if wait:
        wrong = f"Too many failed logins; try again in {wait} s."
        found = _form(deps, next, 429, wrong)
        found.headers["retry-after"] = str(wait)
        return found
    with deps.login_failures.looking_up(address):
        operator = await asyncio.to_thread(operator_of, deps.engine, token)
    if operator is None:
        deps.login_failures.failed(address, deps.clock())
        wrong = "Unknown or revoked API token."
        return _form(deps, next, 401, wrong)
    return await sign_in(deps, operator, operator.name, local(next))


def _form(deps: Dependencies, location: str, status: int = 200, wrong: str = "") -> Response:
    with_oidc = deps.settings.page.oidc is not None
    return page("login.html", status, next=local(location), wrong=wrong, oidc=with_oidc)


@router.post("/logout")
async def logout(request: Request, deps: Injected) -> Response:
    """End the session."""
    secret = request.cookies.get(deps.cookie, "")
    if not is_csrf_token(secret, (await form(request)).get("csrf", "")):
        raise ProblemError(403, "this page belongs to another session; reload it")
    await asyncio.to_thread(close_session, deps.engine, secret)
    found = RedirectResponse("/login", 303)
    found.delete_cookie(deps.cookie, secure=deps.settings.page.secure, httponly=True)
    return found


async def sign_in(
    deps: Dependencies, operator: Operator, token: str | None, location: str
) -> Response:
    """Open a session and redirect to `location` with its cookie.

    `token` is the name of the API token that was used, None after a sign-in by the provider.
    """
    secret = secrets.token_urlsafe(32)
    seconds = deps.settings.page.session_seconds

    def work() -> None:
        now = deps.clock()
        open_session(deps.engine, operator, secret, token=token, now=now, seconds=seconds)

    await asyncio.to_thread(work)
    found = RedirectResponse(location, 303)
    found.set_cookie(
        deps.cookie,
        secret,
        max_age=int(seconds),
        httponly=True,
        samesite="lax",  # links from tickets must work; commands need the CSRF token
        secure=deps.settings.page.secure,
    )
    return found


def refuse_others(request: Request, public_url: str | None) -> None:
    """Refuse a form from another site, by the headers Sec-Fetch-Site and Origin."""
    fetched = request.headers.get("sec-fetch-site", "same-origin")
    if fetched not in {"same-origin", "none"} or not is_own_origin(request, public_url):
        raise ProblemError(403, "the form was submitted from another site")


def local(location: str) -> str:
    """Return the location if it is a page of ours, else the home page (no open redirects)."""
    path = unquote(location.partition("?")[0])
    ours = path == HOME or path.startswith(f"{HOME}/")
    odd = "\\" in location or not location.isprintable() or len(location) > _MAX_NEXT
    wanders = not {".", ".."}.isdisjoint(path.split("/"))
    return location if ours and not odd and not wanders else HOME


async def form(request: Request) -> dict[str, str]:
    """Return the fields of a form; 400 if it is malformed, 413 if it is too large."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_BYTES:
            raise ProblemError(413, "the form is too large")
    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=10, errors="strict")
    except ValueError:
        raise ProblemError(400, "malformed form") from None
    return {name: values[0] for name, values in fields.items()}
