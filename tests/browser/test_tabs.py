"""What each tab shows, and that its address leads back to it."""

import re
from typing import Final

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.devices import AUDIENCE, Fleet, unique
from tests.browser.past import ANCHOR_DAYS, CONTOSO, LIMITED, Past
from tests.support.system import System

RESULTS: Final = [
    "success", "signature_invalid", "expired", "not_yet_valid", "wrong_audience", "replay",
    "rate_limited", "claim_mismatch", "device_state_failed", "malformed", "unknown_version",
]  # fmt: skip


def fact(card: Locator, name: str) -> Locator:
    """What a card says under this name."""
    return (
        card.locator("dl > div").filter(has=card.page.get_by_text(name, exact=True)).locator("dd")
    )


def counters(page: Page, profile: str) -> dict[str, int]:
    """Result to count, in the order of the page."""
    shown = page.locator(f"#counters-{profile} > div")
    names, numbers = shown.locator("dt").all_inner_texts(), shown.locator("dd").all_inner_texts()
    return dict(zip(names, map(int, numbers), strict=True))


# Profiles


def test_profiles_are_cards_in_the_order_of_their_names(system: System, viewer: Page) -> None:
    viewer.goto("/scep")
    names = sorted(system.run["profiles"])

    expect(viewer).to_have_title("SCEP Administration")
    expect(viewer.locator(".card h3")).to_have_text(names)
    expect(viewer.locator(".brand")).to_contain_text(f"{len(names)} profiles configured")
    for name in names:
        card = viewer.get_by_role("article", name=name, exact=True)
        expect(card).to_contain_text("issuer local")
        expect(card.locator("header .badge.good")).to_have_text(re.compile(r"^7(29|30) days$"))
        expect(fact(card, "Expires").locator("time")).to_have_text(re.compile(r"^\d{4}-\d\d-\d\d$"))
        expect(fact(card, "RA certificate")).to_contain_text("CN=")


@pytest.mark.parametrize(
    ("profile", "pills"),
    [
        ("demo", ["Challenge password set", "mTLS disabled", "Intune disabled"]),
        ("kiosks", ["Challenge password set", "mTLS enabled", "Intune disabled"]),
        ("corp", ["Challenge password not used", "mTLS disabled", "Intune enabled"]),
        ("windows", ["Challenge password not used", "mTLS disabled", "Intune enabled"]),
    ],
)
def test_a_card_tells_what_its_profile_asks_for(
    viewer: Page, profile: str, pills: list[str]
) -> None:
    viewer.goto("/scep")
    card = viewer.get_by_role("article", name=profile, exact=True)

    expect(card.get_by_role("list").first.locator(".pill")).to_have_text(pills)
    expect(fact(card, "Validators")).to_contain_text("2 running")
    expect(card.get_by_role("link")).to_have_count(1 if "Intune enabled" in pills else 0)


def test_a_card_leads_to_the_details_of_its_own_profile(viewer: Page) -> None:
    viewer.goto("/scep")
    viewer.get_by_role("article", name="branch", exact=True).get_by_role("link").click()

    expect(viewer).to_have_url(re.compile(r"/scep\?tab=intune&profile=branch$"))
    expect(viewer.locator(".card h3")).to_have_text(["branch"])


# Intune monitoring


@pytest.mark.usefixtures("past")
def test_challenges_are_counted_by_result_in_one_order(viewer: Page, fleet: Fleet) -> None:
    viewer.goto("/scep?tab=intune")
    before, branch = counters(viewer, "corp"), counters(viewer, "branch")
    fleet.intune(unique("PHONE"))
    fleet.refuse("malformed", unique("PHONE"))
    fleet.refuse("not_yet_valid", unique("PHONE"))
    viewer.reload()
    after = counters(viewer, "corp")

    assert list(after) == RESULTS
    changed = {name: after[name] - before[name] for name in RESULTS if after[name] != before[name]}
    assert changed == {"success": 1, "malformed": 1, "not_yet_valid": 1}
    assert counters(viewer, "branch") == branch
    assert branch["success"] >= 1
    for seen in ("signature_invalid", "expired", "replay", "rate_limited", "claim_mismatch"):
        assert after[seen] >= 1


def test_a_challenge_used_is_one_remembered(viewer: Page, fleet: Fleet) -> None:
    viewer.goto("/scep?tab=intune")
    remembered = viewer.locator("#replay-corp")
    before = int(remembered.inner_text())
    fleet.intune(unique("PHONE"))
    viewer.reload()

    expect(remembered).to_have_text(str(before + 1))


def test_a_profile_tells_its_audience_its_limit_and_its_anchors(viewer: Page) -> None:
    viewer.goto("/scep?tab=intune")
    corp = viewer.get_by_role("article", name="corp", exact=True)
    branch = viewer.get_by_role("article", name="branch", exact=True)

    expect(fact(corp, "Audience")).to_have_text("not pinned")
    expect(fact(branch, "Audience")).to_have_text(AUDIENCE)
    expect(fact(corp, "Rate limit")).to_contain_text("Active")
    expect(fact(branch, "Rate limit")).to_have_text("Disabled")
    rows = branch.locator("#anchors-branch tbody tr")
    row, tenant = rows.nth(0), rows.nth(1)
    expect(rows).to_have_count(2)
    expect(row).to_contain_text("CN=Connector of the branch office")
    expect(row).to_contain_text("all others")
    expect(tenant).to_contain_text("CN=Connector of Contoso")
    expect(tenant.locator("td").first).to_have_text(CONTOSO)
    expect(tenant.locator("code")).to_have_attribute("title", re.compile("^[0-9a-f]{64}$"))
    expect(tenant.locator(".badge.good")).to_have_text(f"{5 * ANCHOR_DAYS} days")
    for badge in (row.locator(".badge"), branch.locator("header .badge")):
        expect(badge).to_have_text(f"{ANCHOR_DAYS} days (rotate soon)")
        expect(badge).to_have_class(re.compile("warn"))
    expect(corp.locator("header .badge.good")).to_have_text(re.compile(r"^36\d days$"))


def test_an_anchor_that_expires_soon_is_seen_among_the_profiles(viewer: Page) -> None:
    viewer.goto("/scep")
    found = fact(viewer.locator("#profile-branch"), "Trust anchors")

    expect(found).to_contain_text("2 in 2 bundles")
    expect(found.locator(".badge.warn")).to_have_text(f"{ANCHOR_DAYS} days (rotate soon)")
    expect(fact(viewer.locator("#profile-corp"), "Trust anchors").locator(".good")).to_be_visible()
    expect(viewer.locator("#profile-demo")).not_to_contain_text("Trust anchors")


@pytest.mark.usefixtures("past")
def test_devices_that_hit_their_limit_are_found_from_the_failures(viewer: Page) -> None:
    viewer.goto("/scep?tab=intune&profile=corp")
    viewer.get_by_role("link", name="Rate-limited devices").click()
    expect(viewer).to_have_url(re.compile(r"/scep/rate-limited\?profile=corp$"))
    row = viewer.locator("#rate-limited tbody tr").filter(has_text=LIMITED)

    expect(row.locator("[data-name=Refusals]")).to_have_text("1")
    expect(row.locator("[data-name=Profile]")).to_have_text("corp")
    row.get_by_role("link", name=LIMITED).click()
    expect(viewer.get_by_text("rate_limited").first).to_be_visible()


def test_recent_failures_are_failures_and_lead_to_their_enrollment(
    viewer: Page, past: Past
) -> None:
    viewer.goto("/scep?tab=intune")
    failures = viewer.locator("#failures tbody tr")
    row = failures.filter(has_text=past.mismatch.name)

    expect(row.locator(".badge.bad")).to_have_text("claim_mismatch")
    for other in (past.phone, past.tablet, past.wrong, past.held, past.laptop):
        expect(failures.filter(has_text=other.name)).to_have_count(0)
    expect(failures.locator(".badge.bad")).to_have_count(failures.count())
    row.get_by_role("link", name=past.mismatch.name).click()
    expect(viewer).to_have_url(re.compile(re.escape(past.mismatch.path("rejected")) + "$"))
    expect(viewer.get_by_role("heading", level=2)).to_contain_text(past.mismatch.name)


def test_failures_and_chart_are_of_the_one_profile_that_is_chosen(viewer: Page, past: Past) -> None:
    viewer.goto("/scep?tab=intune&profile=branch")

    expect(viewer.locator("#failures")).not_to_contain_text(past.mismatch.name)
    expect(viewer.locator("#chart svg")).to_have_attribute(
        "aria-label", re.compile(r"^\d+ successes and 0 failures in 24h$")
    )


@pytest.mark.usefixtures("past")
@pytest.mark.parametrize(("reach", "bars"), [("24h", 24), ("7d", 28)])
def test_the_chart_is_drawn_by_the_server_and_told_in_words(
    viewer: Page, reach: str, bars: int
) -> None:
    viewer.goto("/scep?tab=intune")
    viewer.get_by_role("navigation", name="Time").get_by_role("link", name=reach).click()
    expect(viewer).to_have_url(re.compile(f"reach={reach}"))
    chart = viewer.locator("#chart").get_by_role("img")
    sent = viewer.request.get(viewer.url).text()

    successes, failures = map(int, re.findall(r"\d+", chart.get_attribute("aria-label") or "")[:2])
    assert successes >= 3
    assert failures >= 5
    assert f'aria-label="{chart.get_attribute("aria-label")}"' in sent
    expect(chart.locator("g")).to_have_count(bars)
    last = chart.locator("g").last
    assert re.search(
        r"UTC: \d+ successes, \d+ failures$", last.locator("title").text_content() or ""
    )
    tall = [
        float(last.locator(f"rect.{kind}").get_attribute("height") or 0) for kind in ("good", "bad")
    ]
    assert all(height > 0 for height in tall)
    assert sum(tall) <= 120.5


# Addresses


@pytest.mark.usefixtures("past")
@pytest.mark.parametrize(
    ("address", "selector", "text"),
    [
        ("/scep?tab=intune&profile=corp", ".card h3", ["corp"]),
        ("/scep/intune", ".card h3", ["Tenant contoso", "branch", "corp"]),
        ("/scep/intune?profile=branch&reach=7d", ".chips [aria-current]", ["branch", "7d"]),
        ("/scep?tab=activity&chip=renewal&profile=kiosks", ".chips [aria-current]", ["Renewal"]),
        (
            "/scep?tab=activity&search=TABLET-BR",
            "#activity tbody tr",
            [re.compile("TABLET-BRANCH")],
        ),
        ("/scep/certificates?profile=kiosks", "#certificates tbody tr", [re.compile("KIOSK")] * 2),
    ],
)
def test_a_deep_link_survives_a_reload(
    viewer: Page, address: str, selector: str, text: list[str | re.Pattern[str]]
) -> None:
    viewer.goto(address)
    expect(viewer.locator(selector)).to_have_text(text)
    viewer.reload()

    expect(viewer).to_have_url(re.compile(re.escape(address) + "$"))
    expect(viewer.locator(selector)).to_have_text(text)


def test_the_sections_lead_to_each_other(viewer: Page) -> None:
    viewer.goto("/")
    sections = viewer.get_by_role("navigation", name="Sections")
    expect(sections.locator("[aria-current=page]")).to_have_text("Profiles")
    links = sections.get_by_role("link")
    for index in range(links.count()):
        links.nth(index).click()
        expect(links.nth(index)).to_have_attribute("aria-current", "page")
        expect(sections.locator("[aria-current]")).to_have_count(1)
        expect(viewer.get_by_role("heading", level=1)).to_have_text("SCEP Administration")
        expect(viewer.get_by_role("heading", level=2)).to_have_count(1)
