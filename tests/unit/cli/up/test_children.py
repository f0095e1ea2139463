"""A child process is started again whatever else goes wrong; only a stop ends its supervision."""

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from cli.up.children import Child
from cli.up.layout import UpError
from cli.up.starting import Patience

pytestmark = pytest.mark.slow

FOREVER = [sys.executable, "-c", "import signal; signal.pause()"]


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Look until the condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


class Notices(list[str]):
    """What was said of the children."""

    def __call__(self, text: str) -> None:
        self.append(text)


@pytest.fixture
def notices() -> Notices:
    return Notices()


@pytest.fixture
async def child(tmp_path: Path, notices: Notices) -> AsyncIterator[Child]:
    made = Child("gateway", "gateway-0", FOREVER, tmp_path / "logs" / "child.log", notice=notices)
    yield made
    await made.stop()


async def kill(child: Child) -> int:
    """Kill its process; the pid that it had."""
    pid = child.pid
    os.kill(pid, signal.SIGKILL)
    return pid


async def test_a_killed_child_is_started_again_and_that_is_said(
    child: Child, notices: Notices
) -> None:
    await child.start()
    killed = await kill(child)
    await until(lambda: child.pid != killed and child.restarts == 1)

    assert notices[0].startswith("gateway-0 ended (signal 9)")


async def test_a_failing_callback_does_not_end_supervision(child: Child, notices: Notices) -> None:
    """The run file cannot be written on a full disk, and not made from a broken configuration."""

    def fails(_: Child) -> None:
        raise OSError(28, "No space left on device")

    child.on_restart = fails
    await child.start()
    for restarts in (1, 2):
        killed = await kill(child)
        await until(lambda k=killed, r=restarts: child.pid != k and child.restarts == r)

    assert any("No space left on device" in notice for notice in notices)


async def test_a_log_that_cannot_be_opened_does_not_keep_a_child_from_starting(
    child: Child, tmp_path: Path
) -> None:
    await child.start()
    shutil.rmtree(tmp_path / "logs")
    (tmp_path / "logs").write_text("a file where the directory was")
    killed = await kill(child)

    await until(lambda: child.pid != killed and child.restarts == 1)


async def test_a_program_that_cannot_be_started_is_tried_until_it_can(
    tmp_path: Path, notices: Notices
) -> None:
    program = tmp_path / "program"
    program.symlink_to(sys.executable)
    command = [str(program), *FOREVER[1:]]
    child = Child("issuer", "issuer-0", command, tmp_path / "log", notice=notices)
    await child.start()
    program.unlink()
    killed = await kill(child)
    await until(lambda: any("cannot be started" in notice for notice in notices))
    said = len(notices)
    program.symlink_to(sys.executable)
    await until(lambda: child.pid != killed and child.restarts == 1)

    assert said <= 2, "a failure that repeats is said once"
    await child.stop()


async def test_a_stop_does_not_wait_for_the_next_try(tmp_path: Path, notices: Notices) -> None:
    ends = [sys.executable, "-c", "raise SystemExit(3)"]
    child = Child("audit", "audit-0", ends, tmp_path / "log", notice=notices)
    await child.start()
    await until(lambda: child.restarts >= 3)
    before = time.monotonic()
    await child.stop()

    assert time.monotonic() - before < 2
    assert child.process is not None
    assert child.process.returncode is not None
    assert sum("gateway" in n or "audit-0 ended" in n for n in notices) < child.restarts


async def test_a_child_that_is_stopped_while_it_is_started_ends(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    await child.start()
    spawning, go_on = asyncio.Event(), asyncio.Event()
    spawn = child._spawn

    async def slow() -> None:
        spawning.set()
        await go_on.wait()
        await spawn()

    monkeypatch.setattr(child, "_spawn", slow)
    await kill(child)
    await spawning.wait()
    stopping = asyncio.create_task(child.stop())
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.wait_for(stopping, 10)

    assert child.process is not None
    assert child.process.returncode is not None


@pytest.mark.parametrize(("status", "refused"), [(78, "its port is taken"), (1, "")])
async def test_only_a_configuration_that_cannot_be_used_is_a_refusal(
    tmp_path: Path, notices: Notices, status: int, refused: str
) -> None:
    program = f"import sys; print('its port is taken'); sys.exit({status})"
    command = [sys.executable, "-c", program]
    child = Child("issuer", "issuer-0", command, tmp_path / "log", notice=notices)
    await child.start()
    await until(lambda: child.restarts >= 2)

    assert child.refused == refused
    await child.stop()


async def test_what_is_waited_for_is_said_until_it_is_there(child: Child, notices: Notices) -> None:
    await child.start()
    answers = iter(["812 of 1034 events"] * 5 + [""])

    async def missing() -> str:
        return next(answers)

    await Patience(notices, seconds=0.0).until(child, missing)
    assert set(notices) == {"waiting for gateway-0: 812 of 1034 events"}

    child.refused = "the configuration is no TOML"
    with pytest.raises(UpError, match="gateway-0 refused to start: the configuration is no TOML"):
        await Patience(notices).until(child, lambda: asyncio.sleep(0, "no answer yet"))


async def test_patience_that_has_a_limit_ends_with_what_is_missing(
    child: Child, notices: Notices
) -> None:
    await child.start()
    with pytest.raises(UpError, match="gateway-0: no streams yet"):
        await Patience(notices, limit=0.1).until(child, lambda: asyncio.sleep(0, "no streams yet"))


async def test_patience_ends_though_what_it_waits_for_swallows_the_end(
    child: Child, notices: Notices
) -> None:
    await child.start()

    async def stubborn() -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.2)
        return "no streams yet"

    async with asyncio.timeout(20):
        with pytest.raises(UpError, match="gateway-0: no streams yet"):
            await Patience(notices, limit=0.1).until(child, stubborn)


async def test_patience_that_has_a_limit_does_not_wait_for_an_answer_without_end(
    child: Child, notices: Notices
) -> None:
    await child.start()

    async def silent() -> str:
        await asyncio.Event().wait()
        return ""

    with pytest.raises(UpError, match="gateway-0: it does not answer"):
        await Patience(notices, limit=0.1).until(child, silent)
