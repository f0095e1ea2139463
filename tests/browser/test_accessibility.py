"""The page by keyboard, by screen reader, in the dark, and on a small screen."""

import re
from itertools import pairwise
from typing import Any, Final

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.devices import Fleet, unique
from tests.browser.pages import Desktop, opened
from tests.browser.past import Past
from tests.browser.views import DIALOGS, addresses, views

AXE: Final = Axe()
TAGS: Final = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
# What a scheme can change is judged in both, all else once.
RULES: Final[dict[str, dict[str, Any]]] = {
    "light": {"type": "tag", "values": TAGS},
    "dark": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]},
}
CONTROLS: Final = (
    "a[href], button, input:not([type=hidden]), select, summary, [tabindex='0'], dialog[open]"
)
# The ids of what Tab should reach, in the document's order; each is given one for the purpose.
NUMBER: Final = """(selector) => {
  const modal = document.querySelector("dialog[open]");
  const all = [...(modal ?? document).querySelectorAll(selector)];
  const found = all.filter((each) => !each.disabled && each.checkVisibility());
  found.forEach((each, i) => { each.dataset.number = String(i); });
  return found.length;
}"""


# Texts of less than 4.5 to 1 on the ground behind them, also where axe does not judge.
CONTRAST: Final = """() => {
  const parts = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => parts(color).slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (each) => {
    for (let up = each; up; up = up.parentElement) {
      const color = getComputedStyle(up).backgroundColor;
      if (parts(color)[3] !== 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  return [...document.querySelectorAll("body *:not(svg *)")]
    .filter((each) => each.checkVisibility() && !each.disabled)
    .filter((each) => [...each.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .map((each) => {
      const [a, b] = [light(getComputedStyle(each).color), light(ground(each))];
      return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), each.textContent.trim()];
    }).filter(([ratio]) => ratio < 4.5).map(([ratio, text]) => `${ratio.toFixed(2)}: ${text}`);
}"""


def broken_rules(page: Page, scheme: str) -> list[str]:
    """Rules that axe finds broken, and texts that are hard to read."""
    options = {"runOnly": RULES[scheme], "resultTypes": ["violations"]}
    told = AXE.run(page, options=options).response
    broken = [
        f"{each['id']}: {node['target']} {node['failureSummary'][:300]}"
        for each in told["violations"]
        for node in each["nodes"]
    ]
    return [*broken, *page.evaluate(CONTRAST)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_any_page_or_dialog(desktop: Desktop, past: Past, scheme: str) -> None:
    desktop.watch.expected.add(404)
    with desktop.page("operator", color_scheme=scheme, bypass_csp=True) as page:
        found = {name: broken_rules(page, scheme) for name in views(page, past)}

    assert {name: rules for name, rules in found.items() if rules} == {}


def test_light_and_dark_are_two_pages(desktop: Desktop) -> None:
    grounds = set()
    for scheme in ("light", "dark"):
        with desktop.page("viewer", color_scheme=scheme) as page:
            page.goto("/scep")
            grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    assert len(grounds) == 2


def test_every_control_has_a_name(operator: Page, desktop: Desktop, past: Past) -> None:
    desktop.watch.expected.add(404)
    for name in views(operator, past):
        controls = operator.locator(CONTROLS).locator("visible=true")
        for control in controls.all()[:25]:
            expect(control, name).to_have_accessible_name(re.compile(r"\S"), timeout=500)


def test_pages_have_one_main_heading_and_no_level_is_left_out(
    operator: Page, desktop: Desktop, past: Past
) -> None:
    desktop.watch.expected.add(404)
    for name, path in addresses(past).items():
        operator.goto(path)
        tags = operator.locator("main, h1, h2, h3, h4").evaluate_all(
            "(all) => all.filter((e) => e.checkVisibility()).map((e) => e.tagName)"
        )
        levels = [int(tag[1]) for tag in tags if tag != "MAIN"]
        assert (levels.count(1), tags.count("MAIN")) == (1, 1), name
        assert levels[0] == 1, name
        assert all(b - a <= 1 for a, b in pairwise(levels)), (name, levels)


# By keyboard


def numbers(page: Page, count: int) -> list[str]:
    """What the next so many Tabs reach."""
    found = []
    for _ in range(count):
        page.keyboard.press("Tab")
        found.append(page.evaluate("document.activeElement.dataset.number ?? 'none'"))
    return found


def test_tab_reaches_every_control_in_the_order_of_the_text(
    operator: Page, desktop: Desktop, past: Past
) -> None:
    desktop.watch.expected.add(404)
    paths = addresses(past) | {"activity": "/scep?tab=activity&search=KIOSK-LOBBY-2"}
    paths["certificates"] = "/scep/certificates?profile=branch"
    for name, path in paths.items():
        operator.goto(path)
        count = operator.evaluate(NUMBER, CONTROLS)
        first = int(operator.evaluate("document.activeElement.dataset.number ?? '-1'")) + 1
        reached = numbers(operator, count - first)
        assert reached == [str(i) for i in range(first, count)], name
        assert reached


def test_what_has_the_focus_is_seen(operator: Page) -> None:
    operator.goto("/scep")
    for _ in range(6):
        operator.keyboard.press("Tab")
        style = operator.evaluate("getComputedStyle(document.activeElement).outline")
        assert "solid" in style, style
        assert "0px" not in style, style


def test_the_skip_link_leads_past_the_head(operator: Page) -> None:
    operator.goto("/scep")
    operator.keyboard.press("Tab")
    link = operator.get_by_role("link", name="Skip to the content")
    expect(link).to_be_focused()
    expect(link).to_be_in_viewport()
    operator.keyboard.press("Enter")
    expect(operator.get_by_role("main")).to_be_focused()
    operator.keyboard.press("Tab")

    assert operator.evaluate("document.querySelector('main').contains(document.activeElement)")


@pytest.mark.parametrize("name", DIALOGS)
def test_a_dialog_keeps_the_focus_and_gives_it_back(operator: Page, past: Past, name: str) -> None:
    path, label = DIALOGS[name](past)
    operator.goto(path)
    button = operator.get_by_role("button", name=label)
    button.focus()
    operator.keyboard.press("Enter")
    dialog = operator.locator(f"dialog#{name}")
    expect(dialog).to_be_visible()
    expect(dialog).to_have_accessible_name(re.compile(r"\S"))
    within = "document.querySelector('dialog[open]').contains(document.activeElement)"
    assert operator.evaluate(within)
    count = operator.evaluate(NUMBER, CONTROLS)
    reached = numbers(operator, 2 * count + 2)
    assert set(reached) - {"none"} == {str(i) for i in range(count)}
    assert not operator.evaluate("document.querySelector('main *:focus:not(dialog *)')")
    operator.keyboard.press("Escape")

    expect(dialog).to_be_hidden()
    expect(button).to_be_focused()


def test_the_focus_is_not_lost_when_an_order_takes_its_button_away(
    operator: Page, fleet: Fleet
) -> None:
    asked = fleet.hold(unique("switch"))
    operator.goto("/scep/held")
    row = operator.locator("#held tbody tr").filter(has_text=asked.name)
    dialog = opened(operator, row.get_by_role("button", name="Approve"), "approve")
    dialog.locator('[type="submit"]').click()
    expect(dialog.get_by_role("button", name="Close")).to_be_focused()
    expect(row).to_have_count(0)
    operator.keyboard.press("Enter")
    expect(dialog).to_be_hidden()

    expect(operator.locator("body *:focus")).to_have_count(1)


def test_an_order_is_given_by_keyboard_alone(operator: Page, fleet: Fleet) -> None:
    asked = fleet.hold(unique("switch"))
    operator.goto(asked.path("held"))
    operator.get_by_role("button", name="Approve").focus()
    operator.keyboard.press("Enter")
    operator.keyboard.type("by hand")
    operator.keyboard.press("Enter")
    dialog = operator.locator("dialog#approve")

    expect(dialog.get_by_role("alert")).to_have_class(re.compile("good"))
    expect(dialog.get_by_role("button", name="Close")).to_be_focused()
    asked.record("issued")
