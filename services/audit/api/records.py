"""API routes for enrollments, certificates, commands, challenges, dead letters and orphans."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query

from services.audit.api.dependencies import Dependencies, Injected, OperatorUser, Viewer
from services.audit.api.problems import ProblemError
from services.audit.api.schemas import (
    Audit,
    CertificateRow,
    Certificates,
    ChallengeRow,
    Challenges,
    CommandRow,
    Commands,
    CreatedChallenge,
    DeadLetterRow,
    DeadLetters,
    Decision,
    Done,
    Enrollment,
    EnrollmentRow,
    Enrollments,
    Entry,
    EventRow,
    NewChallenge,
    OrphanReport,
    OrphanRow,
    Orphans,
    Problem,
    RateLimitedDevices,
    RateLimitedRow,
    Revocation,
    rows_of,
)
from services.audit.commands.decide import decide
from services.audit.commands.one_time import cancel, create, list_challenges
from services.audit.commands.retry import retry
from services.audit.commands.revoke import revoke_certificate, written_serial
from services.audit.commands.settle import read_report, settle_orphan
from services.audit.query.certificates import find_certificate
from services.audit.query.commands import CommandFilter, list_commands
from services.audit.query.dead_letters import list_dead_letters
from services.audit.query.enrollments import count_enrollments, list_enrollments
from services.audit.query.filters import EnrollmentFilter
from services.audit.query.history import History, history_of
from services.audit.query.inventory import (
    EXPIRING_DAYS,
    MAX_DAYS,
    Selection,
    list_inventory,
    renewal_windows,
)
from services.audit.query.life import RenewalWindows, View, state_of
from services.audit.query.messages import with_payloads
from services.audit.query.orphans import list_orphans
from services.audit.query.pages import MAX_LIMIT
from services.audit.query.payload import read_payload
from services.audit.query.rate_limited import list_rate_limited
from services.audit.store.commands import Command
from shared.config.load import SettingsError
from shared.config.sections import Configuration
from shared.log.enrollment import State

router = APIRouter(prefix="/api/v1")
_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    code: {"model": Problem} for code in (404, 409, 502)
}
_TEXT: Final = r"^[^\x00]*$"  # PostgreSQL text cannot hold NUL
Text = Annotated[str | None, Query(max_length=255, pattern=_TEXT)]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT)]
Cursor = Annotated[str | None, Query(max_length=1000)]
Time = Annotated[int | None, Query(ge=0, le=2**63 - 1, description="Unix nanoseconds")]
Days = Annotated[int, Query(ge=0, le=MAX_DAYS)]
Name = Annotated[str, Path(max_length=400, pattern=_TEXT)]


@router.get("/enrollments", tags=["Enrollments"])
async def enrollments(
    deps: Injected,
    _: Viewer,
    *,
    profile: Text = None,
    state: State | None = None,
    action: Text = None,
    search: Text = None,
    since: Time = None,
    until: Time = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Enrollments:
    """List enrollments, newest first.

    `search` is the beginning of a device, a name, a transaction ID or a serial number.
    """
    states, actions = (state,) if state else (), (action,) if action is not None else ()
    filter_ = EnrollmentFilter(profile, states, actions, search, since, until, cursor, limit)

    def work() -> Enrollments:
        with deps.engine.connect() as connection:
            page = list_enrollments(connection, filter_)
        return Enrollments(enrollments=rows_of(EnrollmentRow, page.rows), next=page.next_cursor)

    return await asyncio.to_thread(work)


@router.get("/audit", tags=["Enrollments"])
async def audit(
    deps: Injected,
    _: Viewer,
    *,
    action: Text = None,
    profile: Text = None,
    since: Time = None,
    until: Time = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Audit:
    """List requests with their results, newest first.

    Actions are scep_pkcsreq, scep_pkcsreq_intune, scep_renewalreq and scep_renewalreq_intune.
    """
    actions = (action,) if action is not None else ()
    filter_ = EnrollmentFilter(profile, (), actions, None, since, until, cursor, limit)

    def work() -> Audit:
        with deps.engine.connect() as connection:
            page = list_enrollments(connection, filter_)
            total = count_enrollments(connection, filter_)
        entries = [Entry.model_validate(row | {"at": row["requested_at"]}) for row in page.rows]
        return Audit(entries=entries, total=total, next=page.next_cursor)

    return await asyncio.to_thread(work)


@router.get("/devices/rate-limited", tags=["Enrollments"])
async def rate_limited(
    deps: Injected, _: Viewer, profile: Text = None, limit: Limit = 50
) -> RateLimitedDevices:
    """List devices with signed challenges that hit their enrollment limit within 24 hours."""

    def work() -> RateLimitedDevices:
        with deps.engine.connect() as connection:
            found = list_rate_limited(connection, int(deps.clock()), limit, profile)
        rows = rows_of(RateLimitedRow, found.devices)
        return RateLimitedDevices(devices=rows, since=found.since, is_complete=found.is_complete)

    return await asyncio.to_thread(work)


@router.get("/commands", tags=["Commands"])
async def commands(
    deps: Injected,
    _: Viewer,
    operator: Text = None,
    kind: Command | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Commands:
    """List commands of operators and of the audit service with their results, newest first."""

    def work() -> Commands:
        with deps.engine.connect() as connection:
            page = list_commands(connection, CommandFilter(operator, kind, cursor, limit))
        found = [CommandRow.model_validate(row | {"at": row["ordered_at"]}) for row in page.rows]
        return Commands(commands=found, next=page.next_cursor)

    return await asyncio.to_thread(work)


@router.get("/enrollments/{enrollment}", tags=["Enrollments"], responses=_PROBLEMS)
async def enrollment(enrollment: Name, deps: Injected, _: Viewer) -> Enrollment:
    """Return an enrollment and its events in order, including those of its certificate."""
    story = await asyncio.to_thread(_history, deps, enrollment)
    if story is None:
        raise ProblemError(404, "no such enrollment")
    return Enrollment(
        enrollment=EnrollmentRow.model_validate(story.enrollment),
        events=[_event(each) for each in await with_payloads(deps.bus, story.events)],
    )


def _history(deps: Dependencies, name: str) -> History | None:
    with deps.engine.connect() as connection:
        return history_of(connection, name)


def _event(row: Mapping[str, Any]) -> EventRow:
    """Return an event with its payload decoded; null if it is not JSON, or the log is away."""
    payload = None if row["payload"] is None else read_payload(row["payload"])
    return EventRow.model_validate({**row, "payload": payload})


@router.post("/enrollments/{enrollment}/approve", tags=["Enrollments"], responses=_PROBLEMS)
async def approve(enrollment: Name, body: Decision, deps: Injected, operator: OperatorUser) -> Done:
    """Approve a held enrollment, so that its certificate is issued."""
    await decide(deps.context(operator), enrollment, body.note, approved=True)
    return Done(done=True, detail="approved")


@router.post("/enrollments/{enrollment}/deny", tags=["Enrollments"], responses=_PROBLEMS)
async def deny(enrollment: Name, body: Decision, deps: Injected, operator: OperatorUser) -> Done:
    """Deny a held enrollment."""
    await decide(deps.context(operator), enrollment, body.note, approved=False)
    return Done(done=True, detail="denied")


@router.get("/certificates", tags=["Certificates"])
async def certificates(
    deps: Injected,
    _: Viewer,
    *,
    view: View | None = None,
    days: Days = EXPIRING_DAYS,
    profile: Text = None,
    fleet: Text = None,
    issuer: Text = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Certificates:
    """List certificates, newest first, or a view of them.

    Views of certificates that are still valid begin with the one that ends next, the others with
    the last change. `expiring` and `not_renewed` leave out devices that have a later certificate;
    `expiring` lists those that end within `days`.
    """

    def work() -> Certificates:
        now, configuration = int(deps.clock()), _configuration(deps)
        selection = Selection(view, days, profile, fleet, issuer, cursor, limit)
        with deps.engine.connect() as connection:
            page = list_inventory(connection, configuration, selection, now)
        found = [_certificate(row, now) for row in page.rows]
        return Certificates(certificates=found, next=page.next_cursor)

    return await asyncio.to_thread(work)


@router.get("/certificates/{issuer}/{serial}", tags=["Certificates"], responses=_PROBLEMS)
async def certificate(issuer: Name, serial: Name, deps: Injected, _: Viewer) -> CertificateRow:
    """Return a certificate by its issuer's configured name and its serial number.

    The serial number is in hex in any usual spelling: colons, 0x and leading zeros are optional.
    """
    written = written_serial(serial)

    def work() -> CertificateRow:
        now, configuration = int(deps.clock()), _configuration(deps)
        windows = renewal_windows(configuration) if configuration else RenewalWindows()
        with deps.engine.connect() as connection:
            row = find_certificate(connection, issuer, written, windows, now)
        if row is None:
            raise ProblemError(404, "no such certificate")
        return _certificate(row, now)

    return await asyncio.to_thread(work)


def _configuration(deps: Dependencies) -> Configuration | None:
    """Return the configuration, None while it is broken: the record is readable without it."""
    try:
        return deps.configuration()
    except SettingsError:
        return None


def _certificate(row: Mapping[str, Any], now: int) -> CertificateRow:
    return CertificateRow.model_validate({**row, "state": state_of(row, now)})


@router.post("/certificates/{issuer}/{serial}/revoke", tags=["Certificates"], responses=_PROBLEMS)
async def revoke(
    issuer: Name, serial: Name, body: Revocation, deps: Injected, operator: OperatorUser
) -> Done:
    """Revoke a certificate, put it on hold, or release it.

    The CRL is published before the response, unless an external CA publishes it.
    """
    answer = await revoke_certificate(deps.context(operator), issuer, serial, body.reason)
    return Done(done=True, detail=answer)


@router.get("/challenges", tags=["One-time challenges"], responses=_PROBLEMS)
async def challenges(
    deps: Injected, operator: Viewer, profile: Annotated[str, Query(max_length=63)]
) -> Challenges:
    """List a profile's one-time challenges. The secrets themselves are not stored."""
    lines = await list_challenges(deps.context(operator), profile, deps.clock())
    return Challenges(challenges=rows_of(ChallengeRow, map(asdict, lines)))


@router.post("/challenges", tags=["One-time challenges"], status_code=201, responses=_PROBLEMS)
async def new_challenge(
    body: NewChallenge, deps: Injected, operator: OperatorUser
) -> CreatedChallenge:
    """Create a one-time challenge. Only this response contains it."""
    expires_at = int(deps.clock()) + body.ttl
    made = await create(deps.context(operator), body.profile, body.cn, tuple(body.sans), expires_at)
    return CreatedChallenge(id=made.id, challenge=made.challenge, expires_at=made.expires_at)


@router.delete(
    "/challenges/{profile}/{challenge}", tags=["One-time challenges"], responses=_PROBLEMS
)
async def cancel_challenge(
    profile: Name, challenge: Name, deps: Injected, operator: OperatorUser
) -> Done:
    """Cancel a one-time challenge that could still be used."""
    await cancel(deps.context(operator), profile, challenge, deps.clock())
    return Done(done=True, detail="cancelled")


@router.get("/dead-letters", tags=["Dead letters"])
async def dead_letters(deps: Injected, _: Viewer, limit: Limit = 50) -> DeadLetters:
    """List dead letters, newest first."""

    def work() -> DeadLetters:
        with deps.engine.connect() as connection:
            return DeadLetters(
                dead_letters=rows_of(DeadLetterRow, list_dead_letters(connection, limit))
            )

    return await asyncio.to_thread(work)


@router.post("/dead-letters/{stream}/{sequence}/retry", tags=["Dead letters"], responses=_PROBLEMS)
async def retry_letter(
    stream: Annotated[str, Path(max_length=64, pattern=r"^[A-Za-z0-9_-]+$")],
    sequence: Annotated[int, Path(ge=1, le=2**63 - 1)],
    deps: Injected,
    operator: OperatorUser,
) -> Done:
    """Retry a dead letter. An enrollment is processed again as its next attempt."""
    return Done(done=True, detail=await retry(deps.context(operator), stream, sequence))


@router.get("/orphans", tags=["Possible orphans"])
async def orphans(deps: Injected, _: Viewer, limit: Limit = 50) -> Orphans:
    """List orders whose answer was lost: open ones first, then newest first."""

    def work() -> Orphans:
        with deps.engine.connect() as connection:
            return Orphans(orphans=rows_of(OrphanRow, list_orphans(connection, limit)))

    return await asyncio.to_thread(work)


@router.post("/orphans/{issuer}/{key}/settle", tags=["Possible orphans"], responses=_PROBLEMS)
async def settle(
    issuer: Name, key: Name, body: OrphanReport, deps: Injected, operator: OperatorUser
) -> Done:
    """Report certificates that the CA made for an order and no device got, or that it made none.

    The issuer revokes them at the CA before the response.
    """
    certificates = read_report(body.certificates)
    context = deps.context(operator)
    return Done(done=True, detail=await settle_orphan(context, issuer, key, certificates))
