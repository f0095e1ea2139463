"""What is fetched anew comes without a reload: focus, scrolling and open details stay."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.devices import Fleet, unique
from tests.browser.pages import Desktop, focused
from tests.browser.past import Past, add_token, take_back
from tests.support.system import System

SMALL = {"width": 1000, "height": 400}


@pytest.fixture
def timed(desktop: Desktop) -> Iterator[Page]:
    """A small page whose clock the test turns on."""
    with desktop.page("operator", viewport=SMALL) as page:
        page.clock.install()
        yield page


def success(page: Page) -> int:
    """How often a challenge of corp was good, as the page shows it."""
    return int(page.locator("#counters-corp dd").first.inner_text())


def mark(page: Page) -> None:
    """A reload would lose this."""
    page.evaluate("window.mark = 1")


def is_marked(page: Page) -> bool:
    return bool(page.evaluate("window.mark === 1"))


@pytest.mark.usefixtures("past")
def test_refresh_now_brings_new_counters_and_keeps_focus_and_place(
    timed: Page, fleet: Fleet
) -> None:
    timed.goto("/scep?tab=intune&profile=corp")
    mark(timed)
    before = success(timed)
    asked = fleet.refuse("malformed", unique("PHONE"))
    fleet.intune(unique("PHONE"))
    timed.locator("#refresh").focus()
    timed.evaluate("window.scrollTo(0, 350)")
    timed.keyboard.press("Enter")

    expect(timed.locator("#counters-corp dd").first).to_have_text(str(before + 1))
    expect(timed.locator("#failures")).to_contain_text(asked.name)
    expect(timed.get_by_role("status")).to_have_text("Refreshed.")
    assert focused(timed) == "refresh"
    assert timed.evaluate("window.scrollY") == 350
    assert is_marked(timed)


@pytest.mark.usefixtures("past")
def test_counters_come_anew_after_30_seconds_and_failures_after_60(
    timed: Page, fleet: Fleet
) -> None:
    timed.goto("/scep?tab=intune&profile=corp")
    mark(timed)
    before = success(timed)
    fleet.intune(unique("PHONE"))
    asked = fleet.refuse("expired", unique("PHONE"))
    timed.clock.fast_forward(31_000)
    expect(timed.locator("#counters-corp dd").first).to_have_text(str(before + 1))
    expect(timed.locator("#failures")).not_to_contain_text(asked.name)
    timed.clock.fast_forward(31_000)

    expect(timed.locator("#failures")).to_contain_text(asked.name)
    assert is_marked(timed)


def test_a_focused_link_of_a_table_that_grows_stays_focused_in_its_place(
    timed: Page, fleet: Fleet, past: Past
) -> None:
    timed.goto("/scep?tab=intune&profile=corp")
    link = timed.locator("#failures").get_by_role("link", name=past.mismatch.name)
    link.focus()
    timed.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    place, top, chosen = focused(timed), timed.evaluate("scrollY"), link.get_attribute("id")
    asked = fleet.refuse("malformed", unique("PHONE"))
    timed.clock.fast_forward(61_000)
    expect(timed.locator("#failures")).to_contain_text(asked.name)

    assert focused(timed) == place == chosen
    assert timed.evaluate("scrollY") == pytest.approx(top, abs=1)


def test_a_focused_button_of_a_row_stays_focused(timed: Page, fleet: Fleet) -> None:
    asked = fleet.hold(unique("switch"))
    timed.goto("/scep/held")
    row = timed.locator("#held tbody tr").filter(has_text=asked.name)
    row.get_by_role("button", name="Deny").focus()
    other = fleet.hold(unique("switch"))
    timed.clock.fast_forward(31_000)
    expect(timed.locator("#held")).to_contain_text(other.name)

    assert focused(timed).startswith("Deny ")
    assert asked.name in focused(timed)


def test_an_order_s_result_stays_in_its_dialog_while_the_page_comes_anew(
    timed: Page, fleet: Fleet
) -> None:
    asked = fleet.hold(unique("switch"))
    timed.goto(asked.path("held"))
    timed.get_by_role("button", name="Approve").click()
    dialog = timed.locator("dialog#approve")
    dialog.get_by_label("Note").fill("half a sen")
    fleet.hold(unique("switch"))
    timed.clock.fast_forward(61_000)
    expect(timed.locator("#held-count")).to_be_visible()

    expect(dialog).to_be_visible()
    expect(dialog.get_by_label("Note")).to_have_value("half a sen")
    expect(dialog.get_by_label("Note")).to_be_focused()


def test_open_details_stay_open(timed: Page, fleet: Fleet) -> None:
    asked = fleet.hold(unique("switch"))
    timed.goto(asked.path("held"))
    timed.locator(".timeline summary").first.click()
    expect(timed.locator(".timeline details").first).to_have_attribute("open", "")
    timed.evaluate("document.querySelector('#times').dataset.old = ''")
    timed.clock.fast_forward(31_000)
    expect(timed.locator("#times[data-old]")).to_have_count(0)

    expect(timed.locator(".timeline details").first).to_have_attribute("open", "")
    expect(timed.locator(".timeline summary").first).to_be_focused()


def test_an_older_page_does_not_change_under_its_reader(timed: Page, past: Past) -> None:
    timed.goto("/scep?tab=activity&profile=legacy")
    timed.get_by_role("link", name="Older").click()
    expect(timed.get_by_role("link", name="Newest")).to_be_visible()

    assert len(past.scanners) > 50
    expect(timed.locator("#activity[data-every]")).to_have_count(0)


def test_who_is_signed_out_is_told_by_the_next_refresh(desktop: Desktop, system: System) -> None:
    token = add_token(system, name := unique("short"), "viewer")
    with desktop.page() as page:
        page.goto("/login")
        page.get_by_label("Token").fill(token)
        page.keyboard.press("Enter")
        expect(page.locator("#refresh")).to_be_visible()
        take_back(system, name)
        page.locator("#refresh").click()
        expect(page.get_by_role("status")).to_contain_text("Session expired")


def test_a_service_that_is_away_is_said_and_what_was_shown_stays(timed: Page) -> None:
    timed.goto("/scep")
    cards = timed.locator(".card").count()
    timed.route("**/scep", lambda route: route.fulfill(status=200, body="<p>half"))
    timed.locator("#refresh").click()
    expect(timed.get_by_role("status")).not_to_be_empty()

    expect(timed.locator(".card")).to_have_count(cards)
