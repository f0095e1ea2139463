"""`scepstream approve|deny`: the operator's word on a held enrollment."""

from pathlib import Path
from typing import Annotated

import typer

from cli.operator import in_office
from cli.places import config_path
from services.audit.database import open_engine
from services.audit.office import Office, OrderError
from services.audit.orders.decide import decide
from services.audit.queries import EnrollmentLine, recent
from shared.enrollment import State

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
    await decide(office, line.enrollment, note, approved=approved)
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
