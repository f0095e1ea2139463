"""Days until certificates end: as of each look, and of none that is gone."""

from shared.observe.metrics import EXPIRY_DAYS, measure_expiry

DAY = 86400


def shown(kind: str) -> dict[str, float]:
    return {
        sample.labels["name"]: sample.value
        for family in EXPIRY_DAYS.collect()
        for sample in family.samples
        if sample.labels["kind"] == kind
    }


def test_what_is_left_shrinks_as_time_goes_by_and_what_is_gone_is_not_shown() -> None:
    time = [0.0]
    measure_expiry("test", {"a": 30.0 * DAY, "b": 10.0 * DAY}, lambda: time[0])
    assert shown("test") == {"a": 30, "b": 10}

    time[0] = 29.0 * DAY
    assert shown("test") == {"a": 1, "b": -19}

    measure_expiry("test", {"a": 60.0 * DAY}, lambda: time[0])
    assert shown("test") == {"a": 31}
    measure_expiry("test", {}, lambda: time[0])
    assert shown("test") == {}
