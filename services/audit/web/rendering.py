"""Templates, the headers of every page, and the redirect to the login page."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from services.audit.api.dependencies import Dependencies, signed_in
from services.audit.api.problems import ProblemError
from services.audit.query.dead_letters import count_open
from services.audit.query.enrollments import count_enrollments
from services.audit.query.filters import EnrollmentFilter
from services.audit.query.orphans import count_open_orphans
from services.audit.roles import Level, Operator
from services.audit.store.engine import Connection
from services.audit.store.sessions import csrf_token
from services.audit.web import labels as words
from shared.log.enrollment import State
from shared.text.printable import visible

HOME: Final = "/scep"
STATIC: Final = Path(__file__).parent / "static"
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


def _version() -> str:
    """Return a digest of the static files: browsers cache them until it changes."""
    digest = hashlib.sha256()
    for path in sorted(STATIC.iterdir()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


VERSION: Final = _version()


@dataclass(frozen=True)
class PageUser:
    """The operator who is signed in, and the CSRF token of their commands."""

    operator: Operator
    csrf: str

    @property
    def may_command(self) -> bool:
        """Whether the user may run commands, so that buttons are shown."""
        return self.operator.level.covers(Level.OPERATOR)


_WORDS: Final = (
    words.action_name,
    words.certificate_badge,
    words.certificate_status,
    words.day,
    words.enrollment_hint,
    words.expiry_badge,
    words.iso,
    words.lasting,
    words.moment,
    words.names_text,
    words.command_badge,
    words.command_name,
    words.result_tone,
    words.revocation_reasons,
    words.second,
    words.state_badge,
    words.tenant_badge,
    words.view_name,
)


def _literal(value: object) -> object:
    """Make hidden characters of a template's output visible. `Markup` was processed before."""
    return visible(value) if type(value) is str else value


def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_literal,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in _WORDS:
        found.globals[function.__name__] = function
    found.filters["path"] = lambda text: quote(str(text), safe="")
    found.globals["version"] = VERSION
    return found


_TEMPLATES: Final = _environment()


def page(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Render a template as a response. Values are escaped."""
    text = _TEMPLATES.get_template(template).render(values)
    return HTMLResponse(text, status, dict(HEADERS))


def page_problem(
    status: int, detail: str, headers: Mapping[str, str] | None = None
) -> HTMLResponse:
    """Return an error page."""
    found = page("problem.html", status, title=HTTPStatus(status).phrase, detail=detail)
    found.headers.update(headers or {})
    return found


async def require_user(request: Request, deps: Dependencies) -> PageUser:
    """Return the signed-in user; otherwise redirect to the login page, which leads back here."""
    operator = await signed_in(request, deps)
    if operator is None:
        back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        location = f"/login?next={quote(back, safe='')}"
        raise ProblemError(303, "sign in", {"location": location})
    return PageUser(operator, csrf_token(request.cookies[deps.cookie]))


def waiting(connection: Connection) -> dict[str, int]:
    """Count what needs action: held enrollments, dead letters and possible orphans."""
    held = count_enrollments(connection, EnrollmentFilter(states=(State.HELD,)))
    orphans = count_open_orphans(connection)
    return {"held": held, "letters": count_open(connection), "orphans": orphans}
