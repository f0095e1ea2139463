"""API routes for SCEP profiles: state, Intune, reloads of anchors and RA keys."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter

from services.audit.api.dependencies import Dependencies, Injected, OperatorUser, Viewer
from services.audit.api.problems import ProblemError
from services.audit.api.profiles import RuntimeState, describe
from services.audit.api.schemas import (
    Problem,
    Profiles,
    Reload,
    Reloaded,
    ReplicaResult,
    Stats,
    TenantRow,
    Tenants,
    rows_of,
)
from services.audit.api.tenants import Figures, describe_tenants
from services.audit.commands.reload_anchors import reload_anchors, replicas
from services.audit.commands.reload_ra import gateways, reload_ra
from services.audit.query.intune import count_waiting, results_of_a_day
from services.audit.query.signed_challenges import count_results
from services.audit.roles import Operator
from shared.bus.core import BusError
from shared.log.streams import REPLAYS
from shared.observe.logs import log_failure

router = APIRouter(prefix="/api/v1/admin/scep", tags=["SCEP"])


@router.get("/profiles")
async def profiles(deps: Injected, operator: Viewer) -> Profiles:
    """List every profile: issuer, RA certificate, verifiers, anchors, counters, replicas."""
    found = await described(deps, operator)
    return Profiles(profiles=found, profile_count=len(found), generated_at=_now(deps))


@router.get("/intune/stats")
async def stats(deps: Injected, operator: Viewer) -> Stats:
    """Return one flat row per profile."""
    rows = []
    for each in await described(deps, operator):
        intune = each.pop("intune", None)
        names = ("path_id", "issuer_id")
        rows.append({n: each[n] for n in names} | {"enabled": intune is not None} | (intune or {}))
    return Stats(profiles=rows, generated_at=_now(deps))


@router.get("/intune/tenants")
async def tenants(deps: Injected, operator: Viewer) -> Tenants:
    """List the connections to tenants of Intune: state, what to do, credentials, calls, counts."""
    found = rows_of(TenantRow, await described_tenants(deps, operator))
    return Tenants(tenants=found, generated_at=_now(deps))


@router.post(
    "/intune/reload-trust",
    responses={code: {"model": Problem} for code in (404, 409, 502)},
)
async def reload_trust(body: Reload, deps: Injected, operator: OperatorUser) -> Reloaded:
    """Reload a profile's anchors on every running validator and return each one's result."""
    answers = await reload_anchors(deps.context(operator), body.path_id, deps.command_id())
    results = {
        name: _error(answer.detail if answer else None, done=bool(answer and answer.done))
        for name, answer in answers
    }
    return _reload_response(
        deps, body.path_id, results, "at least one validator did not confirm the reload"
    )


@router.post("/reload-ra", responses={code: {"model": Problem} for code in (404, 502)})
async def reload_ra_certificates(body: Reload, deps: Injected, operator: OperatorUser) -> Reloaded:
    """Reload RA certificates and keys on every running gateway and return each one's result."""
    reloads = await reload_ra(deps.context(operator), body.path_id, deps.command_id())
    results = {each.name: each.error or None for each in reloads}
    return _reload_response(
        deps, body.path_id, results, "at least one gateway did not confirm the reload"
    )


def _reload_response(
    deps: Dependencies, path_id: str, results: Mapping[str, str | None], problem: str
) -> Reloaded:
    """Return the results, given each replica's error or None; 502 if there is any error."""
    replicas = [
        ReplicaResult(name=name, reloaded=error is None, error=error)
        for name, error in results.items()
    ]
    if any(results.values()):
        raise ProblemError(502, problem, replicas=[each.model_dump() for each in replicas])
    return Reloaded(reloaded=True, path_id=path_id, reloaded_at=_now(deps), replicas=replicas)


def _error(detail: str | None, *, done: bool) -> str | None:
    if done:
        return None
    return detail if detail is not None else "did not answer in time"


async def described(deps: Dependencies, operator: Operator) -> list[dict[str, Any]]:
    """Describe every profile (see `describe`).

    While the event log is unavailable, replicas and replay records are left out.
    """
    context = deps.context(operator)
    try:
        validators, there = await replicas(context), await gateways(context)
        remembered = await deps.bus.count(REPLAYS)
    except BusError as error:
        log_failure("profiles_incomplete", error)
        validators, there, remembered = [], [], None

    def work() -> list[dict[str, Any]]:
        now = deps.clock()
        with deps.engine.connect() as connection:
            counted = count_results(connection)
        state = RuntimeState(validators, there, counted, remembered)
        return describe(context.configuration, state, now)

    return await asyncio.to_thread(work)


async def described_tenants(deps: Dependencies, operator: Operator) -> list[dict[str, Any]]:
    """Describe every connection to a tenant of Intune (see `describe_tenants`).

    While the event log is unavailable, no replica reports.
    """
    context = deps.context(operator)
    profiles = context.configuration.profiles.items()
    connections = {n: p.intune_connection for n, p in profiles if p.intune_connection is not None}
    try:
        validators = await replicas(context)
    except BusError as error:
        log_failure("tenants_incomplete", error)
        validators = []

    def work() -> list[dict[str, Any]]:
        now = deps.clock()
        with deps.engine.connect() as connection:
            waiting = count_waiting(connection, connections)
            results = results_of_a_day(connection, now)
        figures = {n: Figures(waiting[n], results.get(n, {})) for n in connections}
        return describe_tenants(connections, figures, validators, now)

    return await asyncio.to_thread(work)


def _now(deps: Dependencies) -> str:
    return datetime.fromtimestamp(deps.clock(), UTC).isoformat()
