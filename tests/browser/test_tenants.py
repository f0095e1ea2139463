"""The card of a tenant of Intune, and the enrollments that Intune decides."""

import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Locator, Page, expect

from cli.fake_microsoft.fake import FakeMicrosoft
from tests.browser.pages import Desktop
from tests.browser.test_accessibility import broken_rules
from tests.browser.test_tabs import fact
from tests.support.requests import Device, Endpoint, ask, certificate, recorded
from tests.support.system import System, wait_until

ADDRESS: Final = "/scep?tab=intune&profile=windows"
SIZES: Final = {"phone": {"width": 360, "height": 740}, "large": {"width": 1440, "height": 900}}


@pytest.fixture(autouse=True)
def clean(microsoft: FakeMicrosoft) -> Iterator[None]:
    yield
    microsoft.clear_faults()
    microsoft.answer("validate")
    microsoft.answer("success")


def enroll(system: System, microsoft: FakeMicrosoft, state: str) -> dict[str, Any]:
    """The record of a device of Intune that asked."""
    device = Device.new()
    challenge = microsoft.mint("contoso", subject=f"CN={device.name}")
    endpoint = replace(Endpoint.of(system, "windows"), challenge=challenge)
    reply = ask(endpoint, device.enrollment(endpoint))
    if state == "issued":
        certificate(endpoint, device, reply)
    return recorded(system, device, state)


def card(page: Page) -> Locator:
    """The card, from the validators' newest reports."""
    page.goto(ADDRESS)
    return page.locator("#tenant-contoso")


def shows(page: Page, text: str) -> None:
    """Look until the card says so: validators report every few seconds."""
    wait_until(lambda: text in card(page).inner_text(), 20, text)


def counts(page: Page, name: str) -> dict[str, int]:
    shown = page.locator(f"#{name}-contoso > div")
    names, numbers = shown.locator("dt").all_inner_texts(), shown.locator("dd").all_inner_texts()
    return dict(zip(names, map(int, numbers), strict=True))


def test_a_tenant_does_well_until_it_does_not_accept_a_certificate(
    viewer: Page, system: System, microsoft: FakeMicrosoft
) -> None:
    """One test: what was not accepted shows for a day."""
    enroll(system, microsoft, "issued")
    shows(viewer, "Nothing to do.")
    found = card(viewer)

    expect(found.locator("header .badge.good")).to_have_text("ok")
    expect(fact(found, "Profiles")).to_have_text("windows")
    expect(fact(found, "Validators")).to_have_text("2 reporting")
    expect(fact(found, "Tenant ID")).to_contain_text(microsoft.tenants["contoso"].id)
    expect(fact(found, "Last success")).to_have_text(re.compile(r"^\d{4}-\d\d-\d\d .* UTC$"))
    expect(fact(found, "Revocations")).to_contain_text("0 open")
    assert counts(viewer, "calls")["success"] >= 2
    ends = counts(viewer, "ends")
    assert (ends["waiting"], ends["not_confirmed"], ends["success"] >= 1) == (0, 0, True)

    microsoft.answer("success", "Unknown")
    row = enroll(system, microsoft, "failed")
    viewer.goto(f"/scep/enrollments/{row['enrollment']}")
    expect(viewer.locator(".note.bad strong")).to_have_text("not_confirmed")
    expect(viewer.locator("#hint")).to_contain_text("did not get it")
    expect(viewer.locator(".timeline")).to_contain_text("Not accepted by Intune")
    shows(viewer, "Intune did not accept every certificate")
    expect(card(viewer).locator("header .badge.warn")).to_have_text("warning")
    assert counts(viewer, "ends")["not_confirmed"] == 1


def test_a_refusal_of_intune_says_what_its_code_asks_for(
    viewer: Page, system: System, microsoft: FakeMicrosoft
) -> None:
    microsoft.answer("validate", "ChallengeExpired")
    row = enroll(system, microsoft, "rejected")
    viewer.goto(f"/scep/enrollments/{row['enrollment']}")

    expect(viewer.locator(".note.bad")).to_contain_text("ChallengeExpired")
    expect(viewer.locator("#hint")).to_have_text(
        "What to do: The challenge is too old: let the device synchronize with Intune."
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_card_is_for_everyone_in_every_size_and_scheme(
    desktop: Desktop, pictures: Path, size: str, scheme: str
) -> None:
    with desktop.page("viewer", viewport=SIZES[size], color_scheme=scheme, bypass_csp=True) as page:
        found = card(page)
        expect(found).to_be_visible()
        rules = broken_rules(page, scheme)
        width = page.evaluate("document.scrollingElement.scrollWidth")
        picture = page.screenshot(full_page=True, animations="disabled")
    (pictures / f"tenant-{size}-{scheme}.png").write_bytes(picture)

    assert (rules, width) == ([], SIZES[size]["width"])
    assert struct.unpack(">I", picture[16:20])[0] == SIZES[size]["width"]


def test_a_tenant_that_refuses_its_app_is_failing_and_says_why(
    viewer: Page, system: System, microsoft: FakeMicrosoft
) -> None:
    microsoft.fault("validate", "status", -1, status=400)
    row = enroll(system, microsoft, "rejected")
    shows(viewer, "failing")
    found = card(viewer)

    expect(found.locator("header .badge.bad")).to_have_text("failing")
    expect(fact(found, "Last error")).to_contain_text(re.compile("outage|protocol"))
    viewer.goto(f"/scep/enrollments/{row['enrollment']}")
    expect(viewer.locator("#hint")).to_contain_text("Microsoft could not be asked")
