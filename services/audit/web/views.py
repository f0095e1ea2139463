"""The pages: three tabs, an enrollment's story, and what waits for somebody."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, TypeVar

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import RedirectResponse, Response

from services.audit.api.dependencies import AtDesk, Desk
from services.audit.api.problems import ProblemError
from services.audit.api.profiles import RESULTS
from services.audit.api.scep import described
from services.audit.query.certificates import list_certificates
from services.audit.query.commands import WantedOrders, list_orders
from services.audit.query.dead_letters import list_letters
from services.audit.query.enrollments import list_enrollments
from services.audit.query.filters import Wanted
from services.audit.query.history import story_of
from services.audit.query.pages import MAX_LIMIT
from services.audit.query.signed_challenges import ends_since
from services.audit.store.commands import Order
from services.audit.store.engine import Connection
from services.audit.web.chart import beginning, draw
from services.audit.web.labels import CHIPS
from services.audit.web.rendering import HOME, Visitor, page, visitor, waiting
from services.audit.web.timeline import spans, steps
from shared.log.enrollment import State

router = APIRouter(include_in_schema=False)
_TEXT: Final = r"^[^\x00]*$"  # PostgreSQL knows no NUL
_PAGE: Final = 50
_FAILURES: Final = 50
_UNSUCCESSFUL: Final = (State.REJECTED, State.FAILED)
Tab = Literal["profiles", "intune", "activity"]
Chip = Literal["all", "initial", "renewal", "intune", "static"]
Reach = Literal["24h", "7d"]
Text = Annotated[str, Query(max_length=255, pattern=_TEXT)]
Cursor = Annotated[str, Query(max_length=1000)]
_Found = TypeVar("_Found")


@router.get("/")
async def home() -> Response:
    """Where one begins."""
    return RedirectResponse(HOME, 303)


@router.get("/scep")
async def scep(
    request: Request,
    desk: AtDesk,
    *,
    tab: Tab = "profiles",
    profile: Text = "",
    chip: Chip = "all",
    state: State | Literal[""] = "",
    search: Text = "",
    cursor: Cursor = "",
    reach: Reach = "24h",
) -> Response:
    """The tabs; all that is chosen stands in the address."""
    who = await visitor(request, desk)
    if tab == "profiles":
        return await _profiles(desk, who)
    if tab == "intune":
        return await _intune(desk, who, profile, reach)
    chosen = {"profile": profile, "chip": chip, "state": state, "search": search.strip()}
    return await _activity(desk, who, chosen, cursor)


@router.get("/scep/intune")
async def intune(
    request: Request, desk: AtDesk, profile: Text = "", reach: Reach = "24h"
) -> Response:
    """Another name of the tab."""
    return await _intune(desk, await visitor(request, desk), profile, reach)


async def _profiles(desk: Desk, who: Visitor) -> Response:
    found = await described(desk, who.operator)
    common = await _common(desk, who, "profiles")
    return page("profiles.html", **common, profiles=found)


async def _intune(desk: Desk, who: Visitor, profile: str, reach: Reach) -> Response:
    found = [each for each in await described(desk, who.operator) if "intune" in each]
    names = [each["path_id"] for each in found]
    if profile and profile not in names:
        raise ProblemError(404, f"no Intune profile is called {profile}")

    only, now = profile or None, desk.clock()
    failed = Wanted(only, _UNSUCCESSFUL, actions=CHIPS["intune"], limit=_FAILURES)

    def read(connection: Connection) -> dict[str, Any]:
        return {
            "failures": list_enrollments(connection, failed).rows,
            "chart": draw(ends_since(connection, only, beginning(reach, now)), reach, now),
        }

    return page(
        "intune.html",
        **await _common(desk, who, "intune"),
        **await _read(desk, read),
        profiles=[each for each in found if not profile or each["path_id"] == profile],
        names=names,
        profile=profile,
        reach=reach,
        results=RESULTS,
    )


async def _activity(desk: Desk, who: Visitor, chosen: Mapping[str, str], cursor: str) -> Response:
    wanted = Wanted(
        profile=chosen["profile"] or None,
        states=(chosen["state"],) if chosen["state"] else (),
        actions=CHIPS[chosen["chip"]],
        search=chosen["search"] or None,
        cursor=cursor or None,
        limit=_PAGE,
    )
    found = await _read(desk, lambda connection: list_enrollments(connection, wanted))
    return page(
        "activity.html",
        **await _common(desk, who, "activity"),
        names=sorted(desk.configuration().profiles),
        chosen=chosen,
        chips=list(CHIPS),
        states=list(State),
        found=found,
        cursor=cursor,
    )


@router.get("/scep/enrollments/{enrollment}")
async def enrollment(
    request: Request, desk: AtDesk, enrollment: Annotated[str, Path(max_length=400, pattern=_TEXT)]
) -> Response:
    """What happened to one device, event by event."""
    who = await visitor(request, desk)
    story = await _read(desk, lambda connection: story_of(connection, enrollment))
    if story is None:
        raise ProblemError(404, "no such enrollment")
    told = steps(story.events)
    return page(
        "enrollment.html",
        **await _common(desk, who, "activity"),
        row=story.enrollment,
        certificate=story.certificate,
        attempts=story.attempts,
        steps=told,
        spans=spans(told),
        now=desk.clock(),
    )


@router.get("/scep/held")
async def held(request: Request, desk: AtDesk, cursor: Cursor = "") -> Response:
    """Enrollments that wait for somebody's word."""
    who = await visitor(request, desk)
    wanted = Wanted(states=(State.HELD,), cursor=cursor or None, limit=_PAGE)
    found = await _read(desk, lambda connection: list_enrollments(connection, wanted))
    return page("held.html", **await _common(desk, who, "held"), found=found, cursor=cursor)


@router.get("/scep/certificates")
async def certificates(
    request: Request, desk: AtDesk, profile: Text = "", cursor: Cursor = ""
) -> Response:
    """What was issued, and what was revoked of it."""
    who = await visitor(request, desk)
    wanted = Wanted(profile=profile or None, cursor=cursor or None, limit=_PAGE)
    found = await _read(desk, lambda connection: list_certificates(connection, wanted))
    return page(
        "certificates.html",
        **await _common(desk, who, "certificates"),
        names=sorted(desk.configuration().profiles),
        profile=profile,
        found=found,
        cursor=cursor,
        now=desk.clock(),
    )


@router.get("/scep/dead-letters")
async def dead_letters(request: Request, desk: AtDesk) -> Response:
    """What workers gave up on."""
    who = await visitor(request, desk)
    found = await _read(desk, lambda connection: list_letters(connection, MAX_LIMIT))
    return page("letters.html", **await _common(desk, who, "letters"), letters=found)


@router.get("/scep/orders")
async def orders(
    request: Request,
    desk: AtDesk,
    operator: Text = "",
    kind: Order | Literal[""] = "",
    cursor: Cursor = "",
) -> Response:
    """Who ordered what, and what came of it."""
    who = await visitor(request, desk)
    wanted = WantedOrders(operator.strip() or None, kind or None, cursor or None, _PAGE)
    found = await _read(desk, lambda connection: list_orders(connection, wanted))
    return page(
        "orders.html",
        **await _common(desk, who, "orders"),
        operator=operator.strip(),
        kind=kind,
        kinds=list(Order),
        found=found,
        cursor=cursor,
    )


async def _common(desk: Desk, who: Visitor, here: str) -> dict[str, Any]:
    """What stands on every page."""
    return {
        "who": who,
        "here": here,
        "waiting": await _read(desk, waiting),
        "profile_count": len(desk.configuration().profiles),
        "generated_at": f"{datetime.fromtimestamp(desk.clock(), UTC):%Y-%m-%d %H:%M:%S}",
    }


async def _read(desk: Desk, work: Callable[[Connection], _Found]) -> _Found:
    """Ask the database, in a thread."""

    def ask() -> _Found:
        with desk.engine.connect() as connection:
            return work(connection)

    return await asyncio.to_thread(ask)
