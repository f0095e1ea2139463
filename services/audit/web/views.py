"""Routes of the page: three tabs, an enrollment's history, and lists that operators act on."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, TypeVar

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import RedirectResponse, Response

from services.audit.api.dependencies import Dependencies, Injected
from services.audit.api.problems import ProblemError
from services.audit.api.profiles import RESULTS
from services.audit.api.scep import described, described_tenants
from services.audit.query.commands import CommandFilter, list_commands
from services.audit.query.dead_letters import list_dead_letters
from services.audit.query.enrollments import list_enrollments
from services.audit.query.filters import EnrollmentFilter
from services.audit.query.history import history_of
from services.audit.query.inventory import (
    EXPIRING_DAYS,
    MAX_DAYS,
    Selection,
    fleets,
    list_inventory,
)
from services.audit.query.life import View
from services.audit.query.messages import with_payloads
from services.audit.query.orphans import list_orphans
from services.audit.query.pages import MAX_LIMIT
from services.audit.query.rate_limited import list_rate_limited
from services.audit.query.signed_challenges import ends_since
from services.audit.store.commands import Command
from services.audit.store.engine import Connection
from services.audit.web.chart import beginning, draw
from services.audit.web.labels import CHIPS
from services.audit.web.rendering import HOME, PageUser, page, require_user, waiting
from services.audit.web.timeline import refusals, spans, steps
from shared.log.enrollment import State

router = APIRouter(include_in_schema=False)
_TEXT: Final = r"^[^\x00]*$"  # PostgreSQL text cannot hold NUL
_PAGE: Final = 50
_FAILURES: Final = 50
_UNSUCCESSFUL: Final = (State.REJECTED, State.FAILED)
Tab = Literal["profiles", "intune", "activity"]
Chip = Literal["all", "initial", "renewal", "intune", "static"]
Reach = Literal["24h", "7d"]
Text = Annotated[str, Query(max_length=255, pattern=_TEXT)]
Cursor = Annotated[str, Query(max_length=1000)]
Days = Annotated[int, Query(ge=0, le=MAX_DAYS)]
_Found = TypeVar("_Found")


@router.get("/")
async def home() -> Response:
    """Redirect to the home page."""
    return RedirectResponse(HOME, 303)


@router.get("/scep")
async def scep(
    request: Request,
    deps: Injected,
    *,
    tab: Tab = "profiles",
    profile: Text = "",
    chip: Chip = "all",
    state: State | Literal[""] = "",
    search: Text = "",
    cursor: Cursor = "",
    reach: Reach = "24h",
) -> Response:
    """Show a tab. Every selection is part of the URL."""
    who = await require_user(request, deps)
    if tab == "profiles":
        return await _profiles(deps, who)
    if tab == "intune":
        return await _intune(deps, who, profile, reach)
    chosen = {"profile": profile, "chip": chip, "state": state, "search": search.strip()}
    return await _activity(deps, who, chosen, cursor)


@router.get("/scep/intune")
async def intune(
    request: Request, deps: Injected, profile: Text = "", reach: Reach = "24h"
) -> Response:
    """Show the Intune tab under its own path."""
    return await _intune(deps, await require_user(request, deps), profile, reach)


async def _profiles(deps: Dependencies, who: PageUser) -> Response:
    found = await described(deps, who.operator)
    common = await _common(deps, who, "profiles")
    return page("profiles.html", **common, profiles=found)


async def _intune(deps: Dependencies, who: PageUser, profile: str, reach: Reach) -> Response:
    found = await described(deps, who.operator)
    found = [each for each in found if "intune" in each or each["intune_connection"] is not None]
    names = [each["path_id"] for each in found]
    if profile and profile not in names:
        raise ProblemError(404, f"no such Intune profile: {profile}")

    only, now = profile or None, deps.clock()
    failed = EnrollmentFilter(only, _UNSUCCESSFUL, actions=CHIPS["intune"], limit=_FAILURES)

    def read(connection: Connection) -> dict[str, Any]:
        return {
            "failures": list_enrollments(connection, failed).rows,
            "chart": draw(ends_since(connection, only, beginning(reach, now)), reach, now),
        }

    return page(
        "intune.html",
        **await _common(deps, who, "intune"),
        **await _read(deps, read),
        profiles=[e for e in found if "intune" in e and profile in ("", e["path_id"])],
        tenants=[
            each
            for each in await described_tenants(deps, who.operator)
            if not profile or profile in each["profiles"]
        ],
        names=names,
        profile=profile,
        reach=reach,
        results=RESULTS,
    )


async def _activity(
    deps: Dependencies, who: PageUser, chosen: Mapping[str, str], cursor: str
) -> Response:
    filter_ = EnrollmentFilter(
        profile=chosen["profile"] or None,
        states=(chosen["state"],) if chosen["state"] else (),
        actions=CHIPS[chosen["chip"]],
        search=chosen["search"] or None,
        cursor=cursor or None,
        limit=_PAGE,
    )
    found = await _read(deps, lambda connection: list_enrollments(connection, filter_))
    return page(
        "activity.html",
        **await _common(deps, who, "activity"),
        names=sorted(deps.configuration().profiles),
        chosen=chosen,
        chips=list(CHIPS),
        states=list(State),
        found=found,
        cursor=cursor,
    )


@router.get("/scep/enrollments/{enrollment}")
async def enrollment(
    request: Request,
    deps: Injected,
    enrollment: Annotated[str, Path(max_length=400, pattern=_TEXT)],
) -> Response:
    """Show the history of an enrollment."""
    who = await require_user(request, deps)
    history = await _read(deps, lambda connection: history_of(connection, enrollment))
    if history is None:
        raise ProblemError(404, "no such enrollment")
    events = await with_payloads(deps.bus, history.events)
    timeline = steps(events)
    return page(
        "enrollment.html",
        **await _common(deps, who, "activity"),
        row=history.enrollment,
        certificate=history.certificate,
        attempts=history.attempts,
        steps=timeline,
        spans=spans(timeline),
        refusals=refusals(events),
        now=deps.clock(),
    )


@router.get("/scep/held")
async def held(request: Request, deps: Injected, cursor: Cursor = "") -> Response:
    """Show the enrollments that wait for an operator's decision."""
    who = await require_user(request, deps)
    filter_ = EnrollmentFilter(states=(State.HELD,), cursor=cursor or None, limit=_PAGE)
    found = await _read(deps, lambda connection: list_enrollments(connection, filter_))
    return page("held.html", **await _common(deps, who, "held"), found=found, cursor=cursor)


@router.get("/scep/certificates")
async def certificates(
    request: Request,
    deps: Injected,
    *,
    view: View | Literal[""] = "",
    days: Days = EXPIRING_DAYS,
    profile: Text = "",
    fleet: Text = "",
    issuer: Text = "",
    cursor: Cursor = "",
) -> Response:
    """Show certificates, or a view of them."""
    who = await require_user(request, deps)
    configuration, now = deps.configuration(), int(deps.clock())
    chosen = {"profile": profile, "fleet": fleet, "issuer": issuer}
    selection = Selection(
        view or None, days, profile or None, fleet or None, issuer or None, cursor or None, _PAGE
    )
    found = await _read(
        deps, lambda connection: list_inventory(connection, configuration, selection, now)
    )
    return page(
        "certificates.html",
        **await _common(deps, who, "certificates"),
        choices={
            "profile": sorted(configuration.profiles),
            "fleet": fleets(configuration),
            "issuer": sorted(configuration.issuers),
        },
        chosen=chosen,
        views=["", *View],
        view=view,
        days=days,
        found=found,
        cursor=cursor,
        now=now,
    )


@router.get("/scep/dead-letters")
async def dead_letters(request: Request, deps: Injected) -> Response:
    """Show dead letters."""
    who = await require_user(request, deps)
    found = await _read(deps, lambda connection: list_dead_letters(connection, MAX_LIMIT))
    return page("dead_letters.html", **await _common(deps, who, "letters"), letters=found)


@router.get("/scep/orphans")
async def orphans(request: Request, deps: Injected) -> Response:
    """Show possible orphans."""
    who = await require_user(request, deps)
    found = await _read(deps, lambda connection: list_orphans(connection, MAX_LIMIT))
    return page("orphans.html", **await _common(deps, who, "orphans"), orphans=found)


@router.get("/scep/rate-limited")
async def rate_limited(request: Request, deps: Injected, profile: Text = "") -> Response:
    """Show the devices that hit their enrollment limit within 24 hours."""
    who, now = await require_user(request, deps), int(deps.clock())
    found = await _read(
        deps,
        lambda connection: list_rate_limited(connection, now, MAX_LIMIT, profile or None),
    )
    common = await _common(deps, who, "intune")
    return page("rate_limited.html", **common, found=found, profile=profile)


@router.get("/scep/commands")
async def commands(
    request: Request,
    deps: Injected,
    operator: Text = "",
    kind: Command | Literal[""] = "",
    cursor: Cursor = "",
) -> Response:
    """Show operators' commands and their results."""
    who = await require_user(request, deps)
    filter_ = CommandFilter(operator.strip() or None, kind or None, cursor or None, _PAGE)
    found = await _read(deps, lambda connection: list_commands(connection, filter_))
    return page(
        "commands.html",
        **await _common(deps, who, "commands"),
        operator=operator.strip(),
        kind=kind,
        kinds=list(Command),
        found=found,
        cursor=cursor,
    )


async def _common(deps: Dependencies, who: PageUser, here: str) -> dict[str, Any]:
    """Return the values that every page needs."""
    return {
        "who": who,
        "here": here,
        "waiting": await _read(deps, waiting),
        "profile_count": len(deps.configuration().profiles),
        "generated_at": f"{datetime.fromtimestamp(deps.clock(), UTC):%Y-%m-%d %H:%M:%S}",
    }


async def _read(deps: Dependencies, work: Callable[[Connection], _Found]) -> _Found:
    """Query the database in a thread."""

    def ask() -> _Found:
        with deps.engine.connect() as connection:
            return work(connection)

    return await asyncio.to_thread(ask)
