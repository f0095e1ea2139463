"""A browser over a running system: who is signed in, and what the browser complains of."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    StorageState,
    WebError,
    expect,
)
from playwright.sync_api import Request as PageRequest

DESKTOP: Final = {"width": 1280, "height": 860}
PHONE: Final = {"width": 360, "height": 740}
TABS: Final = {
    "profiles": "/scep",
    "intune": "/scep?tab=intune",
    "activity": "/scep?tab=activity",
    "held": "/scep/held",
    "certificates": "/scep/certificates",
    "commands": "/scep/commands",
    "dead letters": "/scep/dead-letters",
    "orphans": "/scep/orphans",
    "rate-limited devices": "/scep/rate-limited",
}
_STATUS: Final = re.compile(r"Failed to load resource: .* status of (\d{3})")
_TELL: Final = """
document.addEventListener("securitypolicyviolation", (event) =>
  complain(`${event.violatedDirective} against ${event.blockedURI}`));
"""


@dataclass
class Watch:
    """What browsers complain of; a test says which failed answers it means to see."""

    url: str
    complaints: list[str] = field(default_factory=list)
    expected: set[int] = field(default_factory=set)
    requests: int = 0

    def over(self, context: BrowserContext) -> None:
        """Look at all that a context does."""
        context.on("console", self._console)
        context.on("weberror", self._error)
        context.on("request", self._request)
        context.expose_binding("complain", self._violation)
        context.add_init_script(_TELL)

    def take(self) -> list[str]:
        """The complaints so far, forgotten with this."""
        found, self.complaints, self.expected = self.complaints, [], set()
        return found

    def _console(self, message: ConsoleMessage) -> None:
        status = _STATUS.match(message.text)
        if status and int(status[1]) in self.expected:
            return
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def _error(self, error: WebError) -> None:
        self.complaints.append(f"page: {error.error}")

    def _request(self, request: PageRequest) -> None:
        self.requests += 1
        if urlsplit(request.url)[:2] != urlsplit(self.url)[:2]:
            self.complaints.append(f"request elsewhere: {request.url}")

    def _violation(self, _: Any, said: str) -> None:
        self.complaints.append(f"policy: {said}")


@dataclass
class Desktop:
    """A browser and the sessions of those who were signed in with it, by the level of each."""

    browser: Browser
    watch: Watch
    tokens: dict[str, str]
    _shared: dict[str, BrowserContext] = field(default_factory=dict)

    @contextmanager
    def page(self, level: str | None = None, **options: Any) -> Iterator[Page]:
        """A page of somebody signed in at this level, with options in a context of its own."""
        if level is not None and not options:
            page = self._signed_in(level).new_page()
            yield page
            page.close()
            return
        if level is not None:
            options["storage_state"] = self.session(level)
        context = self._context(options)
        try:
            yield context.new_page()
        finally:
            context.close()

    def session(self, level: str) -> StorageState:
        """The cookies of somebody who signed in through the page, once for all tests."""
        return self._signed_in(level).storage_state()

    def _signed_in(self, level: str) -> BrowserContext:
        if level not in self._shared:
            self._shared[level] = self._context({})
            page = self._shared[level].new_page()
            page.goto("/scep")
            sign_in(page, self.tokens[level])
            expect(page.locator("#refresh")).to_be_visible()
            page.close()
        return self._shared[level]

    def _context(self, options: dict[str, Any]) -> BrowserContext:
        options = {"viewport": DESKTOP, "reduced_motion": "reduce"} | options
        context = self.browser.new_context(base_url=self.watch.url, **options)
        context.set_default_timeout(15_000)
        self.watch.over(context)
        return context


def sign_in(page: Page, token: str) -> None:
    """Fill in the form that is shown, and send it."""
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in", exact=True).click()


def opened(page: Page, button: Locator, dialog: str) -> Locator:
    """The dialog that a button opens."""
    button.click()
    found = page.locator(f"dialog#{dialog}")
    expect(found).to_be_visible()
    return found


def send(dialog: Locator) -> None:
    """Give the order."""
    dialog.locator('[type="submit"]').click()


def ordered(dialog: Locator) -> None:
    """Give the order, see it done, and close the dialog."""
    send(dialog)
    expect(dialog.locator(".result")).to_have_class(re.compile("good"))
    dialog.locator("[data-close]").click()
    expect(dialog).to_be_hidden()


def focused(page: Page) -> str:
    """What has the focus: its id, else its label or text."""
    found = page.evaluate(
        """() => { const e = document.activeElement;
        return e.id || e.getAttribute("aria-label") || e.textContent.trim().slice(0, 60); }"""
    )
    return str(found)


def csrf(page: Page) -> str:
    """What this page's commands are sent with."""
    return page.locator('meta[name="csrf"]').get_attribute("content") or ""


def posted(page: Page, path: str, body: dict[str, Any], token: str | None) -> int:
    """The status of an order that the page's own script could have sent."""
    headers = {"content-type": "application/json"}
    if token is not None:
        headers["x-csrf-token"] = token
    status = page.evaluate(
        """async ([path, headers, body]) =>
        (await fetch(path, { method: "POST", headers, body: JSON.stringify(body) })).status""",
        [path, headers, body],
    )
    return int(status)
