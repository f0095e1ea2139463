"""What operators are told of a tenant of Intune: a state, a sentence, sums of all replicas."""

from typing import Any, Final

import pytest
from msgspec.structs import replace

from services.audit.api.schemas import TenantRow
from services.audit.api.tenants import NAME, Figures, TenantState, describe_tenants
from shared.config.fields import PATH_ID
from shared.log.events.state import Heartbeat, TenantReport

NOW: Final = 1_800_000_000
DAY: Final = 86400
WELL: Final = TenantReport(
    connection="contoso",
    tenant="0f7c5a3e-1d2b-4c6a-9e8f-a1b2c3d4e5f6",
    cloud="public",
    credential_kind="certificate",
    credential=1,
    credential_not_after=NOW + 300 * DAY,
    token_at=NOW - 60,
    discovered_at=NOW - 60,
    last_ok=NOW - 10,
    calls={"success": 3},
    pulled_at=NOW - 30,
)
PROFILES: Final = {"windows": "contoso", "kiosks": "contoso"}


def beat(name: str, *reports: TenantReport) -> Heartbeat:
    return Heartbeat(role="validator", name=name, since=NOW, anchors={}, tenants=reports)


def described(*reports: TenantReport, **figures: Figures) -> dict[str, Any]:
    """The one connection, as these replicas report it."""
    beats = [beat(f"validator-{number}", each) for number, each in enumerate(reports)]
    (found,) = describe_tenants(PROFILES, figures, beats, NOW)
    TenantRow.model_validate(found)
    return found


@pytest.mark.parametrize(
    ("changes", "state", "advice"),
    [
        ({}, "ok", "Nothing to do."),
        ({"last_ok": 0}, "unknown", "has not been asked yet: run scepstream doctor intune contoso"),
        ({"credential_not_after": 0}, "ok", "Nothing to do."),
        ({"credential_not_after": NOW + 30 * DAY}, "ok", "Nothing to do."),
        ({"credential_not_after": NOW + 30 * DAY - 1}, "warning", "expires in 29 days"),
        ({"credential_not_after": NOW + DAY}, "warning", "expires in 1 day:"),
        ({"credential_not_after": NOW}, "failing", "has expired"),
        ({"credential": 2}, "warning", "Credential 2 is in use"),
        ({"throttled_until": NOW + 1}, "warning", "throttles"),
        ({"throttled_until": NOW}, "ok", "Nothing to do."),
        ({"last_error": "outage: gone", "last_error_at": NOW}, "failing", "(outage: gone)"),
        ({"last_error": "outage: gone", "last_error_at": NOW - 10}, "ok", "Nothing to do."),
        ({"token_error": "AADSTS7000215", "last_error_at": NOW}, "failing", "(AADSTS7000215)"),
        ({"token_error": "AADSTS7000215", "last_error_at": NOW - 20}, "warning", "if it lasts"),
        ({"breaker_until": NOW + 30, "last_error_at": NOW}, "failing", "fails repeatedly"),
        ({"breaker_until": NOW - 30, "last_error_at": NOW}, "failing", "fails repeatedly"),
        ({"breaker_until": NOW + 30}, "warning", "if it lasts"),
        ({"pull_error": "permission"}, "warning", "not carried out (permission)"),
        ({"pull_open": 2}, "warning", "wait for an issuer"),
    ],
)
def test_a_report_has_its_state_and_says_what_to_do(
    changes: dict[str, Any], state: str, advice: str
) -> None:
    found = described(replace(WELL, **changes))

    assert (found["state"], advice in found["advice"]) == (state, True), found["advice"]


def test_a_connection_that_nobody_reports_is_unknown() -> None:
    (found,) = describe_tenants(PROFILES, {}, [], NOW)

    assert found["state"] is TenantState.UNKNOWN
    assert "No validator reports" in found["advice"]
    assert TenantRow.model_validate(found).last_ok is None


def test_what_fails_is_told_before_what_is_going_to() -> None:
    found = described(replace(WELL, credential=2, token_error="no", last_error_at=NOW))

    assert found["state"] is TenantState.FAILING
    assert "issues no token" in found["advice"]


def test_replicas_are_put_together() -> None:
    other = replace(
        WELL, last_ok=NOW - 5, calls={"success": 4, "outage": 1}, pulled_at=0, pull_open=0,
        last_error="outage: gone", last_error_at=NOW - 7,
    )  # fmt: skip
    found = described(replace(WELL, pull_open=1), other)

    assert found["calls"] == {"outage": 1, "success": 7}
    assert (found["last_ok"], found["last_error_at"]) == (NOW - 5, NOW - 7)
    assert found["last_error"] == "outage: gone"
    assert found["revocations"] == {"pulled_at": NOW - 30, "open": 1, "error": ""}
    assert (found["agree"], found["replicas"]) == (True, ["validator-0", "validator-1"])
    assert found["profiles"] == ["kiosks", "windows"]


@pytest.mark.parametrize(
    "changes", [{"tenant": "other"}, {"cloud": "china"}, {"credential_not_after": NOW + 90 * DAY}]
)
def test_replicas_that_differ_are_told(changes: dict[str, Any]) -> None:
    found = described(WELL, replace(WELL, **changes))

    assert not found["agree"]
    assert (found["state"], "Validators differ" in found["advice"]) == ("warning", True)


def test_the_first_credential_to_expire_is_told() -> None:
    found = described(WELL, replace(WELL, credential_not_after=NOW + 5 * DAY))

    assert (found["credential_not_after"], found["credential_days"]) == (NOW + 5 * DAY, 5)


def test_figures_of_its_profiles_are_summed() -> None:
    windows = Figures(2, {"success": 5, "expired": 1, "not_confirmed": 1})
    found = described(WELL, windows=windows, kiosks=Figures(1, {"success": 1}))

    assert (found["waiting"], found["issued_24h"], found["not_accepted_24h"]) == (3, 6, 1)
    assert found["refused_24h"] == {"expired": 1}
    assert (found["state"], "did not accept" in found["advice"]) == ("warning", True)


def test_a_reported_connection_that_no_profile_uses_is_listed() -> None:
    found = describe_tenants(PROFILES, {}, [beat("v", replace(WELL, connection="left"))], NOW)

    assert [each["connection"] for each in found] == ["contoso", "left"]
    assert found[1]["profiles"] == []


def test_names_are_those_that_the_configuration_allows() -> None:
    assert NAME.pattern == PATH_ID


def test_what_a_validator_makes_up_stays_within_bounds() -> None:
    huge = 10**30
    lies = replace(
        WELL, tenant="x" * 5000, last_ok=huge, last_error_at=-1, credential=huge, pull_open=-5,
        credential_not_after=huge, calls={f"{n:02}" * 200: huge for n in range(50)},
    )  # fmt: skip
    names = [replace(WELL, connection=name) for name in ("", "../x", "<b>", "a" * 64, "UPPER")]
    many = [replace(WELL, connection=f"made-up-{number}") for number in range(1000)]
    (only,) = describe_tenants(PROFILES, {}, [beat("v" * 900, lies, *names)], NOW)

    assert (len(only["tenant"]), len(only["replicas"][0]), len(only["calls"])) == (300, 300, 12)
    assert max(map(len, only["calls"])) <= 300
    assert max(*only["calls"].values(), only["credential"]) <= 2**53
    assert (only["last_ok"], only["credential_not_after"]) == (None, None)
    assert only["revocations"]["open"] == 0
    assert len(describe_tenants(PROFILES, {}, [beat("v", *many)], NOW)) == 200
