"""The page of one enrollment: its events in order, who spent the time, and what each says."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.devices import Asked
from tests.browser.past import Past

ISSUED = [
    ("Request recorded", "gateway"),
    ("Approved", "validator"),
    ("Certificate recorded", "issuer"),
    ("Certificate issued", "issuer"),
]


def told(page: Page) -> list[tuple[str, str]]:
    """The steps: (title, service)."""
    steps = page.locator(".timeline .step")
    titles, services = steps.locator("strong"), steps.locator(".quiet")
    return list(zip(titles.all_inner_texts(), services.all_inner_texts(), strict=True))


def fact(page: Page, name: str) -> str:
    rows = page.locator("#facts > div")
    return rows.filter(has=page.get_by_text(name, exact=True)).locator("dd").inner_text()


def test_a_certificate_s_story_is_told_in_order(viewer: Page, past: Past) -> None:
    viewer.goto(past.phone.path("issued"))
    times = viewer.locator(".timeline time")
    stamps = [times.nth(i).get_attribute("datetime") or "" for i in range(times.count())]

    assert told(viewer) == ISSUED
    assert stamps == sorted(stamps)
    assert len(stamps) == len(told(viewer))
    expect(viewer.locator(".timeline .when").first).not_to_contain_text("later")
    for when in viewer.locator(".timeline .when").all_inner_texts()[1:]:
        assert re.search(r"UTC, [\d.]+ (ms|s) later$", when), when
    expect(viewer.locator("#head .badge")).to_have_text("issued")


def test_the_facts_are_those_of_the_request(viewer: Page, past: Past) -> None:
    phone, line = past.phone, past.phone.record("issued")
    viewer.goto(phone.path("issued"))

    assert fact(viewer, "Profile") == "corp"
    assert fact(viewer, "Kind") == "Initial, Intune"
    assert fact(viewer, "Transaction") == phone.transaction
    assert fact(viewer, "Challenge") == "signed"
    assert fact(viewer, "Claimed subject") == f"guid-{phone.name}"
    assert fact(viewer, "Serial") == line["serial"]
    assert int(fact(viewer, "Serial"), 16) == phone.certificate().serial_number
    assert fact(viewer, "Client address") == "127.0.0.1"
    assert fact(viewer, "Enrollment") == line["enrollment"]
    assert f"{phone.certificate().not_valid_after_utc:%Y-%m-%d}" == fact(viewer, "Valid until")


def test_the_time_in_each_service_is_drawn_and_told_in_words(viewer: Page, past: Past) -> None:
    viewer.goto(past.laptop.path("issued"))
    bar = viewer.locator(".spans").get_by_role("img")
    label = bar.get_attribute("aria-label") or ""

    assert re.fullmatch(r"validator [\d.]+ m?s, issuer [\d.]+ m?s", label), label
    expect(bar.locator("rect")).to_have_count(2)
    caption = " ".join(viewer.locator(".spans figcaption").inner_text().split())
    assert caption == label.replace(",", "")
    widths = [float(each.get_attribute("width") or 0) for each in bar.locator("rect").all()]
    assert sum(widths) == pytest.approx(720, abs=1)


@pytest.mark.parametrize(
    ("index", "event", "fact"),
    [
        (0, "EnrollmentRequested", "127.0.0.1"),
        (1, "EnrollmentApproved", "LAPTOP-0142"),
        (3, "CertificateIssued", "serial"),
    ],
)
def test_each_event_tells_its_facts(
    viewer: Page, past: Past, index: int, event: str, fact: str
) -> None:
    viewer.goto(past.laptop.path("issued"))
    details = viewer.locator(".timeline details").nth(index)
    expect(details.locator("dl")).to_be_hidden()
    details.locator("summary").click()

    expect(details.locator("summary")).to_have_text(re.compile(rf"^{event}, \S+ #\d+$"))
    expect(details.locator("dl")).to_be_visible()
    expect(details.locator("dl")).to_contain_text(fact)


@pytest.mark.parametrize(
    ("which", "reason", "step"),
    [
        ("mismatch", "claim_mismatch", ("Rejected", "validator")),
        ("wrong", "challenge_wrong", ("Rejected", "validator")),
    ],
)
def test_a_refusal_says_why(
    viewer: Page, past: Past, which: str, reason: str, step: tuple[str, str]
) -> None:
    asked: Asked = getattr(past, which)
    viewer.goto(asked.path("rejected"))

    expect(viewer.locator(".note.bad")).to_contain_text(f"{reason}: {asked.reply.fail_info_text}")
    expect(viewer.locator("#head .badge.bad")).to_have_text("rejected")
    assert told(viewer)[-1] == step
    expect(viewer.get_by_role("button", name="Revoke")).to_have_count(0)


def test_a_renewal_names_what_it_renews(viewer: Page, past: Past) -> None:
    viewer.goto(past.renewed.path("issued"))

    assert fact(viewer, "Kind") == "Renewal"
    assert past.kiosk.record("issued")["serial"] in fact(viewer, "Renews")


def test_one_that_waits_says_so(viewer: Page, past: Past) -> None:
    viewer.goto(past.held.path("held"))

    expect(viewer.locator("#head .badge.warn")).to_have_text("held")
    assert told(viewer)[-1] == ("Held for an operator", "validator")
    expect(viewer.get_by_role("heading", level=2)).to_contain_text(past.held.name)


def test_no_challenge_is_shown_anywhere(viewer: Page, past: Past) -> None:
    paths = (past.laptop.path("issued"), past.phone.path("issued"), past.wrong.path("rejected"))
    told = "".join(viewer.request.get(path).text() for path in (*paths, "/scep", "/scep/intune"))
    secrets = {past.laptop.endpoint.challenge, "not the password"}

    assert all(secret and secret not in told for secret in secrets)

    assert not re.search(r"eyJ[\w-]+\.[\w-]+\.", told)


def test_what_is_not_there_is_a_page_that_leads_back(viewer: Page) -> None:
    response = viewer.request.get("/scep/enrollments/nothing")

    assert response.status == 404
    assert response.headers["content-type"].startswith("text/html")
    assert 'href="/scep"' in response.text()
