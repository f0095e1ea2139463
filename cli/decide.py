"""`scepstream approve|deny`: the operator's word on a held enrollment."""

from pathlib import Path
from typing import Annotated

import typer

from cli.operator import Office, OrderError, in_office, operator_name
from cli.places import config_path
from services.audit.database import open_engine
from services.audit.queries import EnrollmentLine, recent
from shared.bus.topology import enroll_stream
from shared.enrollment import State
from shared.events import EnrollmentHeld, HoldDecided
from shared.stored import authenticate, sign
from shared.subjects import Stage, parse_prefix

Wanted = Annotated[str, typer.Argument(help="device, transactionID or enrollment")]
Config = Annotated[
    Path | None,
    typer.Option(envvar="SCEPSTREAM_CONFIG", help="configuration [scepstream.toml, data/...]"),
]
Note = Annotated[str, typer.Option(help="why; of a refusal the device is told too")]
_SEEN = 50


def approve(wanted: Wanted, config: Config = None, note: Note = "") -> None:
    """Let a held enrollment go on to its certificate."""
    _decide(wanted, config, note, approved=True)


def deny(wanted: Wanted, config: Config = None, note: Note = "") -> None:
    """Refuse a held enrollment."""
    _decide(wanted, config, note, approved=False)


def _decide(wanted: str, config: Path | None, note: str, *, approved: bool) -> None:
    line = in_office(
        config_path(config), lambda office: _record(office, wanted, note, approved=approved)
    )
    print(f"{'approved' if approved else 'denied'}: {line.device or line.transaction_id}")


async def _record(office: Office, wanted: str, note: str, *, approved: bool) -> EnrollmentLine:
    line = _held(office, wanted)
    enrollment = parse_prefix(line.enrollment)
    stream, place = enroll_stream(enrollment.shard), enrollment.subject(Stage.HOLD)
    held = await office.bus.get_last(stream, place)
    event = authenticate(held, office.validators, Stage.HOLD) if held is not None else None
    if not isinstance(event, EnrollmentHeld):
        raise OrderError(f"{wanted} is not held")
    decided = HoldDecided(
        request_sha256=event.request_sha256, approved=approved, operator=operator_name(), note=note
    )
    subject = enrollment.subject(Stage.DECISION)
    message = sign(decided, subject, decided.request_sha256, office.settings.signer)
    if not await office.append(subject, message):
        raise OrderError(f"{wanted} was decided before")
    return line


def _held(office: Office, wanted: str) -> EnrollmentLine:
    """The one held enrollment that fits."""
    engine = open_engine(office.settings.database_url)
    try:
        lines = recent(engine, _SEEN, search=wanted, state=State.HELD) if wanted else []
    finally:
        engine.dispose()
    if not lines:
        raise OrderError(f"nothing held on record for {wanted}")
    if len(lines) > 1:
        names = "; ".join(f"{line.device} ({line.transaction_id})" for line in lines)
        raise OrderError(f"several are held, name one by its transactionID: {names}")
    return lines[0]
