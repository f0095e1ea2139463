"""Profiles, their tokens' statistics, and anchors read anew on every validator."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from services.audit.admin.auth import Operator
from services.audit.admin.desk import AtDesk, Desk, Doer, Viewer
from services.audit.admin.problems import problem
from services.audit.admin.profiles import Seen, count_results, describe, recent_gateways
from services.audit.admin.shapes import Problem, Profiles, Reloaded, ReloadTrust, Stats
from services.audit.orders.reload import Answers, reload_anchors, replicas
from shared.bus.core import BusError
from shared.bus.topology import REPLAYS
from shared.process import log_failure

router = APIRouter(prefix="/api/v1/admin/scep", tags=["SCEP"])


@router.get("/profiles")
async def profiles(desk: AtDesk, operator: Viewer) -> Profiles:
    """Every profile: issuer, RA certificate, verifiers, anchors, counters, replicas."""
    found = await described(desk, operator)
    return Profiles(profiles=found, profile_count=len(found), generated_at=_now(desk))


@router.get("/intune/stats")
async def stats(desk: AtDesk, operator: Viewer) -> Stats:
    """One flat row a profile."""
    rows = []
    for each in await described(desk, operator):
        intune = each.pop("intune", None)
        names = ("path_id", "issuer_id")
        rows.append({n: each[n] for n in names} | {"enabled": intune is not None} | (intune or {}))
    return Stats(profiles=rows, generated_at=_now(desk))


@router.post(
    "/intune/reload-trust",
    responses={code: {"model": Problem} for code in (404, 409, 502)},
)
async def reload_trust(body: ReloadTrust, desk: AtDesk, operator: Doer) -> Any:
    """Let every running validator read the profile's anchors; each one's result is told."""
    answers = await reload_anchors(desk.office(operator), body.path_id, desk.order_name())
    told = _told(desk, body.path_id, answers)
    if not told.reloaded:
        detail = "at least one validator kept its old anchors"
        return problem(502, detail, replicas=[each.model_dump() for each in told.replicas])
    return JSONResponse(told.model_dump())


def _told(desk: Desk, path_id: str, answers: Answers) -> Reloaded:
    results = [
        {
            "name": name,
            "reloaded": answer is not None and answer.done,
            "error": _error(answer.detail if answer else None, done=bool(answer and answer.done)),
        }
        for name, answer in answers
    ]
    return Reloaded.model_validate(
        {
            "reloaded": all(each["reloaded"] for each in results),
            "path_id": path_id,
            "reloaded_at": _now(desk),
            "replicas": results,
        }
    )


def _error(detail: str | None, *, done: bool) -> str | None:
    if done:
        return None
    return detail if detail is not None else "did not answer in time"


async def described(desk: Desk, operator: Operator) -> list[dict[str, Any]]:
    """Every profile, as `describe` tells it.

    Facts first: the database's counters, the validators that are there, what they remember.
    """
    office = desk.office(operator)
    try:
        validators, remembered = await replicas(office), await desk.bus.count(REPLAYS)
    except BusError as error:
        log_failure("profiles_half_told", error)
        validators, remembered = [], None

    def work() -> list[dict[str, Any]]:
        now = desk.clock()
        with desk.engine.connect() as connection:
            gateways = recent_gateways(connection, now)
            counted = count_results(connection)
        seen = Seen(validators, gateways, counted, remembered)
        return describe(office.configuration, seen, now)

    return await asyncio.to_thread(work)


def _now(desk: Desk) -> str:
    return datetime.fromtimestamp(desk.clock(), UTC).isoformat()
