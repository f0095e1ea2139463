"""Who sees what, who may order what, and how one gets in and out."""

import re
from typing import Final
from urllib.parse import quote

import httpx
import pytest
from playwright.sync_api import Page, expect

from services.audit.web import views
from tests.browser.devices import Fleet, unique
from tests.browser.pages import TABS, Desktop, Watch, csrf, opened, posted, send, sign_in
from tests.browser.past import Past, add_token, take_back
from tests.support.system import System

ELSEWHERE: Final = "127.0.0.5"
WRONG: Final = {"token": "not a token"}
LINKS: Final = [
    "/scep", "/scep?tab=intune&profile=corp", "/scep?tab=activity&chip=renewal&search=KIOSK",
    "/scep/intune", "/scep/held",
]  # fmt: skip


@pytest.fixture
def commands(system: System, past: Past) -> dict[str, dict[str, str]]:
    """Every order that a page gives: path to body."""
    held = past.held.record("held")["enrollment"]
    serial = past.laptop.record("issued")["serial"]
    assert system.run["admin_url"]
    return {
        "/api/v1/admin/scep/intune/reload-trust": {"path_id": "corp"},
        f"/api/v1/enrollments/{held}/approve": {"note": ""},
        f"/api/v1/enrollments/{held}/deny": {"note": ""},
        f"/api/v1/certificates/local/{serial}/revoke": {"reason": "superseded"},
    }


def anonymous(watch: Watch, address: str | None = None) -> httpx.Client:
    """Nobody known, from an address of the machine's own."""
    transport = httpx.HTTPTransport(local_address=address)
    return httpx.Client(base_url=watch.url, transport=transport, timeout=30.0)


# Levels


def test_a_viewer_sees_everything_but_the_buttons(viewer: Page, past: Past) -> None:
    paths = (*TABS.values(), past.held.path("held"), past.laptop.path("issued"))
    for path in paths:
        viewer.goto(path)
        expect(viewer.get_by_role("heading", level=1)).to_be_visible()
        expect(viewer.locator("[data-dialog]")).to_have_count(0)
        buttons = viewer.get_by_role("main").get_by_role("button")
        assert set(buttons.all_inner_texts()) <= {"Show"}, path
    expect(viewer.locator(".who")).to_contain_text("service-desk")
    viewer.goto("/scep/held")
    expect(viewer.locator("main")).to_contain_text("requires the operator role")


def test_a_viewer_s_orders_are_refused_whatever_the_page_sends(
    viewer: Page, watch: Watch, past: Past, commands: dict[str, dict[str, str]]
) -> None:
    watch.expected.add(403)
    viewer.goto("/scep")
    token = csrf(viewer)

    assert len(token) > 20
    told = {path: posted(viewer, path, body, token) for path, body in commands.items()}
    assert told == dict.fromkeys(commands, 403)
    assert past.held.record("held")


@pytest.mark.parametrize("shown", [None, "", "0" * 64, "another session's"])
def test_an_operator_s_orders_without_the_page_s_token_are_refused(
    operator: Page,
    desktop: Desktop,
    past: Past,
    commands: dict[str, dict[str, str]],
    shown: str | None,
) -> None:
    desktop.watch.expected.add(403)
    operator.goto("/scep")
    if shown == "another session's":
        with desktop.page("viewer") as other:
            other.goto("/scep")
            shown = csrf(other)
            assert shown != csrf(operator)
    told = {path: posted(operator, path, body, shown) for path, body in commands.items()}

    assert told == dict.fromkeys(commands, 403)
    assert past.held.record("held")


def test_a_button_of_a_page_that_is_of_an_older_session_says_so(
    stranger: Page, desktop: Desktop, watch: Watch
) -> None:
    watch.expected.add(403)
    stranger.goto("/scep?tab=intune&profile=corp")
    sign_in(stranger, desktop.tokens["operator"])
    expect(stranger.locator("#refresh")).to_be_visible()
    stranger.context.clear_cookies()
    other = stranger.context.new_page()
    other.goto("/scep")
    sign_in(other, desktop.tokens["operator"])
    expect(other.locator("#refresh")).to_be_visible()
    button = stranger.get_by_role("button", name="Reload trust of corp")
    dialog = opened(stranger, button, "reload")
    send(dialog)

    expect(dialog.get_by_role("alert")).to_contain_text("reload it")


# Nobody known


def test_no_page_tells_anything_to_who_is_not_signed_in(watch: Watch, past: Past) -> None:
    held = past.held.path("held").rpartition("/")[2]
    paths = {
        getattr(route, "path", "").replace("{enrollment}", held) for route in views.router.routes
    }
    assert {path.partition("?")[0] for path in TABS.values()} <= paths
    names = {past.held.name, past.laptop.name, past.phone.name, "corp", "local"}
    for cookie in ("", "scepstream=made-up", f"scepstream={'x' * 3000}"):
        with anonymous(watch) as client:
            for path in sorted(paths - {"/"}):
                found = client.get(path, headers={"cookie": cookie})
                assert found.status_code == 303, path
                assert found.headers["location"] == f"/login?next={quote(path, safe='')}"
                assert not any(name in found.text for name in names), path


def test_a_signed_out_address_that_does_not_exist_tells_nothing_more(
    watch: Watch, past: Past
) -> None:
    with anonymous(watch) as client:
        there = client.get(past.held.path("held"))
        missing = client.get("/scep/enrollments/nothing")

    assert there.status_code == missing.status_code == 303


@pytest.mark.parametrize("link", LINKS)
def test_signing_in_leads_back_to_the_deep_link(
    stranger: Page, desktop: Desktop, link: str
) -> None:
    stranger.goto(link)
    expect(stranger).to_have_url(re.compile(r"/login\?next="))
    expect(stranger.get_by_label("Token")).to_be_focused()
    sign_in(stranger, desktop.tokens["viewer"])

    expect(stranger).to_have_url(desktop.watch.url + link)
    stranger.reload()
    expect(stranger).to_have_url(desktop.watch.url + link)


@pytest.mark.parametrize(
    "evil",
    ["//evil.example", "https://evil.example", "/\\evil.example", "/scep/..//evil.example",
     "javascript:alert(1)", "/scep\\@evil.example", "/scep//evil.example/\n"],
)  # fmt: skip
def test_no_link_leads_away(watch: Watch, tokens: dict[str, str], evil: str) -> None:
    with anonymous(watch) as client:
        form = client.get("/login", params={"next": evil})
        done = client.post("/login", params={"next": evil}, data={"token": tokens["viewer"]})
        location = done.headers["location"]
        landed = client.build_request("GET", location).url

    assert done.status_code == 303
    assert location.startswith("/scep")
    assert (landed.host, landed.port) == (httpx.URL(watch.url).host, httpx.URL(watch.url).port)
    assert 'action="https:' not in form.text


def test_a_browser_that_is_led_by_an_evil_link_lands_here(stranger: Page, desktop: Desktop) -> None:
    stranger.goto("/login?next=//evil.example/scep")
    sign_in(stranger, desktop.tokens["viewer"])

    expect(stranger).to_have_url(f"{desktop.watch.url}/scep")


# Sessions


def test_a_token_taken_back_ends_its_session_at_once(stranger: Page, system: System) -> None:
    token = add_token(system, name := unique("leaver"), "operator")
    stranger.goto("/scep/certificates")
    sign_in(stranger, token)
    expect(stranger.locator("#certificates")).to_be_visible()
    stranger.goto("/scep")
    shown = csrf(stranger)
    take_back(system, name)

    path = "/api/v1/admin/scep/intune/reload-trust"
    order = stranger.request.post(path, data={"path_id": "corp"}, headers={"x-csrf-token": shown})
    assert order.status == 401
    stranger.reload()
    expect(stranger).to_have_url(re.compile("/login"))


def test_signing_out_ends_the_session_and_not_only_the_cookie(
    stranger: Page, desktop: Desktop
) -> None:
    stranger.goto("/scep")
    sign_in(stranger, desktop.tokens["viewer"])
    expect(stranger.locator("#refresh")).to_be_visible()
    cookies = stranger.context.cookies()
    stranger.get_by_role("button", name="Sign out").click()
    expect(stranger).to_have_url(re.compile("/login$"))
    assert stranger.context.cookies() == []
    stranger.go_back()
    expect(stranger).to_have_url(re.compile("/login"))
    stranger.context.add_cookies(cookies)  # type: ignore[arg-type]
    stranger.goto("/scep")

    expect(stranger).to_have_url(re.compile("/login"))


def test_a_session_s_cookie_is_for_no_script_and_no_other_site(desktop: Desktop) -> None:
    (cookie,) = desktop.session("viewer")["cookies"]

    assert cookie["httpOnly"]
    assert cookie["sameSite"] in ("Lax", "Strict")
    assert desktop.tokens["viewer"] not in cookie["value"]


def test_signing_out_needs_the_page_s_token(viewer: Page) -> None:
    viewer.goto("/scep")
    refused = viewer.request.post("/logout", form={"csrf": "guessed"})

    assert refused.status == 403
    viewer.reload()
    expect(viewer.locator("#refresh")).to_be_visible()


def test_a_form_of_another_site_signs_nobody_in(watch: Watch, tokens: dict[str, str]) -> None:
    headers = {"sec-fetch-site": "cross-site"}
    with anonymous(watch) as client:
        found = client.post("/login", data={"token": tokens["viewer"]}, headers=headers)

    assert found.status_code == 403
    assert "set-cookie" not in found.headers


def test_a_wrong_token_is_said_and_the_way_back_is_kept(stranger: Page, desktop: Desktop) -> None:
    desktop.watch.expected.add(401)
    stranger.goto("/scep/held")
    sign_in(stranger, "not-a-token")
    expect(stranger.get_by_role("alert")).to_contain_text("Unknown or revoked API token")
    expect(stranger.get_by_label("Token")).to_have_value("")
    sign_in(stranger, desktop.tokens["viewer"])

    expect(stranger).to_have_url(re.compile("/scep/held$"))


def test_ten_failures_are_enough_for_one_address_and_no_matter_to_others(
    watch: Watch, tokens: dict[str, str]
) -> None:
    with anonymous(watch, ELSEWHERE) as client:
        told = [client.post("/login", data=WRONG).status_code for _ in range(10)]
        eleventh = client.post("/login", data=WRONG)
        right = client.post("/login", data={"token": tokens["viewer"]})
    with anonymous(watch) as client:
        other = client.post("/login", data={"token": tokens["viewer"]})

    assert told == [401] * 10
    assert (eleventh.status_code, right.status_code) == (429, 429)
    assert 0 < int(eleventh.headers["retry-after"]) <= 60
    assert "try again in" in eleventh.text
    assert other.status_code == 303
    assert "set-cookie" not in right.headers


def test_a_session_is_its_level_s_also_for_lists(viewer: Page, fleet: Fleet) -> None:
    asked = fleet.succeed("demo", unique("LAPTOP"))
    viewer.goto("/scep")
    told = viewer.request.get(f"/api/v1/enrollments?search={asked.name}")

    assert told.status == 200
    assert [row["device"] for row in told.json()["enrollments"]] == [f"CN={asked.name}"]
