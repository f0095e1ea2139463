"""What an operator's plug-in may do: say yes; whatever else it does refuses the device."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ec

from services.validator.challenges.answers import WITHHELD
from services.validator.challenges.device_state import (
    DeviceAnswer,
    DeviceQuestion,
    DeviceStateGate,
    load_device_state,
)
from services.validator.challenges.verifier import ChallengeResult
from shared.config.load import SettingsError
from shared.log.events.enrollment import GateResult
from shared.log.events.state import Claim
from shared.log.reasons import Reason
from tests.support.enrollers import (
    CONNECTOR,
    SUBJECT,
    ask,
    asked,
    by_token,
    holder,
    judgement,
    token,
    verdict,
)
from tests.support.messages import Identity, tlv
from tests.support.validators import World, validating
from tests.support.world import PROFILE, turn, until

pytestmark = pytest.mark.slow

GUID = "0a1b2c3d-0000-4000-8000-00000000abcd"
CLAIM = Claim(issuer="connector-1", subject=SUBJECT, device="device")
Plugin = Callable[[DeviceQuestion], Awaitable[Any]]


def answering(answer: Any) -> Plugin:
    async def plugin(_: DeviceQuestion) -> Any:
        return answer

    return plugin


async def verified(plugin: Any, timeout: float = 5.0) -> ChallengeResult:
    async with asyncio.timeout(10):
        return await DeviceStateGate(plugin, timeout).ask(asked(holder(), "a-signed-token"), CLAIM)


def refused(found: ChallengeResult) -> bool:
    return found.refusal is not None and found.refusal.reason is Reason.DEVICE_STATE_FAILED


# Yes and no


async def test_a_clear_yes_opens_the_gate_with_its_sentence_on_record() -> None:
    found = await verified(answering(DeviceAnswer(allow=True, detail="compliant")))

    assert found.refusal is None
    assert [(g.gate, g.passed, g.detail) for g in found.gates] == [
        ("device_state", True, "compliant")
    ]


async def test_a_no_refuses_with_its_sentence_on_record_and_not_in_the_answer() -> None:
    found = await verified(answering(DeviceAnswer(allow=False, detail="no disk encryption")))

    assert refused(found)
    assert "no disk encryption" in found.gates[0].detail
    assert found.refusal is not None
    assert "no disk encryption" not in found.refusal.detail


@dataclass
class LooksAlike:
    """Not the answer that was asked for, however much it looks so."""

    allow: bool = True
    detail: str = ""


@pytest.mark.parametrize(
    "answer",
    [
        None, True, 1, "yes", {"allow": True}, (True, ""), LooksAlike(), DeviceAnswer,
        DeviceAnswer(allow=1),  # type: ignore[arg-type]  # what plug-ins do
        DeviceAnswer(allow="yes"),  # type: ignore[arg-type]
        DeviceAnswer(allow=None),  # type: ignore[arg-type]
        DeviceAnswer(allow=[True]),  # type: ignore[arg-type]
        Exception("yes"),
    ],
    ids=repr,
)  # fmt: skip
async def test_whatever_is_no_clear_yes_refuses(answer: Any) -> None:
    assert refused(await verified(answering(answer)))


@pytest.mark.parametrize("detail", [None, 7, b"compliant", ["compliant"], "\ud800"], ids=repr)
async def test_a_sentence_that_is_none_makes_no_verdict_that_cannot_be_written_or_read(
    detail: Any,
) -> None:
    """An error would end the request as poison; a verdict that nobody can read would never end."""
    found = await verified(answering(DeviceAnswer(allow=True, detail=detail)))

    assert found.refusal is None or refused(found)
    written = msgspec.json.encode(found.gates)
    assert msgspec.json.decode(written, type=tuple[GateResult, ...]) == found.gates


async def test_a_sentence_that_repeats_the_token_is_withheld() -> None:
    token = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJjb25uZWN0b3IifQ.c2lnbmF0dXJl"
    for detail in (f"seen: {token}", f"seen: {token[:20]}", f"seen: {quote(token)}"):
        plugin = answering(DeviceAnswer(allow=False, detail=detail))
        found = await DeviceStateGate(plugin, 5.0).ask(asked(holder(), token), CLAIM)

        assert refused(found)
        assert WITHHELD in found.gates[0].detail
        assert token[:20] not in repr(found)


async def test_a_sentence_without_end_gets_one() -> None:
    found = await verified(answering(DeviceAnswer(allow=True, detail="x" * 100_000)))

    assert len(found.gates[0].detail) < 1000


# Errors


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("directory away"), OSError(), KeyError("device"), ValueError(),
        AssertionError(), StopAsyncIteration(), RecursionError(), MemoryError(), TimeoutError(),
        ExceptionGroup("many", [ValueError()]),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
async def test_an_error_of_the_plug_in_refuses(error: Exception) -> None:
    async def plugin(_: DeviceQuestion) -> DeviceAnswer:
        raise error

    assert refused(await verified(plugin))


async def test_a_cancellation_inside_the_plug_in_refuses_and_ends_nobody_else() -> None:
    """A task of its own was cancelled: that is no order to the validator's worker."""

    async def plugin(_: DeviceQuestion) -> DeviceAnswer:
        inner = asyncio.create_task(asyncio.Event().wait())
        inner.cancel()
        await inner
        return DeviceAnswer(allow=True)

    try:
        found = await verified(plugin)
    except asyncio.CancelledError:
        pytest.fail("the cancellation reached the worker")
    assert refused(found)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize(
    "plugin",
    [
        lambda _: DeviceAnswer(allow=True),
        lambda: DeviceAnswer(allow=True),
        lambda _, __: DeviceAnswer(allow=True),
        lambda _: answering(DeviceAnswer(allow=True)),
        DeviceAnswer,
        dict,
    ],
)
async def test_what_is_no_coroutine_function_of_one_question_refuses(plugin: Any) -> None:
    found = await verified(plugin)
    gc.collect()

    assert refused(found)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
async def test_a_coroutine_in_a_coroutine_is_no_answer() -> None:
    inner = answering(DeviceAnswer(allow=True))

    async def plugin(question: DeviceQuestion) -> Any:
        return inner(question)

    found = await verified(plugin)
    gc.collect()

    assert refused(found)


async def test_what_the_error_says_is_neither_logged_nor_recorded() -> None:
    """It may hold what the directory's credentials are."""

    async def plugin(_: DeviceQuestion) -> DeviceAnswer:
        raise RuntimeError("https://user:passw0rd@directory.example")

    with structlog.testing.capture_logs() as logs:
        found = await verified(plugin)

    assert [entry["event"] for entry in logs] == ["device_state_failed"]
    assert "passw0rd" not in repr(logs) + repr(found)


# Not in time


async def test_a_plug_in_that_does_not_answer_in_time_refuses() -> None:
    async def plugin(_: DeviceQuestion) -> DeviceAnswer:
        await asyncio.Event().wait()
        return DeviceAnswer(allow=True)

    assert refused(await verified(plugin, timeout=0.05))


async def test_a_yes_after_its_time_is_none() -> None:
    """The plug-in swallows that it was cut off, and says yes all the same."""

    async def plugin(_: DeviceQuestion) -> DeviceAnswer:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return DeviceAnswer(allow=True, detail="as far as is known")
        return DeviceAnswer(allow=False)

    assert refused(await verified(plugin, timeout=0.05))


async def test_a_plug_in_that_keeps_the_loop_to_itself_is_late_all_the_same() -> None:
    async def plugin(_: DeviceQuestion) -> DeviceAnswer:
        time.sleep(0.2)
        return DeviceAnswer(allow=True)

    assert refused(await verified(plugin, timeout=0.05))


async def test_who_waits_for_a_plug_in_can_be_stopped_and_the_plug_in_with_it() -> None:
    waiting, stopped = asyncio.Event(), asyncio.Event()

    async def plugin(_: DeviceQuestion) -> DeviceAnswer:
        waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return DeviceAnswer(allow=True)

    task = asyncio.create_task(verified(plugin))
    await until(waiting.is_set)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    await turn()
    assert stopped.is_set()


async def test_a_slow_answer_about_one_device_holds_up_no_other() -> None:
    never = asyncio.Event()

    async def plugin(question: DeviceQuestion) -> DeviceAnswer:
        if question.subject == "slow":
            await never.wait()
        return DeviceAnswer(allow=True)

    gate = DeviceStateGate(plugin, 10)
    slow = Claim(issuer="connector-1", subject="slow")
    waiting = asyncio.create_task(gate.ask(asked(holder(), "x"), slow))
    found = await gate.ask(asked(holder(1), "x"), CLAIM)

    assert found.refusal is None
    assert not waiting.done()
    never.set()
    assert (await waiting).refusal is None


# The question


@pytest.fixture
async def world(
    device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey
) -> AsyncIterator[World]:
    async with validating(device, ra, ec_key) as found:
        yield found


@pytest.mark.parametrize(
    ("uri", "device_id"),
    [
        (f"IntuneDeviceId://{GUID}", GUID),
        (f"IntuneDeviceId://{{{GUID}}}", GUID),
        (None, ""),
    ],
)
async def test_the_question_is_what_the_connector_says_and_the_devices_id(
    world: World, uri: str | None, device_id: str
) -> None:
    questions: list[DeviceQuestion] = []

    async def plugin(question: DeviceQuestion) -> DeviceAnswer:
        questions.append(question)
        return DeviceAnswer(allow=True)

    world.accept(by_token(device_state=DeviceStateGate(plugin, 5)))
    names = [tlv(0x86, uri.encode())] if uri else []
    request = await ask(world, holder(), token(), *names)

    assert await judgement(world, request) == "approved"
    assert questions == [
        DeviceQuestion(
            profile=PROFILE,
            issuer=CONNECTOR.name,
            subject=SUBJECT,
            device_name="device",
            device_id=device_id,
        )
    ]


async def test_a_refusal_ends_the_enrollment_under_its_label(world: World) -> None:
    world.accept(by_token(device_state=DeviceStateGate(answering(None), 5)))
    request = await ask(world, holder(), token())

    assert await judgement(world, request) == Reason.DEVICE_STATE_FAILED
    assert getattr(verdict(world, request), "fail_info", None) == 2


async def test_a_device_that_is_healthy_by_now_may_come_again(world: World) -> None:
    """Its next attempt is the same request: the token is still its own."""
    health = {"allow": False}

    async def plugin(_: DeviceQuestion) -> DeviceAnswer:
        return DeviceAnswer(**health)

    world.accept(by_token(device_state=DeviceStateGate(plugin, 5)))
    first = await ask(world, holder(), token())
    assert await judgement(world, first) == Reason.DEVICE_STATE_FAILED
    health["allow"] = True
    second = await ask(world, holder(), token(), attempt=1)

    assert await judgement(world, second) == "approved"


# Where it comes from


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Writes modules that can be imported."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)

    return write


async def test_a_plug_in_is_loaded_by_module_and_attribute(
    plugins: Callable[[str, str], None],
) -> None:
    plugins(
        "healthy_devices",
        "from services.validator.challenges.device_state import DeviceAnswer\n"
        "async def ask(question):\n    return DeviceAnswer(allow=question.subject == 'healthy')\n",
    )
    found = load_device_state("healthy_devices:ask")
    question = DeviceQuestion(PROFILE, "i", "healthy", "", "")

    assert await found(question) == DeviceAnswer(allow=True)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("no_such_module:ask", "cannot be loaded: ModuleNotFoundError"),
        ("device_plugin_a:no_such", "cannot be loaded: AttributeError"),
        ("device_plugin_a:number", "is not an async function"),
        ("device_plugin_a:", "cannot be loaded"),
        ("device_plugin_a", "cannot be loaded"),
        ("", "cannot be loaded"),
        (":ask", "cannot be loaded"),
        ("..:ask", "cannot be loaded"),
        ("device_plugin_b:ask", "cannot be loaded: ZeroDivisionError"),
        ("device_plugin_c:ask", "cannot be loaded: SyntaxError"),
    ],
)
def test_a_plug_in_that_cannot_be_loaded_is_a_sentence(
    plugins: Callable[[str, str], None], place: str, said: str
) -> None:
    plugins("device_plugin_a", "number = 7\n")
    plugins("device_plugin_b", "1 / 0\n")
    plugins("device_plugin_c", "async def ask(:\n")

    with pytest.raises(SettingsError) as error:
        load_device_state(place)
    assert str(error.value).startswith(f"device_state: {place}")
    assert said in str(error.value)
