"""A database that is silent (a stopped process answers nothing, and breaks no connection)."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from fastapi import FastAPI
from sqlalchemy import Engine, text

from services.audit.api.deadlines import Bounded, Kind
from services.audit.record.lag import Backlog
from services.audit.record.readiness import Readiness
from services.audit.store.engine import migrate, open_engine
from shared.observe.metrics import BUS_LAG
from tests.support.world import memory_bus
from tests.unit.services.audit.stories import STREAM

pytestmark = pytest.mark.xdist_group("postgresql")


def gauge_names() -> set[tuple[str, ...]]:
    """The labels that the lag is shown for."""
    return {tuple(sample.labels.values()) for m in BUS_LAG.collect() for sample in m.samples}


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    made = open_engine(postgres_url)
    migrate(made)
    yield made
    made.dispose()


class Stopped:
    """All backends of the engine's connections, stopped for the length of a block."""

    def __init__(self, url: str) -> None:
        with psycopg.connect(url) as connection:
            own = connection.info.backend_pid
            rows = connection.execute("SELECT pid FROM pg_stat_activity WHERE pid <> %s", (own,))
            parent = int(Path(f"/proc/{own}/stat").read_text().rpartition(")")[2].split()[1])
            self.pids = [parent, *(int(row[0]) for row in rows)]

    def __enter__(self) -> None:
        for pid in self.pids:
            os.kill(pid, signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        for pid in self.pids:
            os.kill(pid, signal.SIGCONT)


@pytest.fixture
async def client(engine: Engine) -> AsyncIterator[tuple[httpx.AsyncClient, Readiness, list[str]]]:
    """A client of an application, its readiness, and the queries that it was asked."""
    app, readiness = FastAPI(), Readiness(memory_bus(), engine, seconds=0.5)
    queries: list[str] = []

    @app.get("/api/v1/rows")
    def rows() -> int:
        queries.append("rows")
        with engine.connect() as connection:
            return int(connection.execute(text("SELECT 1")).scalar_one())

    bounded = Bounded(app, readiness.database_away, lambda *_: Kind(1.0, 16))
    transport = httpx.ASGITransport(bounded)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as found:
        yield found, readiness, queries


async def test_queries_end_in_a_503_and_readiness_says_so_until_it_answers_again(
    client: tuple[httpx.AsyncClient, Readiness, list[str]], postgres_url: str
) -> None:
    asked, readiness, queries = client
    assert (await asked.get("/api/v1/rows")).json() == 1
    await readiness.look()
    assert readiness.missing() == ""
    with Stopped(postgres_url):
        answer = await asked.get("/api/v1/rows")
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        await readiness.look()
        assert readiness.missing() == "database"
        before = len(queries)
        assert (await asked.get("/api/v1/rows")).status_code == 503
        assert len(queries) == before, "what is known to be away is not asked"
    async with asyncio.timeout(20):
        while readiness.missing():
            await readiness.look()
    assert (await asked.get("/api/v1/rows")).json() == 1


async def test_a_lag_that_cannot_be_measured_is_absent(
    engine: Engine, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.audit.record.lag._LONGEST_SECONDS", 0.5)
    monkeypatch.setattr("services.audit.record.lag._SECONDS", 0.05)
    running = asyncio.create_task(Backlog(memory_bus(), engine, [STREAM], lambda: 0.0).run())
    async with asyncio.timeout(20):
        while (STREAM, "audit") not in gauge_names():
            await asyncio.sleep(0.01)
        with Stopped(postgres_url):
            while (STREAM, "audit") in gauge_names():
                await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
