"""What alerts read of certificates that expire: by configured profile, and nothing old."""

from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Engine, insert

from services.audit.expiry.gauges import ExpiryGauges
from services.audit.store.tables import certificates
from shared.config.load import SettingsError, load
from tests.support.world import NOW, Clock
from tests.unit.shared import configurations

DAY = 86400


def add(engine: Engine, serial: str, days: float, profile: str | None) -> None:
    end = int(NOW + days * DAY)
    values = {
        "issuer": "local", "serial": serial, "enrollment": "e", "profile": profile,
        "subject": f"CN={serial}", "not_before": end - 366 * DAY, "not_after": end,
        "recorded_at": 1,
    }  # fmt: skip
    with engine.begin() as connection:
        connection.execute(insert(certificates).values(values))


def samples(metric: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for family in REGISTRY.collect()
        if family.name == f"scepstream_certificates_{metric}"
        for sample in family.samples
    }


async def test_gauges_count_by_profile_and_forget_when_they_cannot(
    engine: Engine, tmp_path: Path
) -> None:
    configuration: Any = load(configurations.write(tmp_path), {})
    for serial, days, profile in (
        ("0a", 0.5, "corp-2"), ("0b", 6, "corp-2"), ("0c", 60, "corp-2"), ("0d", -1, "corp-2"),
        ("0e", 29, "gone"), ("0f", 29, None),
    ):  # fmt: skip
        add(engine, serial, days, profile)
    gauges = ExpiryGauges(engine, lambda: configuration, Clock())
    await gauges.look()
    assert samples("expiring") == {
        ("corp-2", "1"): 1, ("corp-2", "7"): 2, ("corp-2", "30"): 2,
        ("other", "30"): 2,
    }  # fmt: skip
    assert samples("not_renewed") == {("corp-2",): 3, ("other",): 2}

    def broken() -> Any:
        raise SettingsError("x")

    gauges.configuration = broken
    with pytest.raises(SettingsError):
        await gauges.look()
    assert samples("expiring") == samples("not_renewed") == {}
