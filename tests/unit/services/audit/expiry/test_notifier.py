"""An operator's service hears of certificates before they expire: each once for each period."""

import asyncio
import hashlib
import hmac
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import Engine, insert, text
from structlog.testing import capture_logs

from services.audit.expiry.notices import Period, periods
from services.audit.expiry.notifier import ExpiryNotifier
from services.audit.settings import ExpiryWebhook
from services.audit.store.engine import open_engine
from services.audit.store.tables import certificates
from shared.bus.core import BusUnavailableError
from shared.config.load import load
from shared.config.sections import Configuration
from shared.limits import NOTICE_CERTIFICATES
from shared.log.streams import CERTS
from shared.log.subjects import certificate_issued
from shared.runtime.endpoint import Endpoint
from tests.fakes.memory_bus import MemoryBus
from tests.support.world import NOW, Clock, counted, memory_bus
from tests.unit.services.audit.stories import event, stored
from tests.unit.services.validator.http_services import Service, http, serving
from tests.unit.shared import configurations

DAY: Final = 86400
SECRET: Final = b"hmac-s3cret-of-the-hook"
BEFORE: Final = (30 * DAY, 7 * DAY, DAY)


@pytest.fixture
def engine(tmp_path: Path, migrated: Path) -> Iterator[Engine]:
    """SQLite alone: what is of the database here is tested with both elsewhere."""
    shutil.copyfile(migrated, tmp_path / "audit.db")
    engine = open_engine(f"sqlite:///{tmp_path}/audit.db")
    yield engine
    engine.dispose()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving(Service(say=http(204))) as found:
        yield found


@pytest.fixture(scope="module")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> Configuration:
    return load(configurations.write(tmp_path_factory.mktemp("expiry")), {})


@dataclass
class World:
    """A database of certificates, whose service is told of them."""

    engine: Engine
    service: Service
    configuration: Configuration
    clock: Clock = field(default_factory=Clock)
    bus: MemoryBus = field(default_factory=memory_bus)
    notifiers: int = 0
    secret: bytes = SECRET

    def notifier(self, timeout: float = 5.0) -> ExpiryNotifier:
        """A replica of its own."""
        self.notifiers += 1
        webhook = ExpiryWebhook(Endpoint(self.service.url, timeout, self.secret), BEFORE)
        return ExpiryNotifier(
            self.bus, self.engine, lambda: webhook, lambda: self.configuration, self.clock,
            f"replica-{self.notifiers}",
        )  # fmt: skip

    def add(self, serial: str, days: float, **changes: Any) -> None:
        end = int(NOW + days * DAY)
        values = {
            "issuer": "local", "serial": serial, "enrollment": "e", "profile": "corp-2",
            "subject": f"CN={serial}", "not_before": end - 90 * DAY, "not_after": end,
            "recorded_at": 1,
        }  # fmt: skip
        with self.engine.begin() as connection:
            connection.execute(insert(certificates).values(values | changes))

    def heard(self) -> list[tuple[float, list[str]]]:
        """The notices since the last time: days and serial numbers."""
        found = [each.json for each in self.service.posted]
        self.service.posted.clear()
        return [(n["days"], [c["serial"] for c in n["certificates"]]) for n in found]


@pytest.fixture
def world(engine: Engine, service: Service, configuration: Configuration) -> World:
    return World(engine, service, configuration)


async def test_each_is_told_once_for_each_period_that_it_comes_into(world: World) -> None:
    notifier = world.notifier()
    world.add("0a", 31)
    world.add("0b", 8.5)
    await notifier.look()
    assert world.heard() == [(30, ["0b"])]
    seen = []
    for _ in range(33):
        world.clock.seconds += DAY
        await notifier.look()
        seen += world.heard()

    assert seen == [
        (30, ["0a"]), (7, ["0b"]), (1, ["0b"]), (7, ["0a"]), (1, ["0a"]),
    ]  # fmt: skip


async def test_at_the_start_each_is_told_of_the_shortest_period_alone(world: World) -> None:
    for serial, days in (("0a", 20), ("0b", 5), ("0c", 0.5), ("0d", -3), ("0e", -9), ("0f", 60)):
        world.add(serial, days)
    await world.notifier().look()

    assert world.heard() == [(1, ["0d", "0c"]), (7, ["0b"]), (30, ["0a"])]


async def test_what_its_device_does_not_use_any_more_is_not_told(world: World) -> None:
    world.add("0a", 5, superseded_by="ff", superseded_at=5)
    world.add("0b", 5, revoked_at=5, revocation_reason="keyCompromise")
    world.add("0c", 5, revoked_at=5, revocation_reason="certificateHold")
    world.add("0d", 5, subject="CN=again")
    world.add("0e", 300, subject="CN=again", recorded_at=2)
    world.add("0f", 5, revoked_at=0)
    await world.notifier().look()

    assert world.heard() == [(7, ["0f"])]


async def test_a_certificate_that_begins_within_a_period_is_not_told_of_it(world: World) -> None:
    notifier = world.notifier()
    await notifier.look()
    world.add("0a", 20)
    await notifier.look()

    assert world.heard() == []


async def test_a_notice_says_what_the_document_says(world: World) -> None:
    world.add("0a", 5, enrollment="enroll.0.corp-2.t.c.0", subject='CN=Prüfgerät "7"')
    await world.notifier().look()
    (posted,) = world.service.posted
    mac = hmac.new(SECRET, f"{NOW:.0f}.".encode() + posted.body, hashlib.sha256).hexdigest()
    notice = posted.json

    assert posted.headers["scepstream-signature"] == f"sha256={mac}"
    assert SECRET not in posted.body
    assert len(notice.pop("id")) == 32
    end = int(NOW + 5 * DAY)
    assert notice == {
        "event": "expiring",
        "days": 7,
        "certificates": [
            {
                "issuer": "local",
                "serial": "0a",
                "profile": "corp-2",
                "subject": 'CN=Prüfgerät "7"',
                "enrollment": "enroll.0.corp-2.t.c.0",
                "not_before": end - 90 * DAY,
                "not_after": end,
                "renewable_from": end - 30 * DAY,
                "should_have_renewed": True,
            }
        ],
    }


async def test_many_come_in_notices_of_their_own(world: World) -> None:
    for number in range(2 * NOTICE_CERTIFICATES + 3):
        world.add(f"{number:04x}", 5, subject="")
    await world.notifier().look()
    notices = world.heard()

    assert [len(serials) for _, serials in notices] == [NOTICE_CERTIFICATES] * 2 + [3]
    assert len({serial for _, serials in notices for serial in serials}) == 203


# Faults


async def test_what_is_not_taken_is_told_again_and_what_was_is_not(world: World) -> None:
    for number in range(NOTICE_CERTIFICATES + 1):
        world.add(f"{number:04x}", 5)
    world.add("ff", 20)
    notifier = world.notifier()

    async def second_fails(_: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(http(500 if len(world.service.posted) == 2 else 204))

    world.service.answer = second_fails
    with capture_logs() as logs:
        await notifier.look()
    assert [len(serials) for _, serials in world.heard()] == [NOTICE_CERTIFICATES, 1]
    assert [each["event"] for each in logs] == ["expiry_notice_sent", "expiry_notice_failed"]
    assert notifier.pause() < 10
    world.service.answer = None
    await notifier.look()

    assert world.heard() == [(7, ["0064"]), (30, ["ff"])]
    assert notifier.pause() == 60


async def test_pauses_grow_while_the_service_is_away_and_nothing_of_it_is_logged(
    world: World,
) -> None:
    world.add("0a", 5)
    notifier = world.notifier()
    world.service.say = b"not http at all"
    before = counted("expiry_notices", accepted="false")
    pauses = []
    with capture_logs() as logs:
        for _ in range(7):
            await notifier.look()
            pauses.append(notifier.pause())

    assert pauses[0] < 10 < pauses[2] < 100 < pauses[3] < 700 < pauses[-1] < 1100
    assert counted("expiry_notices", accepted="false") == before + 7
    assert not any(word in str(logs) for word in (world.service.url, SECRET.decode(), "CN="))


async def test_a_service_that_does_not_answer_is_given_up_in_time(world: World) -> None:
    world.add("0a", 5)

    async def silent(_: Any, __: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    world.service.answer = silent
    async with asyncio.timeout(5):
        await world.notifier(timeout=0.05).look()
    world.service.answer = None
    world.service.posted.clear()
    await world.notifier().look()  # another replica, whose turn it is not
    assert world.heard() == []
    world.clock.seconds += 120
    await world.notifier().look()

    assert world.heard() == [(7, ["0a"])]


async def test_a_restart_repeats_nothing(world: World) -> None:
    world.add("0a", 5)
    await world.notifier().look()
    world.clock.seconds += 120
    await world.notifier().look()

    assert world.heard() == [(7, ["0a"])]


async def test_replicas_at_once_tell_it_once(world: World) -> None:
    for serial, days in (("0a", 20), ("0b", 5), ("0c", 0.5)):
        world.add(serial, days)
    await asyncio.gather(*(world.notifier().look() for _ in range(4)))

    assert sorted(world.heard()) == [(1, ["0c"]), (7, ["0b"]), (30, ["0a"])]


async def test_a_database_that_is_behind_the_log_tells_nothing(world: World) -> None:
    world.add("0a", 5)
    stream, last = world.bus.streams[CERTS], event("CertificateRecorded", serial="0a")
    stream.messages[5000] = stored(5000, certificate_issued("local", "0a"), last)
    stream.last = 5000
    await world.notifier().look()
    assert world.heard() == []
    with world.engine.begin() as connection:
        connection.execute(
            text("INSERT INTO positions (stream, sequence, digest) VALUES ('CERTS', 4990, '')")
        )
    await world.notifier().look()

    assert world.heard() == [(7, ["0a"])]


async def test_without_an_address_nothing_is_asked_of_the_log(world: World) -> None:
    class Away(MemoryBus):
        async def get_last_from_leader(self, stream: str, subject: str) -> None:
            raise BusUnavailableError(f"{stream} {subject}")

    away = ExpiryNotifier(
        Away(), world.engine, lambda: None, lambda: world.configuration, world.clock
    )
    await away.look()


def test_periods_join_whatever_their_order() -> None:
    assert list(periods((7 * DAY, DAY, DAY, 30 * DAY))) == [
        Period(DAY, -7 * DAY), Period(7 * DAY, DAY), Period(30 * DAY, 7 * DAY),
    ]  # fmt: skip
