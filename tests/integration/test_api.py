"""The operators' API on a running system: who may, what is told, what an order does."""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import httpx
import pytest
from cryptography import x509

from shared.scep.certrep import PkiStatus
from tests.integration.test_revocation import fetched
from tests.support.prepared import add_profiles, command, prepared
from tests.support.requests import Device, Endpoint, ask, ended, enroll, recorded
from tests.support.system import System, running, wait_until
from tests.support.tokens import token

PROBLEM: Final = "application/problem+json"
LEVELS: Final = ("viewer", "operator", "admin")
# Every route, and the least level it wants; paths are such that nothing is changed by asking.
ROUTES: Final[dict[tuple[str, str], str]] = {
    ("GET", "/api/v1/admin/scep/profiles"): "viewer",
    ("GET", "/api/v1/admin/scep/intune/stats"): "viewer",
    ("GET", "/api/v1/admin/scep/intune/tenants"): "viewer",
    ("POST", "/api/v1/admin/scep/intune/reload-trust"): "operator",
    ("POST", "/api/v1/admin/scep/reload-ra"): "operator",
    ("GET", "/api/v1/enrollments"): "viewer",
    ("GET", "/api/v1/audit"): "viewer",
    ("GET", "/api/v1/commands"): "viewer",
    ("GET", "/api/v1/enrollments/{enrollment}"): "viewer",
    ("POST", "/api/v1/enrollments/{enrollment}/approve"): "operator",
    ("POST", "/api/v1/enrollments/{enrollment}/deny"): "operator",
    ("GET", "/api/v1/devices/rate-limited"): "viewer",
    ("GET", "/api/v1/certificates"): "viewer",
    ("GET", "/api/v1/certificates/{issuer}/{serial}"): "viewer",
    ("POST", "/api/v1/certificates/{issuer}/{serial}/revoke"): "operator",
    ("GET", "/api/v1/challenges"): "viewer",
    ("POST", "/api/v1/challenges"): "operator",
    ("DELETE", "/api/v1/challenges/{profile}/{challenge}"): "operator",
    ("GET", "/api/v1/orphans"): "viewer",
    ("POST", "/api/v1/orphans/{issuer}/{key}/settle"): "operator",
    ("GET", "/api/v1/dead-letters"): "viewer",
    ("POST", "/api/v1/dead-letters/{stream}/{sequence}/retry"): "operator",
}


@dataclass(frozen=True)
class Api:
    """The API of a system, asked with one token."""

    url: str
    token: str | None

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request on a connection of its own, past any proxy of the machine."""
        headers = {"authorization": f"Bearer {self.token}"} if self.token is not None else {}
        with httpx.Client(timeout=60.0, trust_env=False, headers=headers) as client:
            return client.request(method, self.url + path, **options)

    def get(self, path: str, **params: Any) -> Any:
        """What a good question is answered."""
        found = self.ask("GET", path, params=params)
        assert found.status_code == 200, found.text
        return found.json()

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self.ask("POST", path, json=body)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    layout = prepared(tmp_path_factory.mktemp("api") / "data")
    add_profiles(layout, {"manual": {"approval": "manual"}})
    with running(layout.root, "--validators", "2") as found:
        yield found


@pytest.fixture(scope="module")
def tokens(system: System) -> dict[str, str]:
    """A token of each level, the admin's as `up` tells it."""
    made = {
        level: command(
            "audit", "token", "add", f"a-{level}", "--level", level, "--config", str(system.config)
        ).stdout.strip()
        for level in ("viewer", "operator")
    }
    return made | {"admin": system.run["admin_token"]}


@pytest.fixture(scope="module")
def viewer(system: System, tokens: dict[str, str]) -> Api:
    return Api(system.run["admin_url"], tokens["viewer"])


@pytest.fixture(scope="module")
def operator(system: System, tokens: dict[str, str]) -> Api:
    return Api(system.run["admin_url"], tokens["operator"])


def is_problem(response: httpx.Response, status: int) -> str:
    """That it is one, and its sentence."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM
    found = response.json()
    assert found["status"] == status
    return str(found["detail"])


# Who may


def test_the_document_tells_every_route_and_this_test_knows_them(viewer: Api) -> None:
    document = viewer.get("/api/v1/openapi.json")
    told = {(m.upper(), path) for path, item in document["paths"].items() for m in item}

    assert told == ROUTES.keys()
    for item in document["paths"].values():
        for operation in item.values():
            assert operation["security"]
            assert {"400", "401", "403", "503"} <= operation["responses"].keys()
            assert "422" not in operation["responses"]
            for status, response in operation["responses"].items():
                kind = PROBLEM if int(status) >= 400 else "application/json"
                assert response["content"].keys() == {kind}


@pytest.mark.parametrize("given", [None, "wrong", "é" * 20, "x" * 10_000])
@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_nothing_is_told_without_a_token(
    viewer: Api, route: tuple[str, str], given: str | None
) -> None:
    raw = None if given is None else f"Bearer {given}".encode()
    headers = [] if raw is None else [(b"authorization", raw)]
    found = Api(viewer.url, None).ask(*route, headers=headers)

    is_problem(found, 401)
    assert found.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_a_level_is_enough_or_not(
    system: System, tokens: dict[str, str], route: tuple[str, str], level: str
) -> None:
    found = Api(system.run["admin_url"], tokens[level]).ask(*route)

    if LEVELS.index(level) < LEVELS.index(ROUTES[route]):
        assert level in is_problem(found, 403)
    else:
        assert found.status_code in (200, 400, 404), found.text


def test_a_token_taken_back_is_none(system: System, viewer: Api) -> None:
    config = ("--config", str(system.config))
    made = command("audit", "token", "add", "gone", *config).stdout.strip()
    api = Api(viewer.url, made)
    assert api.get("/api/v1/dead-letters") == {"dead_letters": []}
    assert command("audit", "token", "revoke", "gone", *config).returncode == 0

    is_problem(api.ask("GET", "/api/v1/dead-letters"), 401)
    again = command("audit", "token", "add", "gone", *config)
    assert (again.returncode, again.stderr) == (
        1,
        "the API token name gone is or was in use; choose another\n",
    )
    twice = command("audit", "token", "revoke", "gone", *config)
    assert (twice.returncode, twice.stderr) == (1, "no valid API token named gone\n")
    assert "gone" in command("audit", "token", "list", *config).stdout


def test_tokens_are_kept_as_digests_alone(system: System, tokens: dict[str, str]) -> None:
    address = f"file:{system.data / 'audit.db'}?mode=ro"
    with closing(sqlite3.connect(address, uri=True)) as connection:
        kept = {row[0] for row in connection.execute("select sha256 from tokens")}
        dump = "\n".join(connection.iterdump())

    assert {hashlib.sha256(each.encode()).hexdigest() for each in tokens.values()} <= kept
    assert not any(each in dump for each in tokens.values())


# What is told


@pytest.fixture(scope="module")
def enrolled(system: System) -> list[Device]:
    """Five devices on demo, in this order."""
    demo, devices = Endpoint.of(system), [Device.new() for _ in range(5)]
    for device in devices:
        enroll(demo, device)
        recorded(system, device, "issued")
    return devices


def test_pages_tell_each_enrollment_once_newest_first(viewer: Api, enrolled: list[Device]) -> None:
    pages, cursor = [], {}
    while True:
        page = viewer.get("/api/v1/enrollments", profile="demo", limit=2, **cursor)
        pages.append(page["enrollments"])
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    told = [row["transaction_id"] for page in pages for row in page]

    assert [len(page) for page in pages[:-1]] == [2] * (len(pages) - 1)
    ours = [device.transaction.decode() for device in reversed(enrolled)]
    assert [each for each in told if each in ours] == ours
    assert len(told) == len(set(told))


def test_a_device_is_found_by_its_name_and_its_events_are_told(
    viewer: Api, enrolled: list[Device]
) -> None:
    device = enrolled[2]
    for wanted in (device.name, device.name.upper(), device.name[:-3], device.transaction.decode()):
        found = viewer.get("/api/v1/enrollments", search=wanted)["enrollments"]
        assert device.transaction.decode() in {row["transaction_id"] for row in found}
    name = found[0]["enrollment"]
    one = viewer.get(f"/api/v1/enrollments/{name}")

    assert one["enrollment"] == found[0]
    types = [event["type"] for event in one["events"]]
    assert types[:2] == ["EnrollmentRequested", "EnrollmentApproved"]
    assert types[-1] == "CertificateIssued"
    assert all(event["payload"] for event in one["events"])


def test_filters_leave_out_what_is_not_meant(viewer: Api, enrolled: list[Device]) -> None:
    for wanted in ({"state": "rejected"}, {"profile": "corp"}, {"action": "scep_renewalreq"}):
        found = viewer.get("/api/v1/enrollments", search=enrolled[0].name, **wanted)
        assert found == {"enrollments": [], "next": None}


@pytest.mark.usefixtures("enrolled")
def test_the_audit_filters_by_action_and_its_total_is_the_total(
    system: System, viewer: Api
) -> None:
    corp, device = Endpoint.of(system, "corp"), Device.new()
    enroll(corp, device, csr=device.csr(token(system, device)))
    recorded(system, device, "issued")
    (last,) = viewer.get("/api/v1/enrollments", search=device.name)["enrollments"]
    until = last["requested_at"] + 1  # all of these have ended before
    every = viewer.get("/api/v1/audit", limit=500, until=until)
    assert every["total"] == len(every["entries"])
    for action in ("scep_pkcsreq", "scep_pkcsreq_intune", "scep_renewalreq"):
        found = viewer.get("/api/v1/audit", action=action, limit=1, until=until)
        fitting = [entry for entry in every["entries"] if entry["action"] == action]
        assert found["total"] == len(fitting)
        assert found["entries"] == fitting[:1]
    signed = viewer.get("/api/v1/audit", action="scep_pkcsreq_intune")["entries"]
    assert device.transaction.decode() in {entry["transaction_id"] for entry in signed}


BAD_QUERIES: Final = (
    "cursor=nonsense", "cursor=WzEsMl0", "cursor=WzEsIlx1ZDgwMCJd", "cursor=WzEsIlx1MDAwMCJd",
    "limit=0", "limit=501", "limit=x", "since=-1", "since=9223372036854775808", "state=lost",
    "search=%00", "profile=a%00", f"search={'x' * 256}",
)  # fmt: skip


@pytest.mark.parametrize("query", BAD_QUERIES)
def test_a_bad_question_is_a_problem(viewer: Api, query: str) -> None:
    is_problem(viewer.ask("GET", f"/api/v1/enrollments?{query}"), 400)


@pytest.mark.parametrize("path", ["certificates/demo/00", "enrollments/x", "nothing", "/", ""])
def test_what_is_not_there_is_a_problem(viewer: Api, path: str) -> None:
    is_problem(viewer.ask("GET", f"/api/v1/{path}"), 404)


def intune_of(viewer: Api) -> list[dict[str, Any]]:
    """What is told of the profiles with signed challenges."""
    found = viewer.get("/api/v1/admin/scep/profiles")["profiles"]
    return [each["intune"] for each in found if "intune" in each]


def test_profiles_are_described(system: System, viewer: Api) -> None:
    (before,) = intune_of(viewer)
    corp, device = Endpoint.of(system, "corp"), Device.new()
    enroll(corp, device, csr=device.csr(token(system, device)))
    again = Device.new()
    ask(corp, again.enrollment(corp, again.csr("not.a.token")))
    recorded(system, device, "issued")
    recorded(system, again, "rejected")
    found = viewer.get("/api/v1/admin/scep/profiles")
    profiles = {each["path_id"]: each for each in found["profiles"]}

    assert found["profile_count"] == len(profiles) == len(system.run["profiles"])
    assert "intune" not in profiles["demo"]
    assert profiles["demo"]["challenge_password_set"]
    assert profiles["demo"]["ra_cert_days_to_expiry"] > 0
    intune = profiles["corp"]["intune"]
    for result in ("success", "malformed"):
        assert intune["counters"][result] == before["counters"][result] + 1
    assert intune["replay_cache_size"] == before["replay_cache_size"] + 1
    assert profiles["corp"]["replicas"]["gateways"] == ["gateway-0"]
    assert not intune["trust_anchors"][0]["expired"]
    assert len(profiles["corp"]["replicas"]["validators"]) == 2
    assert profiles["corp"]["replicas"]["agree"]
    stats = viewer.get("/api/v1/admin/scep/intune/stats")["profiles"]
    assert {row["path_id"]: row["enabled"] for row in stats}["corp"]


# What an order does


def test_a_held_device_gets_its_certificate_when_an_operator_says_so(
    system: System, operator: Api
) -> None:
    manual, device = Endpoint.of(system, "manual"), Device.new()
    ask(manual, request := device.enrollment(manual))
    recorded(system, device, "held")
    (row,) = operator.get("/api/v1/enrollments", search=device.name, state="held")["enrollments"]
    path = f"/api/v1/enrollments/{row['enrollment']}"
    assert operator.post(f"{path}/approve", note="seen").json()["done"]

    assert ended(manual, request).status is PkiStatus.SUCCESS
    recorded(system, device, "issued")
    assert operator.get(path)["enrollment"]["operator"] == "a-operator"
    assert "already been decided" in is_problem(operator.post(f"{path}/deny"), 409)


def test_a_held_device_that_is_denied_is_refused(system: System, operator: Api) -> None:
    manual, device = Endpoint.of(system, "manual"), Device.new()
    ask(manual, request := device.enrollment(manual))
    recorded(system, device, "held")
    (row,) = operator.get("/api/v1/enrollments", search=device.name)["enrollments"]
    assert operator.post(f"/api/v1/enrollments/{row['enrollment']}/deny", note="lost").is_success

    assert ended(manual, request).status is PkiStatus.FAILURE


def test_what_is_not_held_is_not_decided(operator: Api, enrolled: list[Device]) -> None:
    name = enrolled[0].transaction.decode()
    (row,) = operator.get("/api/v1/enrollments", search=name)["enrollments"]
    is_problem(operator.post(f"/api/v1/enrollments/{row['enrollment']}/approve"), 409)
    for path in ("nothing", "enroll.0.demo.*.%3E.0"):
        is_problem(operator.post(f"/api/v1/enrollments/{path}/approve"), 404)


def test_a_revoked_certificate_is_on_the_crl_when_the_api_answers(
    system: System, operator: Api
) -> None:
    certificate = enroll(Endpoint.of(system), device := Device.new())
    recorded(system, device, "issued")
    row = operator.get("/api/v1/certificates", profile="demo", limit=1)["certificates"][0]
    assert int(row["serial"], 16) == certificate.serial_number
    path = f"/api/v1/certificates/{row['issuer']}/{row['serial']}"
    colons = ":".join(row["serial"][i : i + 2] for i in range(0, len(row["serial"]), 2))
    for written in (row["serial"], colons.upper(), f"0x{certificate.serial_number:x}"):
        assert operator.get(f"/api/v1/certificates/{row['issuer']}/{written}") == row
    done = operator.post(f"{path}/revoke", reason="keyCompromise")

    assert done.is_success, done.text
    listed = fetched(system).get_revoked_certificate_by_serial_number(certificate.serial_number)
    assert listed is not None
    reason = listed.extensions.get_extension_for_class(x509.CRLReason).value.reason
    assert reason is x509.ReasonFlags.key_compromise
    wait_until(lambda: operator.get(path)["revoked_at"], 30, "the revocation in the read model")
    for other, status in (("77", 404), ("no-number", 400), ("-1", 400), ("%C2%A2", 400)):
        is_problem(operator.post(f"/api/v1/certificates/{row['issuer']}/{other}/revoke"), status)
    is_problem(operator.post(f"{path}/revoke", reason="boredom"), 400)


def test_a_one_time_challenge_enrolls_one_device(system: System, operator: Api) -> None:
    corp, device, late = Endpoint.of(system, "corp"), Device.new(), Device.new()
    made = operator.post("/api/v1/challenges", profile="corp", ttl=600)
    assert made.status_code == 201, made.text
    told = made.json()
    enroll(corp, device, csr=device.csr(told["challenge"]))
    reply = ask(corp, late.enrollment(corp, late.csr(told["challenge"])))
    assert reply.status is PkiStatus.FAILURE
    lines = operator.get("/api/v1/challenges", profile="corp")["challenges"]

    assert {line["id"]: line["state"] for line in lines}[told["id"]] == "used"
    assert {line["operator"] for line in lines if line["id"] == told["id"]} == {"a-operator"}
    gone = operator.ask("DELETE", f"/api/v1/challenges/corp/{told['id']}")
    assert "already used" in is_problem(gone, 409)


def test_a_challenge_taken_back_enrolls_nobody(system: System, operator: Api) -> None:
    corp, device = Endpoint.of(system, "corp"), Device.new()
    told = operator.post("/api/v1/challenges", profile="corp").json()
    assert operator.ask("DELETE", f"/api/v1/challenges/corp/{told['id']}").is_success

    refused = ask(corp, device.enrollment(corp, device.csr(told["challenge"])))
    assert refused.status is PkiStatus.FAILURE


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"profile": "demo"}, 409), ({"profile": "none"}, 404), ({}, 400),
        ({"profile": "corp", "ttl": 0}, 400), ({"profile": "corp", "more": 1}, 400),
        ({"profile": "corp", "sans": ["printer"]}, 400),
        ({"profile": "corp", "ttl": 10**30}, 400), ({"profile": ["corp"]}, 400),
    ],
)  # fmt: skip
def test_a_challenge_that_cannot_be_is_not_made(
    operator: Api, body: dict[str, Any], status: int
) -> None:
    is_problem(operator.post("/api/v1/challenges", **body), status)


def test_anchors_are_read_anew_on_every_validator(operator: Api) -> None:
    done = operator.post("/api/v1/admin/scep/intune/reload-trust", path_id="corp")

    assert done.status_code == 200, done.text
    assert done.json()["reloaded"]
    assert [each["reloaded"] for each in done.json()["replicas"]] == [True, True]
    for path_id, status in (("demo", 409), ("none", 404), ("x" * 64, 400)):
        reload = operator.post("/api/v1/admin/scep/intune/reload-trust", path_id=path_id)
        is_problem(reload, status)


def test_broken_anchors_are_kept_out_and_told(system: System, operator: Api) -> None:
    anchors = (
        system.data
        / operator.get("/api/v1/admin/scep/intune/stats")["profiles"][0]["trust_anchor_path"]
    )
    before = anchors.read_bytes()
    try:
        anchors.write_bytes(before[: len(before) // 2])
        told = operator.post("/api/v1/admin/scep/intune/reload-trust", path_id="corp")
    finally:
        anchors.write_bytes(before)

    assert "did not confirm the reload" in is_problem(told, 502)
    assert all(each["error"] for each in told.json()["replicas"])


def test_another_method_is_told_those_there_are(viewer: Api) -> None:
    found = viewer.ask("PUT", "/api/v1/challenges")

    is_problem(found, 405)
    assert found.headers["allow"] == "GET, POST"


def test_health_and_metrics_stay_where_they_were(viewer: Api) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert Api(viewer.url, None).ask("GET", path).is_success


def test_bodies_that_are_no_json_are_problems(operator: Api) -> None:
    for content in (b"", b"{", b"\xff", b"[" * 60_000, b'"x"', b'{"profile": "\\ud800"}'):
        headers = {"content-type": "application/json"}
        sent = operator.ask("POST", "/api/v1/challenges", content=content, headers=headers)
        is_problem(sent, 400)
