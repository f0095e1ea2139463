"""The page on a small screen and on a large one: nothing sticks out, no word is torn."""

from typing import Final

from playwright.sync_api import expect

from tests.browser.devices import Fleet, unique
from tests.browser.pages import PHONE, TABS, Desktop, opened, ordered
from tests.browser.past import Past
from tests.browser.views import views

# Badges, dates and names of profiles that are taller than a line: texts of them.
TORN: Final = """() => [...document.querySelectorAll(
  ".badge, .pill, time, td[data-name=Profile], td[data-name=Until], th")]
  .filter((each) => each.checkVisibility() && each.textContent.trim())
  .filter((each) => {
    const range = document.createRange();
    range.selectNodeContents(each);
    return new Set([...range.getClientRects()].map((box) => Math.round(box.top / 8))).size > 1;
  }).map((each) => each.textContent.trim())"""


def test_no_page_is_wider_than_a_small_screen(desktop: Desktop, past: Past) -> None:
    desktop.watch.expected.add(404)
    too_wide = {}
    with desktop.page("operator", viewport=PHONE, is_mobile=True, has_touch=True) as page:
        for name in views(page, past):
            width, inner = page.evaluate("[document.scrollingElement.scrollWidth, innerWidth]")
            if width > inner or inner > PHONE["width"]:
                too_wide[name] = (width, inner)
            for dialog in page.locator("dialog[open]").all():
                box = dialog.bounding_box()
                assert box is not None
                assert box["x"] >= 0
                assert box["x"] + box["width"] <= PHONE["width"]

    assert too_wide == {}


def test_nothing_of_a_table_is_cut_off_on_a_small_screen(desktop: Desktop, past: Past) -> None:
    past.held.record("held")
    cut = {}
    with desktop.page("operator", viewport=PHONE) as page:
        for name, path in TABS.items():
            page.goto(path)
            tables = page.locator(".scroll:has(table.stack)")
            wide = tables.evaluate_all("(all) => all.map((e) => e.scrollWidth - e.clientWidth)")
            if any(wide):
                cut[name] = wide

    assert cut == {}


def test_no_badge_date_or_name_is_torn(desktop: Desktop, past: Past) -> None:
    torn: dict[str, list[str]] = {}
    with desktop.page("operator") as page:
        for name, path in (TABS | {"enrollment": past.mismatch.path("rejected")}).items():
            page.goto(path)
            for width in (1024, 1280):
                page.set_viewport_size({"width": width, "height": 860})
                torn[f"{name} {width}"] = sorted(set(page.evaluate(TORN)))

    assert {name: texts for name, texts in torn.items() if texts} == {}


def test_a_small_screen_does_all_that_a_large_one_does(desktop: Desktop, fleet: Fleet) -> None:
    asked = fleet.hold(unique("switch"))
    with desktop.page("operator", viewport=PHONE) as page:
        page.goto("/scep/held")
        row = page.locator("#held tbody tr").filter(has_text=asked.name)
        button = row.get_by_role("button", name="Approve")
        ordered(opened(page, button, "approve"))
        expect(row).to_have_count(0)

    asked.record("issued")
