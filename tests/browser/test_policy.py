"""What browsers are told they may do with the pages, and that the watch over them sees."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.pages import Desktop, Watch
from tests.browser.past import Past
from tests.browser.views import addresses
from tests.support.system import wait_until

STRICT = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}


def policy(header: str) -> dict[str, str]:
    """Directive to sources."""
    parts = (part.strip().partition(" ") for part in header.split(";"))
    return {name: sources for name, _, sources in parts}


def test_every_page_has_the_strict_policy(viewer: Page, past: Past) -> None:
    for path in addresses(past).values():
        check(viewer.request.get(path).headers)


def check(headers: dict[str, str]) -> None:
    """That they are as strict as can be."""
    found = policy(headers["content-security-policy"])

    assert STRICT.items() <= found.items()
    assert not any("unsafe" in sources or "*" in sources for sources in found.values())
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] in ("same-origin", "no-referrer")


def test_script_and_style_are_kept_by_browsers_under_their_version(viewer: Page) -> None:
    viewer.goto("/scep")
    for selector, name in (("script", "src"), ('link[rel="stylesheet"]', "href")):
        path = viewer.locator(selector).get_attribute(name) or ""
        headers = viewer.request.get(path).headers
        assert "immutable" in headers["cache-control"]
        assert headers["x-content-type-options"] == "nosniff"


def test_a_page_without_script_shows_everything(desktop: Desktop) -> None:
    with desktop.page("viewer", java_script_enabled=False) as page:
        page.goto("/scep?tab=intune")
        expect(page.locator("#counters-corp > div")).to_have_count(11)
        expect(page.locator("#chart svg")).to_be_visible()
        expect(page.locator("#failures tbody tr").first).to_be_visible()
        assert "<noscript>" in page.request.get("/scep").text()


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("document.body.setAttribute('style', 'color: red')", "policy: style-src"),
        (
            "document.body.append(Object.assign(document.createElement('script'), {text: 'x'}))",
            "policy: script-src",
        ),
        ("console.error('seen')", "error: seen"),
        ("setTimeout(() => { throw new Error('seen') })", "page: seen"),
        ("fetch('https://evil.example/').catch(() => 0)", "policy: connect-src"),
    ],
)
def test_the_watch_sees_what_is_wrong(
    viewer: Page, watch: Watch, script: str, complaint: str
) -> None:
    viewer.goto("/scep")
    assert watch.take() == []
    viewer.evaluate(f"() => {{ {script} }}")

    def seen() -> bool:
        viewer.evaluate("1")  # what the browser says meanwhile comes with the answer
        return any(each.startswith(complaint) for each in watch.complaints)

    wait_until(seen, 5, complaint)
    viewer.close()
    watch.take()
