"""The admin port's application: page, API, and the operations routes of every service."""

from typing import Any, Final

from fastapi import Depends, FastAPI, Request, Response
from starlette.middleware.base import RequestResponseEndpoint

from services.audit.api import problems, records, scep
from services.audit.api.dependencies import Dependencies, reject_repeated_parameters
from services.audit.api.document import openapi
from services.audit.api.guard import Guard
from services.audit.api.schemas import Problem
from services.audit.web import assets, login, oidc, views
from services.audit.web.rendering import page_problem
from shared.observe.metrics import Ready, operations_app

_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": Problem, "description": "Invalid request"},
    401: {
        "model": Problem,
        "description": "Missing or unknown API token, or too many failed attempts",
    },
    413: {"model": Problem, "description": "Request body too large"},
    403: {"model": Problem, "description": "Role too low, or CSRF token missing"},
    503: {"model": Problem, "description": "Log, database or configuration unavailable"},
}


def admin_app(deps: Dependencies, ready: Ready) -> FastAPI:
    """Build the application; its OpenAPI document is at /api/v1/openapi.json."""
    app = FastAPI(
        title="scepstream",
        version="1",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would follow the Host header
    )
    app.state.deps = deps
    problems.handle(app, page_problem)
    once = [Depends(reject_repeated_parameters)]
    for router in (scep.router, records.router):
        app.include_router(router, responses=_ERRORS, dependencies=once)
    app.include_router(views.router, dependencies=once)
    for router in (login.router, oidc.router, assets.router):
        app.include_router(router)
    app.middleware("http")(_no_store)
    app.add_middleware(Guard, deps=deps)
    document = openapi(app)
    app.openapi = lambda: document  # type: ignore[method-assign]  # FastAPI's own way to override it
    app.router.routes.extend(operations_app(ready).routes)
    return app


async def _no_store(request: Request, answer: RequestResponseEndpoint) -> Response:
    """Forbid caching of API responses."""
    response = await answer(request)
    if request.url.path.startswith("/api/"):
        response.headers["cache-control"] = "no-store"
    return response
