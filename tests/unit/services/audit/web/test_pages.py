"""Pages over whatever stands in the database: escaped, kept by nobody, errors as people read them.

And what a session of the page is good for at the API.
"""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest
from sqlalchemy import Engine

from cli.up.firststart import first_start
from cli.up.layout import Layout
from services.audit.api.tenants import describe_tenants
from services.audit.record.write import store
from services.audit.roles import Level, Operator
from services.audit.store.api_tokens import add_token
from services.audit.web.chart import draw
from services.audit.web.rendering import VERSION, PageUser, page
from shared.config.load import load
from shared.log.envelope import Message
from shared.log.events.certificates import CertificateStatus
from shared.log.events.commands import RetryOrdered, RevocationReason
from shared.log.events.enrollment import EnrollmentHeld
from shared.log.events.state import Heartbeat, TenantReport
from shared.log.stages import Stage
from shared.log.streams import CERTS, OPS
from shared.log.subjects import (
    api_token_created,
    certificate_issued,
    certificate_status,
    one_time_created,
    possible_orphan,
    retry_command,
    revocation_answer,
    revocation_command,
)
from shared.text.printable import HIDDEN
from tests.support.operator_api import TOKEN, Browser, browser
from tests.support.world import NOW
from tests.unit.services.audit.stories import (
    STREAM,
    approved,
    enrollment,
    event,
    issued,
    requested,
    stored,
)

SCRIPT: Final = "<script>alert(1)</script>"
EVIL: Final = f"\"'>{SCRIPT}<img src=x onerror=alert(1)>{{{{7*7}}}}&amp;"
ENROLLMENT: Final = enrollment(1).prefix()
HELD: Final = enrollment(2).prefix()
PROBLEM: Final = "application/problem+json"
HTML: Final = "text/html; charset=utf-8"
PAGES: Final = (
    "/scep", "/scep?tab=intune", "/scep?tab=intune&profile=corp&reach=7d", "/scep?tab=activity",
    "/scep?tab=activity&chip=intune&state=held", "/scep/intune", "/scep/held",
    "/scep/certificates", "/scep/certificates?profile=corp", "/scep/dead-letters", "/scep/orphans",
    "/scep/certificates?view=superseded&fleet=corp&issuer=local&days=7",
    "/scep/commands", "/scep/commands?operator=helpdesk&kind=revoke", "/scep/rate-limited",
    f"/scep/enrollments/{ENROLLMENT}", f"/scep/enrollments/{HELD}",
)  # fmt: skip
# How often EVIL is to be seen there, at least.
SHOWN: Final = {
    "/scep?tab=activity": 4, "/scep?tab=intune": 2, "/scep/held": 4, "/scep/certificates": 1,
    "/scep/dead-letters": 1, "/scep/orphans": 2, "/scep/commands": 6,
    f"/scep/enrollments/{ENROLLMENT}": 6, f"/scep/enrollments/{HELD}": 6,
}  # fmt: skip
ADDRESSES: Final = (
    "/scep?tab=activity&search={}", "/scep?tab=activity&profile={}", "/scep?tab=activity&chip={}",
    "/scep?tab=activity&state={}", "/scep?tab=activity&cursor={}", "/scep?tab=intune&profile={}",
    "/scep?tab=intune&reach={}", "/scep?tab={}", "/scep/certificates?profile={}",
    "/scep/certificates?view={}", "/scep/certificates?fleet={}", "/scep/certificates?issuer={}",
    "/scep/certificates?days={}", "/scep/certificates?cursor={}",
    "/scep/enrollments/{}", "/scep/commands?operator={}", "/scep/commands?kind={}",
    "/scep/commands?cursor={}", "/scep/rate-limited?profile={}", "/scep/{}", "/{}",
    "/static/{}/page.css", "/login?next={}", "/login?next=/scep/{}",
)  # fmt: skip
PLANTED: Final = (
    b"", b"\xff\x00", b"null", b'{"a": NaN}', b'{"a": "\\ud800"}', b"[" * 10_000,
    b'{"a": ' + b"9" * 5000 + b"}",
)  # fmt: skip


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `up` makes at its first start: demo, legacy, and corp with Intune."""
    layout = Layout(tmp_path_factory.mktemp("pages") / "data")
    first_start(layout, "ec:p256", None, 4222, NOW)
    return layout.config


@pytest.fixture
def deps(engine: Engine, config: Path) -> Browser:
    """An admin who is signed in."""
    found = browser(engine, lambda: load(config, {}))
    assert found.sign_in().status_code == 303
    return found


class Read(HTMLParser):
    """The tags of a page and the texts that a reader sees, attributes among them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.texts += [value for _, value in attrs if value]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def is_safe(page: str) -> Read:
    """That nothing of EVIL became a part of the page, as a browser reads it."""
    found = Read(page)
    assert [attrs["src"] for tag, attrs in found.tags if tag == "script"] == [
        f"/static/{VERSION}/page.js"
    ]
    assert "img" not in {tag for tag, _ in found.tags}
    assert not [name for _, attrs in found.tags for name in attrs if name.startswith("on")]
    assert SCRIPT not in page
    assert "49" not in "".join(text for text in found.texts if "7*7" in text)
    return found


def fill(engine: Engine) -> None:
    """Two devices, one of them held, a certificate and a dead letter, whose every text is EVIL."""
    held = event("EnrollmentHeld")
    assert isinstance(held, EnrollmentHeld)
    golden = held.facts
    values = {name: getattr(golden, name) for name in golden.__struct_fields__}
    facts = type(golden)(**values | {"subject": f"CN={EVIL}", "sans": (EVIL,), "device_id": EVIL})
    rejected = event("EnrollmentRejected", facts=facts, detail=EVIL)
    told: dict[str, Any] = {"client_address": EVIL, "gateway": EVIL, "transaction_id": EVIL}
    store(
        engine,
        STREAM,
        [
            requested(1, 1, **told),
            stored(2, enrollment(1).subject(Stage.VERDICT), rejected),
            requested(3, 2, **told),
            stored(4, enrollment(2).subject(Stage.HOLD), event("EnrollmentHeld", facts=facts)),
        ],
    )
    made = event("CertificateRecorded", enrollment=ENROLLMENT, serial="ab", subject=f"CN={EVIL}")
    store(engine, CERTS, [stored(1, "cert.local.ab.issued", made)])
    letter = event("DeadLetter", stream=SCRIPT, subject=f"enroll.{EVIL}.request", role="issuer")
    store(engine, "DEAD", [stored(1, "dead.issuer.ENROLL_0.1", letter)])
    orphan = event("OrphanSettled", enrollment=ENROLLMENT, detail=EVIL, operator=EVIL)
    store(engine, CERTS, [stored(9, possible_orphan("corp", "0" * 32, 0), orphan)])
    order = revocation_command("local", "ab", 0)
    commands = (
        (order, event("RevocationOrdered", operator=EVIL)),
        (revocation_answer(order), event("CommandAnswered", done=False, detail=EVIL)),
        (one_time_created("corp", "x"), event("ChallengeCreated", operator=EVIL, cn=EVIL)),
        (api_token_created("x", "y"), event("ApiTokenCreated", operator=EVIL, name=EVIL)),
    )
    store(engine, OPS, [stored(1 + i, *each) for i, each in enumerate(commands)])


# Whatever stands in the database


def test_every_page_escapes_whatever_stands_in_the_database(
    deps: Browser, engine: Engine, subtests: pytest.Subtests
) -> None:
    fill(engine)
    for path in PAGES:
        with subtests.test(path):
            found = deps.get(path)
            assert found.status_code == 200, found.text
            is_safe(found.text)


def test_what_a_validator_says_of_a_tenant_is_escaped() -> None:
    report = TenantReport(
        connection="contoso", tenant=EVIL, cloud=EVIL, credential_kind=EVIL, credential=1,
        token_error=EVIL, last_error=EVIL, last_error_at=1, calls={EVIL: 1}, pull_error=EVIL,
    )  # fmt: skip
    beat = Heartbeat(role="validator", name=EVIL, since=0, anchors={}, tenants=(report,))
    tenants = describe_tenants({"windows": "contoso"}, {}, [beat], NOW)
    shown = page(
        "intune.html",
        who=PageUser(Operator("desk", Level.ADMIN), "csrf"),
        here="intune",
        waiting={"held": 0, "letters": 0, "orphans": 0},
        profile_count=1,
        generated_at="",
        tenants=tenants,
        profiles=[],
        names=["windows"],
        profile="",
        reach="24h",
        results=(),
        failures=[],
        chart=draw([], "24h", NOW),
    )
    found = is_safe(bytes(shown.body).decode())

    assert sum(EVIL in text for text in found.texts) >= 7


def test_what_is_escaped_is_read_as_it_was_written(
    deps: Browser, engine: Engine, subtests: pytest.Subtests
) -> None:
    """Else a page that shows nothing would be safe as well."""
    fill(engine)
    for path, times in SHOWN.items():
        with subtests.test(path):
            told = [text for text in is_safe(deps.get(path).text).texts if EVIL in text]
            assert len(told) >= times


def test_a_page_holds_nothing_that_hides_or_turns_text_around(
    deps: Browser, engine: Engine
) -> None:
    name = "CN=\u202egpj.exe\x1b\x85\u2066"
    held = approved(4, 2, name)
    made = event("CertificateRecorded", enrollment=ENROLLMENT, serial="ab", subject=name)
    store(engine, STREAM, [requested(3, 2, transaction_id=name), held])
    store(engine, CERTS, [stored(1, "cert.local.ab.issued", made)])
    for path in (*PAGES, f"/scep/enrollments/{HELD}", f"/scep?tab=activity&search={quote(name)}"):
        found = deps.get(path).text
        assert not HIDDEN.search(found.replace("\n", "")), path
    assert "<bdi>CN=\\u202egpj.exe\\x1b" in deps.get(f"/scep/enrollments/{HELD}").text


def test_nothing_in_an_address_becomes_a_part_of_the_page(
    deps: Browser, subtests: pytest.Subtests
) -> None:
    for address in ADDRESSES:
        with subtests.test(address):
            found = deps.get(address.format(quote(EVIL, safe="")))
            assert found.status_code in (200, 400, 404)
            if found.headers["content-type"] == HTML:
                is_safe(found.text)


def test_the_name_of_who_is_signed_in_is_escaped(engine: Engine, config: Path) -> None:
    found = browser(engine, lambda: load(config, {}))
    add_token(engine, EVIL[:64], Level.VIEWER, f"{TOKEN}-2", 0)
    found.sign_in(f"{TOKEN}-2")
    read = is_safe(found.get("/scep/held").text)

    assert EVIL[:64] in read.texts


def test_an_enrollment_is_told_whatever_somebody_planted_among_its_events(
    deps: Browser, engine: Engine, subtests: pytest.Subtests
) -> None:
    """What is no event of ours is kept as it is, and `audit verify` names it."""
    for number, payload in enumerate(PLANTED):
        planted = stored(
            2 * number + 2, enrollment(number).subject(Stage.OUTCOME), Message(payload, {})
        )
        store(engine, STREAM, [requested(2 * number + 1, number), planted])
    for number, payload in enumerate(PLANTED):
        for path in ("/scep/enrollments/", "/api/v1/enrollments/"):
            with subtests.test(path, payload=payload[:20]):
                assert deps.get(f"{path}{enrollment(number).prefix()}").status_code == 200


def test_details_that_only_the_log_has_are_said_to_be_missing_while_it_is_away(
    deps: Browser, engine: Engine
) -> None:
    """No event of these is on the log of the test."""
    fill(engine)
    read = is_safe(deps.get(f"/scep/enrollments/{ENROLLMENT}").text)
    missing = "Only the event log has the details. It does not answer, or has another event there."
    events = deps.get(f"/api/v1/enrollments/{ENROLLMENT}").json()["events"]

    assert [event["payload"] is None for event in events[:2]] == [True, True]
    assert read.texts.count(missing) == sum(event["payload"] is None for event in events)


# Headers


@pytest.mark.parametrize("signed_in", [True, False])
def test_every_page_has_its_policy_and_is_kept_by_nobody(
    deps: Browser, engine: Engine, subtests: pytest.Subtests, *, signed_in: bool
) -> None:
    fill(engine)
    if not signed_in:
        deps.cookies.clear()
    others = ("/login", "/nothing", "/scep/enrollments/x", "/scep?tab=x", "/static/x/y")
    for path in (*PAGES, *others):
        with subtests.test(path):
            headers = deps.get(path).headers
            said = headers["content-security-policy"]
            policy = dict(part.strip().split(" ", 1) for part in said.split(";"))
            assert headers["content-type"] == HTML
            assert headers["cache-control"] == "no-store"
            assert headers["x-content-type-options"] == "nosniff"
            assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
            assert policy["script-src"] == policy["form-action"] == "'self'"
            assert policy["base-uri"] == "'none'"
            assert "unsafe" not in said


def test_a_page_has_no_script_or_style_of_its_own(deps: Browser, engine: Engine) -> None:
    """The policy would keep them from working."""
    fill(engine)
    for path in PAGES:
        read = Read(deps.get(path).text)
        assert not [attrs for _, attrs in read.tags if "style" in attrs]
        assert "style" not in {tag for tag, _ in read.tags}


@pytest.mark.parametrize("name", ["page.css", "page.js", "icon.svg"])
def test_script_and_style_are_kept_under_their_version_alone(deps: Browser, name: str) -> None:
    now, other = deps.get(f"/static/{VERSION}/{name}"), deps.get(f"/static/other/{name}")

    assert "immutable" in now.headers["cache-control"]
    assert other.headers["cache-control"] == "no-store"
    assert now.content == other.content


def test_no_host_header_is_a_failure_of_ours(deps: Browser, subtests: pytest.Subtests) -> None:
    deps.cookies.clear()
    for host in ("[", "a b", "", "evil/x", "x:y", "\u00fc", "evil@x", "[::1"):
        for path in ("/scep", "/login", "/api/v1/enrollments", "/nothing"):
            with subtests.test(path, host=host):
                found = deps.get(path, headers={"host": host.encode()})
                assert found.status_code < 500


# Attempts


def test_the_attempts_of_a_request_lead_to_each_other(deps: Browser, engine: Engine) -> None:
    first, second = enrollment(1), enrollment(1).at(1)
    again = stored(3, second.subject(Stage.REQUEST), event("EnrollmentRequested"))
    store(engine, STREAM, [requested(1, 1), requested(2, 2), again])
    links = [
        (attrs["href"], attrs.get("aria-current"))
        for tag, attrs in Read(deps.get(f"/scep/enrollments/{second.prefix()}").text).tags
        if tag == "a" and (attrs.get("href") or "").startswith("/scep/enrollments/")
    ]

    assert links == [
        (f"/scep/enrollments/{first.prefix()}", None),
        (f"/scep/enrollments/{second.prefix()}", "true"),
    ]
    assert 'id="attempts"' not in deps.get(f"/scep/enrollments/{enrollment(2).prefix()}").text


# What is offered


def offered(page: str) -> list[tuple[str, list[str]]]:
    """The dialogs that buttons open, each with the reasons that it sends."""
    opened = [
        (attrs["data-dialog"] or "", attrs.get("data-reason"))
        for tag, attrs in Read(page).tags
        if tag == "button" and "data-dialog" in attrs
    ]
    reasons = {}
    for part in page.split("<dialog ")[1:]:
        name = part.split('"')[1]
        reasons[name] = [each.split("</option>")[0] for each in part.split("<option>")[1:]]
    return [(name, [reason] if reason else reasons[name]) for name, reason in opened]


HOLD, RELEASE = RevocationReason.CERTIFICATE_HOLD, RevocationReason.REMOVE_FROM_CRL
FOR_GOOD: Final = [each.value for each in RevocationReason if each not in (HOLD, RELEASE)]
FROM_GOOD: Final = [("revoke", [each.value for each in RevocationReason if each is not RELEASE])]
FROM_EXPIRED: Final = [("revoke-expired", [RevocationReason.KEY_COMPROMISE.value])]
FROM_HELD: Final = [("release", [RELEASE.value]), ("revoke-held", FOR_GOOD)]


@pytest.mark.parametrize(
    ("status", "reason", "until", "badge", "wanted"),
    [
        (None, None, 86400, "good", FROM_GOOD),
        (CertificateStatus.HELD, HOLD, 86400, "on hold", FROM_HELD),
        (CertificateStatus.RELEASED, RELEASE, 86400, "good", FROM_GOOD),
        (CertificateStatus.REVOKED, RevocationReason.SUPERSEDED, 86400, "superseded", []),
        (CertificateStatus.REVOKED, RevocationReason.SUPERSEDED, -1, "superseded", []),
        (None, None, -1, "expired", FROM_EXPIRED),
        (CertificateStatus.HELD, HOLD, -1, "expired", FROM_EXPIRED),
    ],
)  # fmt: skip
def test_a_certificate_is_offered_for_what_can_be_ordered_of_it(
    deps: Browser,
    engine: Engine,
    status: CertificateStatus | None,
    reason: RevocationReason | None,
    until: int,
    badge: str,
    wanted: list[tuple[str, list[str]]],
) -> None:
    enrolled = enrollment(1)
    store(engine, STREAM, [requested(1, 1), approved(2, 1), issued(3, 1, "4a")])
    recorded = event(
        "CertificateRecorded", enrollment=enrolled.prefix(), serial="4a", not_after=NOW + until
    )
    told = [stored(1, certificate_issued("local", "4a"), recorded)]
    if status is not None:
        changed = event("CertificateStatusChanged", serial="4a", status=status, reason=reason)
        told.append(stored(2, certificate_status("local", "4a", 0), changed))
    store(engine, CERTS, told)
    for path in ("/scep/certificates", f"/scep/enrollments/{enrolled.prefix()}"):
        found = deps.get(path).text
        assert offered(found) == wanted, path
    assert badge in deps.get("/scep/certificates").text


def test_a_late_device_is_marked_and_listed(deps: Browser, engine: Engine) -> None:
    """By the windows of the configuration: a sixth of a year for `demo`."""
    for sequence, (serial, days) in enumerate((("0a", 60), ("0b", 62)), 1):
        end = int(NOW) + days * 86400
        found = event(
            "CertificateRecorded", serial=serial, renews="", subject=f"CN={serial}",
            enrollment=enrollment(sequence, "demo").prefix(),
            not_before=end - 366 * 86400, not_after=end,
        )  # fmt: skip
        store(engine, CERTS, [stored(sequence, certificate_issued("local", serial), found)])
    late = deps.get("/scep/certificates?view=not_renewed").text
    whole = deps.get("/scep/certificates").text

    assert ("CN=0a" in late, "CN=0b" in late) == (True, False)
    assert whole.count('<span class="badge warn">should have renewed</span>') == 1
    found = deps.get("/api/v1/certificates?view=not_renewed&fleet=demo").json()["certificates"]
    assert [(row["serial"], row["state"], row["not_renewed"]) for row in found] == [
        ("0a", "valid", True)
    ]


def test_a_letter_names_its_retry_as_the_enrollments_page_numbers_it(
    deps: Browser, engine: Engine
) -> None:
    first = enrollment(1)
    letter = event("DeadLetter", stream=STREAM, sequence=1, subject=first.subject(Stage.REQUEST))
    store(engine, "DEAD", [stored(1, f"dead.validator.{STREAM}.1", letter)])
    order = RetryOrdered(
        stream=STREAM, sequence=1, enrollment=first.prefix(), attempt=1, operator="op"
    )
    store(engine, OPS, [stored(1, retry_command(first.at(1)), order)])

    assert "retried as attempt 2" in deps.get("/scep/dead-letters").text


def test_a_decision_is_offered_for_what_is_held_alone(deps: Browser, engine: Engine) -> None:
    fill(engine)

    assert [name for name, _ in offered(deps.get(f"/scep/enrollments/{HELD}").text)] == [
        "approve", "deny",
    ]  # fmt: skip
    assert offered(deps.get(f"/scep/enrollments/{ENROLLMENT}").text) == []
