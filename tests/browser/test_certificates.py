"""The inventory of certificates: its views, and what it looks like."""

from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Page, expect

from tests.browser.pages import DESKTOP, PHONE, Desktop
from tests.browser.past import Past


def serial(number: int) -> str:
    text = f"{number:x}"
    return text.rjust(len(text) + len(text) % 2, "0")


def test_a_renewed_certificate_is_shown_as_superseded_by_its_renewal(
    viewer: Page, past: Past
) -> None:
    old = serial(past.kiosk.certificate().serial_number)
    new = serial(past.renewed.certificate().serial_number)
    viewer.goto("/scep/certificates?profile=kiosks")
    rows = viewer.locator("#certificates tbody tr")
    expect(rows.locator(".badge")).to_have_text(["good", "superseded"])
    expect(rows.nth(1)).to_contain_text(f"renewed as {new}")
    views = viewer.get_by_role("navigation", name="View")
    for view, expected in (("Superseded", [old]), ("Valid", [new]), ("Revoked", [])):
        views.get_by_role("link", name=view).click()
        expect(views.locator("[aria-current]")).to_have_text(view)
        expect(viewer.get_by_label("Profile")).to_have_value("kiosks")
        expect(rows.locator("a")).to_have_count(len(expected))
        for each in expected:
            expect(rows.first).to_contain_text(each)
    expect(rows).to_have_text("No certificates match.")


def test_those_that_expire_are_listed_within_the_days_that_are_asked_for(
    viewer: Page, past: Past
) -> None:
    viewer.goto("/scep/certificates?view=expiring&profile=kiosks")
    rows = viewer.locator("#certificates tbody tr")
    expect(rows).to_have_text("No certificates match.")
    viewer.get_by_label("Within days").fill("400")
    viewer.get_by_role("button", name="Show").click()

    expect(rows).to_have_count(1)
    expect(rows).to_contain_text(serial(past.renewed.certificate().serial_number))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE["width"], 1440])
@pytest.mark.usefixtures("past")
def test_the_inventory_fits_small_and_large_screens(
    desktop: Desktop, pictures: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    size = {"width": width, "height": DESKTOP["height"]}
    with desktop.page("operator", viewport=size, color_scheme=scheme) as page:
        page.goto("/scep/certificates?view=expiring&days=400&fleet=kiosks")
        page.screenshot(path=pictures / f"expiring-{width}-{scheme}.png", full_page=True)
        page.goto("/scep/certificates?profile=kiosks")
        page.screenshot(path=pictures / f"certificates-{width}-{scheme}.png", full_page=True)
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
