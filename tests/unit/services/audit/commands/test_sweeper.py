"""The sweeper between the read model and the log: what it commands, and what it leaves alone."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from services.audit.commands import sweeper as module
from services.audit.commands.overdue import Patience
from services.audit.commands.sweeper import Sweeper
from services.audit.query.commands import CommandFilter, list_commands
from services.audit.record.write import store
from services.audit.store.commands import Command
from services.audit.store.engine import migrate, open_engine
from shared.log.envelope import Message, authenticate_as, sign
from shared.log.events.commands import ResumeOrdered
from shared.log.stages import Stage
from shared.log.streams import OPS
from shared.log.subjects import EnrollmentId
from tests.fakes.memory_bus import MemoryBus
from tests.support.world import (
    NOW,
    OPERATOR,
    STRANGER,
    TRUSTED_OPERATORS,
    TRUSTED_VALIDATORS,
    VALIDATOR,
    Clock,
    EventSigner,
    counted,
    memory_bus,
    turn,
)
from tests.unit.services.audit import stories
from tests.unit.services.audit.stories import STREAM, enrollment


class Story:
    """A log and its read model; events are at seconds after NOW."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.clock = engine, Clock()
        self.bus: MemoryBus = memory_bus(self.clock)
        self.sweeper = Sweeper(self.bus, engine, OPERATOR, TRUSTED_VALIDATORS, self.clock)
        self.recorded = 0

    async def add(
        self, number: int, stage: Stage, kind: str, at: float, by: EventSigner | None = None,
        profile: str = "corp",
    ) -> None:  # fmt: skip
        self.clock.seconds = NOW + at
        subject = enrollment(number, profile).subject(stage)
        found: Any = stories.event(kind)
        message = (
            stories.stored(1, subject, found)
            if stage is Stage.REQUEST
            else sign(found, subject, by or VALIDATOR)
        )
        await self.bus.append(subject, Message(message.payload, dict(message.headers)))

    async def request(self, number: int, at: float, **changes: Any) -> None:
        await self.add(number, Stage.REQUEST, "EnrollmentRequested", at, **changes)

    async def approve(self, number: int, at: float, **changes: Any) -> None:
        await self.add(number, Stage.VERDICT, "EnrollmentApproved", at, **changes)

    async def issue(self, number: int, at: float) -> None:
        await self.add(number, Stage.OUTCOME, "CertificateIssued", at)

    def record(self) -> None:
        """Bring the read model to where the log is."""
        for stream in (STREAM, OPS):
            messages = sorted(self.bus.streams[stream].messages.values(), key=lambda m: m.sequence)
            store(self.engine, stream, messages)

    async def sweep(self, at: float) -> list[ResumeOrdered]:
        """All commands on the log after a pass at this time, on a current model."""
        self.record()
        self.clock.seconds = NOW + at
        await self.sweeper.sweep()
        return self.commands()

    def commands(self) -> list[ResumeOrdered]:
        found = self.bus.streams[OPS].messages.values()
        return [authenticate_as(ResumeOrdered, each, TRUSTED_OPERATORS) for each in found]

    def lose(self, found: EnrollmentId, stage: Stage) -> None:
        messages = self.bus.streams[STREAM].messages
        for each in [s for s, m in messages.items() if m.subject == found.subject(stage)]:
            del messages[each]


@pytest.fixture
def story(engine: Engine) -> Story:
    return Story(engine)


async def test_a_request_that_others_overtook_gets_an_order_and_one_only(story: Story) -> None:
    await story.request(1, 0)
    await story.request(2, 60)
    await story.approve(2, 61)
    before = counted("resumes_ordered", stage="verdict", give_up="false")
    assert await story.sweep(119) == []
    (order,) = await story.sweep(120)
    assert await story.sweep(180) == [order]

    assert (order.enrollment, order.stage) == (enrollment(1).prefix(), Stage.VERDICT)
    assert (order.number, order.give_up, order.operator) == (0, False, "scepstream")
    assert counted("resumes_ordered", stage="verdict", give_up="false") == before + 1


async def test_an_attempt_that_never_ends_is_given_up_and_then_left_alone(story: Story) -> None:
    await story.request(1, 0)
    await story.request(2, 60)
    await story.approve(2, 61)
    await story.issue(2, 62)
    for at in range(60, 7200, 60):
        await story.sweep(at)

    assert [(each.number, each.give_up) for each in story.commands()] == [
        (0, False), (1, False), (2, False), (3, True),
    ]  # fmt: skip


async def test_an_approval_without_outcome_gets_an_order_for_the_issuer(story: Story) -> None:
    await story.request(1, 0)
    await story.approve(1, 1)
    await story.request(2, 90)
    await story.approve(2, 91)
    assert await story.sweep(300) == []
    await story.issue(2, 301)
    (order,) = await story.sweep(302)

    assert (order.enrollment, order.stage) == (enrollment(1).prefix(), Stage.OUTCOME)


@pytest.mark.parametrize("role", ["validator", "issuer"])
async def test_an_outage_of_a_role_gives_no_orders(story: Story, role: str) -> None:
    for number in range(1, 50):
        await story.request(number, number * 10)
        if role == "issuer":
            await story.approve(number, number * 10 + 1)

    assert await story.sweep(86_400) == []


async def test_another_profile_that_goes_on_gives_no_orders(story: Story) -> None:
    """A profile that no validator serves waits for its validator."""
    await story.request(1, 0)
    await story.request(2, 90, profile="other")
    await story.add(2, Stage.VERDICT, "EnrollmentApproved", 91, profile="other")

    assert await story.sweep(86_400) == []


async def test_a_held_enrollment_is_left_alone_until_it_is_decided(story: Story) -> None:
    await story.request(1, 0)
    await story.add(1, Stage.HOLD, "EnrollmentHeld", 1)
    await story.request(2, 90)
    await story.approve(2, 91)
    assert await story.sweep(86_400) == []
    await story.add(1, Stage.DECISION, "HoldDecided", 86_400, by=OPERATOR)
    await story.request(3, 86_460)
    await story.approve(3, 86_461)
    assert await story.sweep(86_519) == []

    (order,) = await story.sweep(86_520)
    assert (order.enrollment, order.stage) == (enrollment(1).prefix(), Stage.VERDICT)


async def test_a_model_that_is_behind_the_log_gives_no_orders(story: Story) -> None:
    """Neither for a verdict nor for an outcome that it does not know yet."""
    for number, at in ((1, 0), (2, 1), (3, 90)):
        await story.request(number, at)
    await story.approve(2, 2)
    await story.approve(3, 91)
    await story.issue(3, 92)
    story.record()
    await story.approve(1, 93)
    await story.issue(2, 94)
    story.clock.seconds = NOW + 300
    await story.sweeper.sweep()

    assert story.commands() == []


async def test_a_verdict_that_the_log_lost_is_made_again_from_the_request(story: Story) -> None:
    await story.request(1, 0)
    await story.approve(1, 1)
    await story.request(2, 90)
    await story.approve(2, 91)
    await story.issue(2, 92)
    story.record()
    story.lose(enrollment(1), Stage.VERDICT)

    (order,) = await story.sweep(300)
    assert order.stage is Stage.VERDICT


async def test_an_attempt_whose_request_is_gone_or_whose_verdict_is_forged_gets_no_order(
    story: Story,
) -> None:
    await story.request(1, 0)
    await story.request(2, 1)
    await story.approve(2, 2, by=STRANGER)
    await story.request(3, 90)
    await story.approve(3, 91)
    await story.issue(3, 92)
    story.record()
    story.lose(enrollment(1), Stage.REQUEST)

    assert await story.sweep(300) == []
    assert await story.sweep(360) == []


async def test_two_audit_services_write_each_order_once(story: Story) -> None:
    await story.request(1, 0)
    await story.request(2, 60)
    await story.approve(2, 61)
    story.record()
    story.clock.seconds = NOW + 300
    other = Sweeper(story.bus, story.engine, OPERATOR, TRUSTED_VALIDATORS, story.clock)

    assert sorted(await asyncio.gather(story.sweeper.sweep(), other.sweep())) == [0, 1]


async def test_a_pass_goes_on_where_the_one_before_stopped(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attempts that nothing can end do not keep the sweeper from the others."""
    monkeypatch.setattr(module, "_ROWS", 2)
    for number in range(1, 6):
        await story.request(number, number)
    await story.request(9, 90)
    await story.approve(9, 91)

    assert [len(await story.sweep(300 + i)) for i in range(4)] == [2, 4, 5, 5]


async def test_every_statement_of_a_pass_is_a_search_in_an_index(tmp_path: Path) -> None:
    """In the order of that index; SQLite tells how it will search before there is anything."""
    engine = open_engine(f"sqlite:///{tmp_path}/audit.db")
    migrate(engine)
    story = Story(engine)
    plans: list[str] = []

    def explain(connection: Connection, _: Any, statement: str, parameters: Any, *__: Any) -> None:
        if statement.startswith("SELECT"):
            cursor = connection.connection.cursor()
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.extend(row[3] for row in cursor.fetchall())

    await story.request(1, 0)
    await story.request(2, 60)
    await story.approve(2, 61)
    story.record()
    event.listen(story.engine, "before_cursor_execute", explain)
    story.sweeper._places = dict.fromkeys(module.MISSING, (0, ""))
    assert len(await story.sweep(300)) == 1

    searches = [plan for plan in plans if "enrollments" in plan or "commands" in plan]
    assert searches
    assert all(plan.startswith("SEARCH") for plan in searches), searches
    assert not [plan for plan in plans if "TEMP B-TREE" in plan]
    engine.dispose()


async def test_orders_are_shown_where_orders_are_shown(story: Story) -> None:
    await story.request(1, 0)
    await story.request(2, 60)
    await story.approve(2, 61)
    await story.sweep(300)
    story.record()
    with story.engine.connect() as connection:
        (row,) = list_commands(connection, CommandFilter(kind=Command.RESUME)).rows
    assert (row["enrollment"], row["operator"]) == (enrollment(1).prefix(), "scepstream")
    assert (row["note"], row["result"], row["profile"]) == ("verdict", "waiting", "corp")


async def test_a_pass_that_fails_is_followed_by_another(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    story.sweeper.patience = Patience(pause=0.0)
    passes: list[int] = []

    async def sweep(_: Sweeper) -> int:
        passes.append(1)
        raise OSError

    monkeypatch.setattr(Sweeper, "sweep", sweep)
    running = asyncio.create_task(story.sweeper.run())
    while len(passes) < 3:
        await turn()

    assert not running.done()
    running.cancel()
