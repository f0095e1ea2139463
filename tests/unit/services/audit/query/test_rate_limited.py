"""Devices that hit their limit: each once, with all its refusals of a day, by the indexes."""

import pytest
from sqlalchemy import Engine, insert

from services.audit.query import rate_limited as module
from services.audit.query.rate_limited import RateLimited, list_rate_limited
from services.audit.store.tables import enrollments
from tests.support.world import NANOSECONDS, NOW
from tests.unit.services.audit.query.test_enrollments import explained

DAY = 86400
Refusal = tuple[str, str, int]


def add(engine: Engine, *refusals: Refusal, **changes: object) -> None:
    """Enrollments of (profile, device, seconds before NOW)."""
    rows = [
        {
            "enrollment": f"enroll.0.{profile}.{device}.{ago}",
            "profile": profile,
            "action": "scep_pkcsreq_intune",
            "state": "rejected",
            "reason": "rate_limited",
            "detail": f"{ago} ago",
            "device": f"CN={device} {ago}",
            "device_id": device.upper(),
            "claim_issuer": "connector",
            "claim_subject": device,
            "requested_at": (NOW - ago) * NANOSECONDS,
        }
        | changes
        for profile, device, ago in refusals
    ]
    with engine.begin() as connection:
        connection.execute(insert(enrollments), rows)


def listed(engine: Engine, limit: int = 50, profile: str | None = None) -> RateLimited:
    with engine.connect() as connection:
        return list_rate_limited(connection, NOW, limit, profile)


def lines(found: RateLimited) -> list[tuple[str, str, int, int]]:
    return [
        (row["profile"], row["claim_subject"], row["refusals"], NOW - row["last_at"] // NANOSECONDS)
        for row in found.devices
    ]


def test_a_device_is_listed_once_with_its_refusals_and_as_it_was_last(engine: Engine) -> None:
    add(engine, ("corp", "a", 30), ("corp", "b", 10), ("corp", "b", 20), ("lab", "b", 5))
    add(engine, ("corp", "b", 4), action="scep_renewalreq_intune")
    found = listed(engine)

    assert lines(found) == [("corp", "b", 3, 4), ("lab", "b", 1, 5), ("corp", "a", 1, 30)]
    assert found.devices[0] == {
        "profile": "corp",
        "claim_issuer": "connector",
        "claim_subject": "b",
        "device_id": "B",
        "device": "CN=b 4",
        "detail": "4 ago",
        "enrollment": "enroll.0.corp.b.4",
        "last_at": (NOW - 4) * NANOSECONDS,
        "refusals": 3,
    }
    assert found.is_complete
    assert lines(listed(engine, profile="lab")) == [("lab", "b", 1, 5)]
    assert len(listed(engine, limit=2).devices) == 2


def test_the_same_subject_of_another_issuer_is_another_device(engine: Engine) -> None:
    add(engine, ("corp", "a", 1))
    add(engine, ("corp", "a", 2), claim_issuer="another")

    assert [row["claim_issuer"] for row in listed(engine).devices] == ["connector", "another"]


def test_other_refusals_and_those_of_another_day_do_not_count(engine: Engine) -> None:
    add(engine, ("corp", "old", DAY + 1), ("corp", "edge", DAY))
    add(engine, ("corp", "replay", 1), reason="replay")
    add(engine, ("corp", "issued", 2), state="issued", reason=None)
    add(engine, ("corp", "plain", 3), action="scep_pkcsreq")

    assert lines(listed(engine)) == [("corp", "edge", 1, DAY)]


def test_a_list_that_could_not_look_at_all_refusals_says_so(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REFUSALS_SEARCHED", 2)
    add(engine, ("corp", "a", 1), ("corp", "b", 2))
    assert listed(engine).is_complete
    add(engine, ("corp", "c", 3))
    found = listed(engine)

    assert [line[1] for line in lines(found)] == ["a", "b"]
    assert not found.is_complete


@pytest.mark.parametrize("profile", [None, "corp"])
def test_refusals_are_found_by_an_index_in_its_order(engine: Engine, profile: str | None) -> None:
    add(engine, ("corp", "a", 1))
    for action in module._ACTIONS:
        plan = explained(engine, module._refused(action, NOW * NANOSECONDS, profile).limit(51))

        assert "enrollments_by_" in plan
        assert "TEMP B-TREE" not in plan
        assert "Sort" not in plan
        assert "Seq Scan" not in plan
        assert "SCAN" not in plan
