"""What an operator commands through the page, and what comes of it."""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from shared.scep.certrep import PkiStatus
from tests.browser.devices import Fleet, unique
from tests.browser.pages import Watch, focused, opened, ordered, send
from tests.integration.test_revocation import fetched
from tests.support.requests import logged
from tests.support.system import System, wait_until

VALIDATORS = ("validator-0", "validator-1")
RELOADED = "anchors_reloaded"


@contextmanager
def stopped(system: System, index: int) -> Iterator[int]:
    """A validator that does nothing for the length of a block."""
    pid = system.run["pids"]["validator"][index]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def broken(path: Path) -> Iterator[None]:
    """A file with only half of what was in it, for the length of a block."""
    before = path.read_bytes()
    path.write_bytes(before[: len(before) // 2])
    try:
        yield
    finally:
        path.write_bytes(before)


def reloading(page: Page, profile: str) -> Locator:
    """The dialog to reload a profile's anchors."""
    page.goto(f"/scep?tab=intune&profile={profile}")
    button = page.get_by_role("button", name=f"Reload trust of {profile}")
    return opened(page, button, "reload")


def commands(system: System) -> int:
    """How many commands to reload the validators have carried out or refused."""
    events = (RELOADED, "anchors_kept")
    return sum(len(logged(system, event, name)) for event in events for name in VALIDATORS)


# Trust anchors


def test_trust_is_reloaded_on_every_validator(operator: Page) -> None:
    dialog = reloading(operator, "corp")
    for said in ("corp", "connector/connector.pem"):
        expect(dialog.locator(".about")).to_contain_text(said)
    send(dialog)

    expect(dialog.get_by_role("alert")).to_have_class(re.compile("good"))
    lines = dialog.get_by_role("alert").locator("li")
    expect(lines).to_have_text([f"{name}: reloaded" for name in replicas(lines)])
    expect(lines).to_have_count(2)
    expect(dialog.get_by_role("button")).to_have_text(["Close"])
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()


def test_who_ordered_what_is_listed_with_what_came_of_it(operator: Page) -> None:
    dialog = reloading(operator, "corp")
    send(dialog)
    expect(dialog.get_by_role("alert")).to_have_class(re.compile("good"))
    operator.goto("/scep")
    operator.get_by_role("link", name="Commands", exact=True).click()
    operator.get_by_label("Command", exact=True).select_option("Reload trust anchors")
    operator.get_by_role("button", name="Show").click()
    row = operator.locator("#commands tbody tr").first

    expect(row).to_contain_text("Reload trust anchors")
    expect(row).to_contain_text("corp")
    expect(row.locator(".badge")).to_have_text("done by 2 replicas")
    operator.get_by_label("Operator").fill("nobody")
    operator.get_by_role("button", name="Show").click()
    expect(operator.locator("#commands")).to_contain_text("No commands match.")


def replicas(lines: Locator) -> list[str]:
    """Whom the lines of a dialog are about."""
    return [line.partition(":")[0] for line in lines.all_inner_texts()]


def test_ra_certificates_are_read_anew_by_every_gateway(operator: Page) -> None:
    operator.goto("/scep")
    dialog = opened(operator, operator.get_by_role("button", name="Reload RA of demo"), "ra")
    expect(dialog.locator(".about")).to_contain_text("all profiles, demo among them")
    send(dialog)

    lines = dialog.get_by_role("alert").locator("li")
    expect(lines).to_have_text(["gateway-0: reloaded"])
    expect(dialog.get_by_role("alert")).to_have_class(re.compile("good"))


def test_one_validator_that_keeps_its_old_anchors_is_named_and_the_dialog_stays_open(
    system: System, operator: Page, watch: Watch
) -> None:
    watch.expected.add(502)
    dialog = reloading(operator, "branch")
    alert = dialog.get_by_role("alert")
    before = len(logged(system, RELOADED, VALIDATORS[0]))
    anchors = system.data / "connector" / "branch.pem"
    with stopped(system, 1) as pid:
        send(dialog)
        expect(dialog.locator("form")).to_have_attribute("aria-busy", "true")
        expect(dialog.locator('[type="submit"]')).to_be_disabled()
        wait_until(lambda: len(logged(system, RELOADED, VALIDATORS[0])) > before, 15, "one reload")
        with broken(anchors):
            os.kill(pid, signal.SIGCONT)
            expect(alert).to_have_class(re.compile("bad"))

    expect(dialog).to_be_visible()
    good = alert.locator("li").filter(has_text=re.compile(r": reloaded$"))
    bad = alert.locator("li").filter(has_text="branch.pem")
    expect(good).to_have_count(1)
    expect(bad).to_have_count(1)
    assert len({*replicas(good), *replicas(bad)}) == 2
    expect(alert.locator("p")).to_contain_text("did not confirm the reload")
    expect(dialog.locator('[type="submit"]')).to_be_enabled()
    send(dialog)
    expect(alert).to_have_class(re.compile("good"))
    expect(alert.locator("li").filter(has_text=re.compile(r": reloaded$"))).to_have_count(2)


def test_an_order_that_cannot_be_sent_is_said_and_may_be_given_again(
    operator: Page, watch: Watch
) -> None:
    dialog = reloading(operator, "corp")
    operator.route("**/reload-trust", lambda route: route.abort())
    send(dialog)
    expect(dialog.get_by_role("alert")).to_contain_text("got no answer")
    operator.unroute("**/reload-trust")
    send(dialog)

    expect(dialog.get_by_role("alert")).to_have_class(re.compile("good"))
    watch.complaints = [each for each in watch.complaints if "ERR_FAILED" not in each]


@pytest.mark.parametrize("way", ["Cancel", "Escape"])
def test_a_dialog_that_is_left_gives_no_order(system: System, operator: Page, way: str) -> None:
    sent: list[str] = []
    operator.on("request", lambda request: sent.append(request.method))
    before, dialog = commands(system), reloading(operator, "corp")
    if way == "Cancel":
        dialog.get_by_role("button", name="Cancel").click()
    else:
        operator.keyboard.press("Escape")

    expect(dialog).to_be_hidden()
    assert focused(operator) == "Reload trust of corp"
    assert "POST" not in sent
    assert commands(system) == before


# Held enrollments


def test_a_device_gets_its_certificate_once_it_is_approved(operator: Page, fleet: Fleet) -> None:
    asked = fleet.hold(unique("switch"))
    operator.goto("/scep/held")
    count = int(operator.locator("#held-count").inner_text())
    row = operator.locator("#held tbody tr").filter(has_text=asked.name)
    dialog = opened(operator, row.get_by_role("button", name="Approve"), "approve")
    expect(dialog.locator(".about")).to_contain_text(asked.name)
    dialog.get_by_label("Note").fill("rack seen, <b>fine</b>")
    ordered(dialog)

    assert asked.end().status is PkiStatus.SUCCESS
    asked.record("issued")
    expect(row).to_have_count(0)
    expect(operator.locator("#held-count")).to_have_text(str(count - 1))
    operator.goto(asked.path("issued"))
    expect(operator.locator("#head .badge")).to_have_text("issued")
    decided = operator.locator(".timeline li").filter(has_text="Operator decided")
    decided.locator("summary").click()
    expect(decided).to_contain_text("rack seen, <b>fine</b>")
    expect(operator.locator("#facts div").filter(has_text="Decided by")).to_contain_text("pki-desk")


def test_a_device_that_is_denied_is_refused_with_the_note(operator: Page, fleet: Fleet) -> None:
    asked = fleet.hold(unique("switch"))
    operator.goto(asked.path("held"))
    expect(operator.locator("#head .badge")).to_have_text("held")
    button = operator.get_by_role("button", name="Deny")
    dialog = opened(operator, button, "deny")
    dialog.get_by_label("Reason").fill("reported as lost")
    ordered(dialog)
    end = asked.end()

    assert end.status is PkiStatus.FAILURE
    assert "reported as lost" in end.fail_info_text
    expect(operator.locator("#head .badge")).to_have_text("rejected")
    expect(operator.get_by_role("button", name="Deny")).to_have_count(0)
    operator.reload()
    expect(operator.locator(".note.bad")).to_contain_text("denied")
    expect(operator.locator(".note.bad")).to_contain_text("reported as lost")


def test_an_answer_is_never_shown_about_something_else(operator: Page) -> None:
    """The dialog was closed and opened anew before the order in it was answered."""
    waiting: list[Route] = []
    operator.route("**/reload-ra", lambda route: waiting.append(route))  # noqa: PLW0108 - a function that Playwright can mark
    operator.goto("/scep")
    first = opened(operator, operator.get_by_role("button", name="Reload RA of demo"), "ra")
    with operator.expect_request("**/reload-ra"):
        first.get_by_role("button", name="Reload RA certificates").click()
    operator.keyboard.press("Escape")
    dialog = opened(operator, operator.get_by_role("button", name="Reload RA of corp"), "ra")
    with operator.expect_response("**/reload-ra"):
        waiting[0].fulfill(json={"detail": "late", "replicas": []})

    operator.evaluate("fetch('/healthz').then((answer) => answer.text())")  # the late one is read
    send_button = dialog.get_by_role("button", name="Reload RA certificates")
    expect(send_button).to_be_enabled()
    expect(dialog.get_by_role("alert")).to_be_empty()


def test_who_decides_second_is_told_so(operator: Page, fleet: Fleet, watch: Watch) -> None:
    watch.expected.add(409)
    asked = fleet.hold(unique("switch"))
    operator.goto(asked.path("held"))
    late = operator.context.new_page()
    late.goto(operator.url)
    ordered(opened(operator, operator.get_by_role("button", name="Approve"), "approve"))
    asked.record("issued")
    dialog = opened(late, late.get_by_role("button", name="Deny"), "deny")
    send(dialog)

    expect(dialog.get_by_role("alert")).to_contain_text("already been decided")
    expect(dialog).to_be_visible()
    late.close()
    assert asked.end().status is PkiStatus.SUCCESS


# Certificates


def test_a_revoked_certificate_is_on_the_crl_and_its_enrollment_says_so(
    system: System, operator: Page, fleet: Fleet
) -> None:
    asked = fleet.succeed("demo", unique("LAPTOP"))
    operator.goto("/scep/certificates?profile=demo")
    row = operator.locator("#certificates tbody tr").filter(has_text=asked.name)
    wait_until(lambda: row.count() or operator.reload() is None, 20, "the certificate in the list")
    dialog = opened(operator, row.get_by_role("button", name="Revoke"), "revoke")
    expect(dialog.locator(".about")).to_contain_text(asked.name)
    dialog.get_by_label("Reason").select_option("superseded")
    ordered(dialog)

    serial = asked.certificate().serial_number
    assert fetched(system).get_revoked_certificate_by_serial_number(serial) is not None
    expect(row.locator(".badge")).to_have_text("revoked: superseded")
    expect(row.get_by_role("button")).to_have_count(0)
    operator.goto(asked.path("issued"))
    expect(operator.locator("#head .badge.bad")).to_have_text("revoked: superseded")
    fact = operator.locator("#facts div").filter(has_text="Revoked")
    for said in ("pki-desk", "superseded"):
        expect(fact).to_contain_text(said)
    expect(operator.get_by_role("button", name="Revoke")).to_have_count(0)
    titles = operator.locator(".timeline .step strong")
    expect(titles.filter(has_text="Revocation ordered")).to_have_count(1)
    expect(titles.filter(has_text="Certificate status changed")).to_have_count(1)


def test_a_certificate_is_revoked_from_its_enrollment(
    system: System, operator: Page, fleet: Fleet
) -> None:
    asked = fleet.intune(unique("PHONE"), "branch")
    operator.goto(asked.path("issued"))
    ordered(opened(operator, operator.get_by_role("button", name="Revoke"), "revoke"))

    serial = asked.certificate().serial_number
    assert fetched(system).get_revoked_certificate_by_serial_number(serial) is not None
    expect(operator.locator("#head .badge.bad")).to_have_text("revoked: unspecified")


def test_a_certificate_is_put_on_hold_and_released(
    system: System, operator: Page, fleet: Fleet
) -> None:
    asked = fleet.succeed("demo", unique("LAPTOP"))
    serial = asked.certificate().serial_number
    operator.goto(asked.path("issued"))
    dialog = opened(operator, operator.get_by_role("button", name="Revoke"), "revoke")
    dialog.get_by_label("Reason").select_option("certificateHold")
    ordered(dialog)
    assert fetched(system).get_revoked_certificate_by_serial_number(serial) is not None
    expect(operator.locator("#head .badge.warn")).to_have_text("on hold")

    ordered(opened(operator, operator.get_by_role("button", name="Release hold"), "release"))
    assert fetched(system).get_revoked_certificate_by_serial_number(serial) is None
    expect(operator.get_by_role("button", name="Release hold")).to_have_count(0)
    expect(operator.get_by_role("button", name="Revoke")).to_have_count(1)
