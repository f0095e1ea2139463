"""Recent activity: chips, filters, search and pages; certificates and who waits."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.past import Past

PAGE = 50


def shown(page: Page) -> list[str]:
    """The devices of the table, from the top."""
    return page.locator("#activity tbody tr td[data-name=Device]").all_inner_texts()


@pytest.mark.parametrize(
    ("chip", "there", "missing"),
    [
        ("All", ["laptop", "phone", "renewed", "wrong"], []),
        ("Initial", ["laptop", "phone", "mismatch"], ["renewed"]),
        ("Renewal", ["renewed"], ["laptop", "phone", "kiosk"]),
        ("Intune", ["phone", "mismatch", "tablet"], ["laptop", "renewed"]),
        ("Static", ["laptop", "wrong", "renewed"], ["phone", "mismatch"]),
    ],
)
def test_a_chip_leaves_one_kind(
    viewer: Page, past: Past, chip: str, there: list[str], missing: list[str]
) -> None:
    def rows(name: str, state: str = "") -> int:
        asked = getattr(past, name)
        viewer.goto(f"{address}&state={state}&search={asked.transaction}")
        return viewer.locator("#activity").get_by_role("link", name=asked.name).count()

    viewer.goto("/scep?tab=activity")
    viewer.get_by_role("navigation", name="Kind").get_by_role("link", name=chip).click()
    expect(viewer.locator(".chips [aria-current]")).to_have_text(chip)
    address = viewer.url

    assert {name: rows(name) for name in there} == dict.fromkeys(there, 1)
    assert {name: rows(name) for name in missing} == dict.fromkeys(missing, 0)


def test_a_device_is_found_by_its_name_serial_and_transaction(viewer: Page, past: Past) -> None:
    serial = past.laptop.record("issued")["serial"]
    viewer.goto("/scep?tab=activity&chip=static")
    for wanted in (
        past.laptop.name,
        past.laptop.name.lower()[:-1],
        serial,
        past.laptop.transaction,
    ):
        viewer.get_by_role("searchbox").fill(wanted)
        viewer.get_by_role("button", name="Show").click()
        expect(viewer.get_by_role("searchbox")).to_have_value(wanted)
        expect(viewer.locator("#activity tbody tr")).to_have_count(1)
        row = viewer.locator("#activity tbody tr")
        for text in (past.laptop.name, serial, past.laptop.transaction, "demo", "issued"):
            expect(row).to_contain_text(text)
        expect(viewer.locator(".chips [aria-current]")).to_have_text("Static")


def test_profile_and_state_are_filters_that_stand_in_the_address(viewer: Page, past: Past) -> None:
    viewer.goto("/scep?tab=activity")
    viewer.get_by_label("Profile").select_option("demo")
    viewer.get_by_label("State").select_option("rejected")
    viewer.get_by_role("button", name="Show").click()

    expect(viewer).to_have_url(re.compile("profile=demo&state=rejected"))
    row = viewer.locator("#activity tbody tr")
    expect(row).to_have_count(1)
    expect(row).to_contain_text(past.wrong.name)
    expect(row).to_contain_text("challenge_wrong")
    expect(viewer.get_by_label("State")).to_have_value("rejected")


def test_what_fits_nothing_is_said(viewer: Page) -> None:
    viewer.goto("/scep?tab=activity&search=nobody-is-called-so")

    expect(viewer.locator("#activity tbody")).to_contain_text("No enrollments match")
    expect(viewer.get_by_role("navigation", name="Pages")).to_have_count(0)


def test_a_search_is_text_and_never_a_page(viewer: Page) -> None:
    said = '"><img src=x onerror=alert(1)>'
    viewer.goto("/scep?tab=activity")
    viewer.get_by_role("searchbox").fill(said)
    viewer.get_by_role("button", name="Show").click()

    expect(viewer.get_by_role("searchbox")).to_have_value(said)
    expect(viewer.locator("img")).to_have_count(0)


def test_older_ones_are_on_the_next_page_and_newest_leads_back(viewer: Page, past: Past) -> None:
    viewer.goto("/scep?tab=activity&profile=legacy")
    first = shown(viewer)
    viewer.get_by_role("link", name="Older").click()
    expect(viewer.get_by_role("link", name="Newest")).to_be_visible()
    second = shown(viewer)

    assert len(first) == PAGE
    assert sorted(f"CN={name}" for name in past.scanners) == sorted(first + second)
    expect(viewer.get_by_label("Profile")).to_have_value("legacy")
    expect(viewer.get_by_role("link", name="Older")).to_have_count(0)
    viewer.reload()
    assert shown(viewer) == second
    viewer.get_by_role("link", name="Newest").click()
    expect(viewer.get_by_role("link", name="Newest")).to_have_count(0)
    assert shown(viewer) == first


def test_certificates_have_pages_too(viewer: Page, past: Past) -> None:
    viewer.goto("/scep/certificates?profile=legacy")
    rows = viewer.locator("#certificates tbody tr")
    expect(rows).to_have_count(PAGE)
    expect(rows.locator(".badge.good")).to_have_text(["good"] * PAGE)
    viewer.get_by_role("link", name="Older").click()

    expect(rows).to_have_count(len(past.scanners) - PAGE)


def test_a_certificate_leads_to_its_enrollment(viewer: Page, past: Past) -> None:
    viewer.goto("/scep/certificates?profile=branch")
    viewer.locator("#certificates").get_by_role("link", name=past.tablet.name).click()

    expect(viewer).to_have_url(re.compile(re.escape(past.tablet.path("issued")) + "$"))


def test_who_waits_is_listed_and_counted(viewer: Page, past: Past) -> None:
    viewer.goto("/scep/held")
    row = viewer.locator("#held tbody tr").filter(has_text=past.held.name)

    expect(row).to_have_count(1)
    expect(row).to_contain_text("manual")
    expect(row).to_contain_text("127.0.0.1")
    expect(viewer.locator("#held-count")).to_have_text(
        str(viewer.locator("#held tbody tr").count())
    )
    expect(viewer.locator("#letter-count")).to_be_hidden()
    viewer.goto("/scep/dead-letters")
    expect(viewer.locator("#letters tbody")).to_contain_text("No dead letters.")
