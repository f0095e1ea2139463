"""Every change that operators make is on the log: who, what, about what, and what came of it."""

from collections.abc import Iterator
from itertools import count
from typing import Any, Final

import pytest

from services.audit.store.commands import Command
from tests.integration.test_api import Api
from tests.support.prepared import add_profiles, command, prepared
from tests.support.requests import Device, Endpoint, ask, ended, enroll, recorded
from tests.support.system import System, running, wait_until

_NAMES: Final = count()


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    layout = prepared(tmp_path_factory.mktemp("commands") / "data")
    add_profiles(layout, {"manual": {"approval": "manual"}})
    with running(layout.root, "--validators", "2", "--gateways", "2") as found:
        yield found


def config(system: System) -> tuple[str, str]:
    return "--config", str(system.config)


@pytest.fixture
def operator() -> str:
    """Somebody whose commands are those of one test."""
    return f"operator-{next(_NAMES)}"


@pytest.fixture
def api(system: System, operator: str) -> Api:
    """As this one uses it."""
    arguments = ("audit", "token", "add", operator, "--level", "operator", *config(system))
    return Api(system.run["admin_url"], command(*arguments).stdout.strip())


def ordered(api: Api, **wanted: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.get("/api/v1/commands", **wanted)["commands"]
    return found


def told(api: Api, number: int, **wanted: Any) -> list[dict[str, Any]]:
    """The commands once there are so many and each has its result."""

    def settled() -> list[dict[str, Any]]:
        found = ordered(api, **wanted)
        there = all(each["result"] != "waiting" for each in found)
        return found if len(found) >= number and there else []

    return wait_until(settled, 20, f"{number} commands with results")


def held(system: System, api: Api) -> tuple[Device, str]:
    """A device that waits, and the API's path to its enrollment."""
    manual, device = Endpoint.of(system, "manual"), Device.new()
    ask(manual, device.enrollment(manual))
    recorded(system, device, "held")
    (row,) = api.get("/api/v1/enrollments", search=device.name)["enrollments"]
    return device, f"/api/v1/enrollments/{row['enrollment']}"


def test_every_order_is_told_with_who_and_what_and_its_result(
    system: System, api: Api, operator: str
) -> None:
    demo, device = Endpoint.of(system), Device.new()
    enroll(demo, device)
    recorded(system, device, "issued")
    (row,) = api.get("/api/v1/enrollments", search=device.name)["enrollments"]
    (yes, welcome), (no, unwelcome) = held(system, api), held(system, api)
    challenge = api.post("/api/v1/challenges", profile="corp", cn="printer-7").json()["id"]
    answers = [
        api.ask("DELETE", f"/api/v1/challenges/corp/{challenge}"),
        api.post(f"{welcome}/approve", note="seen"),
        api.post(f"{unwelcome}/deny", note="lost"),
        api.post(f"/api/v1/certificates/local/{row['serial']}/revoke", reason="superseded"),
        api.post("/api/v1/admin/scep/intune/reload-trust", path_id="corp"),
        api.post("/api/v1/admin/scep/reload-ra", path_id="demo"),
    ]
    assert [answer.status_code for answer in answers] == [200] * len(answers)

    found = told(api, 7, operator=operator)
    about = {each["kind"]: (each["about"], each["note"], each["answered"]) for each in found}
    assert about == {
        Command.CREATE_CHALLENGE: (challenge, "printer-7", 0),
        Command.CANCEL_CHALLENGE: (challenge, None, 0),
        Command.APPROVE: (None, "seen", 0),
        Command.DENY: (None, "lost", 0),
        Command.REVOKE: (f"local {row['serial']}", "superseded", 1),
        Command.RELOAD_TRUST: (None, None, 2),
        Command.RELOAD_RA: (None, None, 2),
    }
    assert {each["result"] for each in found} == {"done"}
    devices = {each["kind"]: each["device"] for each in found if each["enrollment"]}
    assert devices == {Command.APPROVE: f"CN={yes.name}", Command.DENY: f"CN={no.name}"}


def test_tokens_are_orders_too_and_the_first_is_the_services_own(
    system: System, api: Api, operator: str
) -> None:
    made = command("audit", "token", "add", "short", *config(system)).stdout.strip()
    assert command("audit", "token", "revoke", "short", *config(system)).returncode == 0

    def about(kind: Command) -> dict[str, str]:
        return {each["about"]: each["note"] for each in ordered(api, kind=kind)}

    assert wait_until(lambda: about(Command.REVOKE_TOKEN), 20, "the token's end") == {"short": None}
    levels = {"admin": "admin", operator: "operator", "short": "viewer"}
    assert levels.items() <= about(Command.CREATE_TOKEN).items()
    every = ordered(api, limit=500)
    by = {each["about"]: each["operator"] for each in every if each["kind"] == "create-token"}
    assert by["admin"] == "scepstream"
    assert by["short"] == by[operator] != "scepstream"
    assert made not in str(every)


def test_a_reload_that_some_refuse_says_how_many_and_why(system: System, api: Api) -> None:
    earlier = len(ordered(api, kind=Command.RELOAD_TRUST))
    path = system.data / "connector" / "connector.pem"
    before = path.read_bytes()
    path.write_bytes(before[: len(before) // 2])
    try:
        answer = api.post("/api/v1/admin/scep/intune/reload-trust", path_id="corp")
    finally:
        path.write_bytes(before)
    assert answer.status_code == 502

    def last() -> dict[str, Any]:
        found = ordered(api, kind=Command.RELOAD_TRUST)
        return found[0] if len(found) > earlier and found[0]["answered"] == 2 else {}

    last_one = wait_until(last, 20, "both answers")
    assert (last_one["result"], last_one["refused"]) == ("refused", 2)
    assert "connector.pem" in last_one["detail"]


def test_what_was_too_late_was_not_ordered(system: System, api: Api) -> None:
    device, path = held(system, api)
    assert api.post(f"{path}/deny", note="first").status_code == 200
    assert api.post(f"{path}/approve").status_code == 409
    manual = Endpoint.of(system, "manual")
    assert "first" in ended(manual, device.enrollment(manual)).fail_info_text
    recorded(system, device, "rejected")

    enrollment = path.rpartition("/")[2]
    found = [each for each in ordered(api) if each["enrollment"] == enrollment]
    assert [(each["kind"], each["note"]) for each in found] == [("deny", "first")]


def test_all_that_was_ordered_verifies_and_replays(system: System, api: Api, operator: str) -> None:
    assert api.post("/api/v1/admin/scep/reload-ra", path_id="demo").status_code == 200
    assert told(api, 1, operator=operator)
    done = command("audit", "verify", "--all", *config(system))

    assert done.returncode == 0, done.stdout


def test_statuses_say_whether_a_command_is_malformed_unknown_or_in_conflict(
    system: System, api: Api
) -> None:
    demo, device = Endpoint.of(system), Device.new()
    enroll(demo, device)
    recorded(system, device, "issued")
    (row,) = api.get("/api/v1/enrollments", search=device.name)["enrollments"]
    unknown = row["enrollment"].rpartition(".")[0] + ".99"

    def status(path: str, **values: str) -> int:
        return api.post(f"/api/v1/{path}", **values).status_code

    assert status(f"enrollments/{row['enrollment']}/approve") == 409
    assert status(f"enrollments/{unknown}/approve") == 404
    assert status("certificates/local/0123/revoke", reason="superseded") == 404
    assert status("certificates/local/not-hex/revoke", reason="superseded") == 400
