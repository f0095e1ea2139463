"""Every page there is, and every dialog."""

from collections.abc import Callable, Iterator
from typing import Final

from playwright.sync_api import Page

from tests.browser.pages import TABS, opened
from tests.browser.past import Past


def addresses(past: Past) -> dict[str, str]:
    """Every page there is, by name."""
    return TABS | {
        "held enrollment": past.held.path("held"),
        "issued enrollment": past.renewed.path("issued"),
        "refused enrollment": past.mismatch.path("rejected"),
        "certificates that expire": "/scep/certificates?view=expiring&days=400",
        "nothing found": "/scep?tab=activity&search=nobody-is-called-so",
        "problem": "/scep/enrollments/nothing",
        "login": "/login",
    }


DIALOGS: Final[dict[str, Callable[[Past], tuple[str, str]]]] = {
    "ra": lambda _: ("/scep", "Reload RA of corp"),
    "reload": lambda _: ("/scep?tab=intune&profile=corp", "Reload trust of corp"),
    "approve": lambda past: (past.held.path("held"), "Approve"),
    "deny": lambda past: (past.held.path("held"), "Deny"),
    "revoke": lambda past: (past.laptop.path("issued"), "Revoke"),
}


def views(page: Page, past: Past) -> Iterator[str]:
    """Each page and each open dialog in turn: its name, while it is shown."""
    for name, path in addresses(past).items():
        page.goto(path)
        yield name
    for dialog, where in DIALOGS.items():
        path, button = where(past)
        page.goto(path)
        opened(page, page.get_by_role("button", name=button), dialog)
        yield f"dialog {dialog}"
    page.goto("/scep/dead-letters")
    page.evaluate("document.getElementById('retry').showModal()")
    yield "dialog retry"
