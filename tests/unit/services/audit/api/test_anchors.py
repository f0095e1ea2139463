"""What the API tells of a profile's trust anchors: every bundle, from validators or from files."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from services.audit.api.anchors import describe_anchors
from shared.config.load import load
from shared.config.sections import Configuration
from shared.log.events.state import Heartbeat, LoadedAnchor
from tests.support import pki
from tests.unit.shared import configurations
from tests.unit.shared.changed import PROFILE, change

NOW: Final = 1_800_000_000
DAY: Final = 86400
TENANT: Final = "https://sts.example/1"
KEY: Final = ec.derive_private_key(91, ec.SECP256R1())


def write(path: Path, name: str, days: int) -> None:
    start = datetime.fromtimestamp(NOW, UTC)
    made = pki.make_certificate(
        KEY.public_key(),
        KEY,
        subject=name,
        start=start - timedelta(days=99),
        end=start + timedelta(days=days),
    )
    pki.write_certificate(path, made)


@pytest.fixture
def configuration(
    tmp_path: Path, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey
) -> Configuration:
    """A profile with a common bundle and a tenant's."""
    write(tmp_path / "common.pem", "file-common", 200)
    write(tmp_path / "tenant.pem", "file-tenant", 12)
    path = configurations.write_all(tmp_path, rsa_key, ec_key)
    change(
        path,
        intune_enabled=True,
        intune_connector_cert_path="common.pem",
        intune_tenant_cert_paths={TENANT: "tenant.pem"},
    )
    return load(path, {})


def anchor(subject: str, days: int, issuer: str | None = None, **changes: Any) -> LoadedAnchor:
    values = {
        "profile": PROFILE,
        "subject": f"CN={subject}",
        "sha256": subject.encode().hex(),
        "not_before": NOW - DAY,
        "not_after": NOW + days * DAY,
        "issuer": issuer,
    }
    return LoadedAnchor(**(values | changes))


def heartbeat(*loaded: LoadedAnchor) -> Heartbeat:
    return Heartbeat(role="validator", name="v", since=0, anchors={}, loaded=loaded)


def described(configuration: Configuration, *validators: Heartbeat) -> dict[str, Any]:
    section = configuration.profiles[PROFILE]
    return describe_anchors(configuration, PROFILE, section, validators, NOW)


def lines(found: dict[str, Any]) -> list[tuple[str | None, str, str, int]]:
    return [
        (bundle["issuer"], each["subject"], each["state"], each["days_to_expiry"])
        for bundle in found["anchor_bundles"]
        for each in bundle["anchors"]
    ]


def test_without_a_validator_the_files_are_shown(configuration: Configuration) -> None:
    found = described(configuration)

    assert lines(found) == [
        (None, "CN=file-common", "valid", 200),
        (TENANT, "CN=file-tenant", "expiring", 12),
    ]
    assert [each["path"] for each in found["anchor_bundles"]] == ["common.pem", "tenant.pem"]
    assert {len(each["anchors"][0]["sha256"]) for each in found["anchor_bundles"]} == {64}
    assert (found["anchors_state"], found["anchors_days_to_expiry"]) == ("expiring", 12)


def test_what_any_validator_has_loaded_is_shown_once_the_first_to_expire_first(
    configuration: Configuration,
) -> None:
    old, new = anchor("old", 5), anchor("new", 400)
    other = anchor("other", 1, profile="another")
    tenant = anchor("tenant", 30, TENANT)
    found = described(configuration, heartbeat(new, tenant, other), heartbeat(new, old))

    assert lines(found) == [
        (None, "CN=old", "expiring", 5),
        (None, "CN=new", "valid", 400),
        (TENANT, "CN=tenant", "valid", 30),
    ]


def test_a_bundle_that_no_validator_reports_is_that_of_the_file(
    configuration: Configuration,
) -> None:
    found = described(configuration, heartbeat(anchor("loaded", 90)))

    assert [line[1] for line in lines(found)] == ["CN=loaded", "CN=file-tenant"]


def test_an_expired_anchor_is_the_worst_and_a_file_that_is_gone_is_not_loaded(
    configuration: Configuration, tmp_path: Path
) -> None:
    (tmp_path / "tenant.pem").unlink()
    good = described(configuration, heartbeat(anchor("good", 90)))
    expired = described(configuration, heartbeat(anchor("expired", 0)))

    assert [each["state"] for each in good["anchor_bundles"]] == ["valid", "not_loaded"]
    assert (good["anchors_state"], good["anchors_days_to_expiry"]) == ("not_loaded", None)
    assert [each["state"] for each in expired["anchor_bundles"]] == ["expired", "not_loaded"]
    assert (expired["anchors_state"], expired["anchors_expired"]) == ("expired", True)


def test_times_that_no_certificate_has_are_described_nevertheless(
    configuration: Configuration,
) -> None:
    odd = anchor("odd", 0, not_before=-(10**30), not_after=10**30)

    assert described(configuration, heartbeat(odd))["anchor_bundles"][0]["state"] == "valid"
