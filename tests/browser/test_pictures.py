"""Pictures of the page as the documents show it; with `--screenshots DIR` they are kept."""

import struct
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import expect

from tests.browser.pages import DESKTOP, Desktop, opened
from tests.browser.past import Past
from tests.browser.png import small

MOST_BYTES: Final = 120_000
# Readers of the documents have no directory of tests: show where a package would put the files.
_INSTALLED: Final = """() => {
    for (const cell of document.querySelectorAll("td, td *")) {
        for (const node of cell.childNodes) {
            if (node.nodeType === Node.TEXT_NODE) {
                node.data = node.data.replace(/\\/\\S*?\\/data\\//, "/var/lib/scepstream/");
            }
        }
    }
}"""


@pytest.mark.parametrize(
    "name", ["profiles", "intune", "activity", "enrollment", "modal", "commands"]
)
def test_the_page_is_shown(desktop: Desktop, past: Past, pictures: Path, name: str) -> None:
    paths = {
        "profiles": "/scep",
        "intune": "/scep?tab=intune",
        "activity": "/scep?tab=activity",
        "enrollment": past.phone.path("issued"),
        "modal": "/scep?tab=intune&profile=corp",
        "commands": "/scep/commands",
    }
    with desktop.page("operator", color_scheme="light", device_scale_factor=1) as page:
        page.goto(paths[name])
        if name == "enrollment":
            page.locator(".timeline summary").nth(1).click()
        if name == "modal":
            opened(page, page.get_by_role("button", name="Reload trust of corp"), "reload")
        expect(page.get_by_role("heading", level=2).first).to_be_attached()
        page.evaluate(_INSTALLED)
        taken = page.screenshot(animations="disabled", caret="hide")
        page.goto("about:blank")
        picture = small(page, taken)
    (pictures / f"{name}.png").write_bytes(picture)

    assert struct.unpack(">II", picture[16:24]) == (DESKTOP["width"], DESKTOP["height"])
    assert 10_000 < len(picture) < MOST_BYTES
