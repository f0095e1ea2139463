"""`start = "available"`: one bad profile does not stop the others; else it stops everything."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from services.audit import settings as audit
from services.gateway import settings as gateway
from services.issuer import settings as issuer
from services.validator import settings as validator
from shared.config.load import SettingsError, load, read_profiles, without
from shared.config.sections import Configuration
from shared.runtime.reload import Reloader, Source
from tests.support.world import NOW, until
from tests.unit.shared import configurations
from tests.unit.shared.changed import PROFILE, TABLE, add_profile, change
from tests.unit.shared.configurations import MARKER

BAD: Final[Mapping[str, Mapping[str, Any]]] = {
    "issuer_id": {"issuer_id": "unheard"},
    "profile_id": {"profile_id": "unheard"},
    "challenge_password": {"challenge_password": []},
    "mtls_client_ca_trust_bundle_path": {"mtls_enabled": True},
    "ra_key_path": {"ra_key_path": ["ra.key", "ra.key"]},
    "intune_connector_cert_path": {"intune_enabled": True},
    "webhook_url": {"webhook_url": "http://example.com/"},
    "webhook_secret": {"webhook_secret": "short"},
    "webhook_client_key_path": {"webhook_client_cert_path": "ra.pem"},
}


@pytest.fixture
def config(tmp_path: Path, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey) -> Path:
    """A complete configuration of two profiles that may start without one of them."""
    path = configurations.write_all(tmp_path, rsa_key, ec_key)
    for name in ("ra.pem", "ra.key"):
        (tmp_path / f"lab-{name}").write_bytes((tmp_path / name).read_bytes())
        (tmp_path / f"lab-{name}").chmod(0o600)
    add_profile(path, "lab", ra_cert_path="lab-ra.pem", ra_key_path="lab-ra.key")
    return change(path, "", start="available")


def refused(read: Callable[[], Any]) -> str:
    with pytest.raises(SettingsError) as error:
        read()
    assert MARKER not in str(error.value)
    return str(error.value)


# What does not fit together


@pytest.mark.parametrize("key", BAD)
def test_a_profile_that_does_not_fit_is_left_out_and_said_so(config: Path, key: str) -> None:
    found = load(change(config, **BAD[key]), {})

    assert set(found.profiles) == {"lab"}
    assert list(found.left_out) == [PROFILE]
    assert found.left_out[PROFILE].startswith(f"{config}: profiles.{PROFILE}.{key}: ")
    assert MARKER not in found.left_out[PROFILE]


@pytest.mark.parametrize("key", BAD)
def test_by_default_it_stops_everything(config: Path, key: str) -> None:
    change(config, "", start=None)

    assert f"profiles.{PROFILE}.{key}: " in refused(lambda: load(change(config, **BAD[key]), {}))


def test_a_reserved_path_id_is_left_out(config: Path) -> None:
    add_profile(config, "intune")

    assert set(load(config, {}).profiles) == {PROFILE, "lab"}


def test_of_several_bad_profiles_each_is_said(config: Path) -> None:
    add_profile(config, "third", issuer_id="unheard")
    found = load(change(config, **BAD["profile_id"]), {})

    assert set(found.profiles) == {"lab"}
    assert set(found.left_out) == {PROFILE, "third"}
    assert "third.issuer_id" in found.left_out["third"]


def test_without_any_good_profile_nothing_starts(config: Path) -> None:
    change(config, **BAD["issuer_id"])
    change(config, "profiles.lab", **BAD["issuer_id"])

    assert "issuer_id: no such issuer: unheard" in refused(lambda: load(config, {}))


def test_where_all_is_well_nothing_is_left_out(config: Path) -> None:
    found = load(config, {})

    assert (set(found.profiles), found.left_out) == ({PROFILE, "lab"}, {})
    assert without(found, {}) is found


def test_the_default_profile_may_be_the_one_that_is_left_out(config: Path) -> None:
    change(config, "gateway", default_profile=PROFILE)

    assert set(load(change(config, **BAD["issuer_id"]), {}).left_out) == {PROFILE}


@pytest.mark.parametrize(
    ("table", "keys", "complaint"),
    [
        ("gateway", {"default_profile": "unheard"}, "gateway.default_profile"),
        ("gateway", {"tls_cert_path": "tls.pem"}, "gateway.tls_key_path"),
        ("issuers.local", {"ca_key_path": ["ca.key", "ca.key"]}, "issuers.local.ca_key_path"),
        (TABLE, {"unheard": 1}, f"{TABLE}.unheard"),
        (TABLE, {"reply_budget": "soon"}, f"{TABLE}.reply_budget"),
    ],
)
def test_what_is_wrong_with_the_whole_file_still_stops_everything(
    config: Path, table: str, keys: dict[str, Any], complaint: str
) -> None:
    assert complaint in refused(lambda: load(change(config, table, **keys), {}))


@pytest.mark.parametrize("start", ["some", "ALL", "", True])
def test_there_is_no_third_way_to_start(config: Path, start: Any) -> None:
    assert "start: " in refused(lambda: load(change(config, "", start=start), {}))


def test_what_is_left_out_is_computed_never_written(config: Path) -> None:
    change(config, "", left_out={"corp-2": "because"})

    assert refused(lambda: load(config, {})) == (f"{config}: left_out: no such setting")


# Files


def test_a_gateway_serves_the_profiles_whose_ra_pair_is_good(config: Path) -> None:
    (config.parent / "lab-ra.pem").write_text(MARKER)
    found = gateway.read_settings(load(config, {}), NOW)

    assert set(found.profiles) == {PROFILE}
    assert set(found.left_out) == {"lab"}
    assert "profile lab: " in found.left_out["lab"]
    assert f"{config.parent / 'lab-ra.pem'}: " in found.left_out["lab"]
    assert MARKER not in found.left_out["lab"]


def test_a_validator_judges_for_the_profiles_whose_anchors_are_good(config: Path) -> None:
    keys = {"intune_enabled": True, "intune_connector_cert_path": "absent.pem"}
    found = validator.read_settings(load(change(config, "profiles.lab", **keys), {}), NOW)

    assert set(found.policies) == set(found.access) == {PROFILE}
    assert "profile lab: " in found.left_out["lab"]
    assert "absent.pem: No such file" in found.left_out["lab"]


@pytest.mark.parametrize("read", [gateway.read_settings, validator.read_settings])
def test_what_was_left_out_before_is_still_said_beside_what_is_now(
    config: Path, read: Callable[[Configuration, float], Any]
) -> None:
    add_profile(config, "third", issuer_id="unheard")
    (config.parent / "lab-ra.pem").unlink()
    keys = {"intune_enabled": True, "intune_connector_cert_path": "absent.pem"}
    found = read(load(change(config, "profiles.lab", **keys), {}), NOW)

    assert set(found.left_out) == {"lab", "third"}


@pytest.mark.parametrize("start", [None, "all"])
def test_by_default_one_bad_file_stops_the_service(config: Path, start: str | None) -> None:
    (config.parent / "lab-ra.pem").unlink()
    change(config, "", start=start)

    complaint = refused(lambda: gateway.read_settings(load(config, {}), NOW))
    assert complaint.startswith("profile lab: ")


def test_without_any_good_pair_no_gateway_starts(config: Path) -> None:
    for name in ("ra.pem", "lab-ra.pem"):
        (config.parent / name).unlink()

    assert refused(lambda: gateway.read_settings(load(config, {}), NOW)).startswith("profile ")


def test_the_other_services_start_all_the_same(config: Path) -> None:
    configuration = load(change(config, **BAD["profile_id"]), {})

    assert issuer.read_settings(configuration).issuers
    assert audit.read_settings(configuration).streams


def test_a_service_key_that_is_wrong_is_no_profiles_matter(config: Path) -> None:
    (config.parent / "gateway.nkey").chmod(0o644)

    assert "gateway.nkey" in refused(lambda: gateway.read_settings(load(config, {}), NOW))


def test_an_error_that_is_no_word_on_a_profile_is_not_swallowed(config: Path) -> None:
    def read(name: str, _: Any) -> str:
        raise ZeroDivisionError(name)

    with pytest.raises(ZeroDivisionError):
        read_profiles(load(config, {}), read)


def test_each_profile_is_read_once_under_its_name(config: Path) -> None:
    configuration = load(config, {})
    found, left_out = read_profiles(configuration, lambda name, profile: (name, profile))

    assert found == {name: (name, p) for name, p in configuration.profiles.items()}
    assert left_out == {}


# While it runs


async def test_a_reload_that_finds_a_broken_file_keeps_what_served(config: Path) -> None:
    """Parsed first, swapped together, old kept on error: nothing is served less than before."""

    def read() -> gateway.Settings:
        return gateway.read_settings(load(config, {}), NOW)

    source = Source(read(), read)
    served, heard, hangup = source.first, asyncio.Event(), asyncio.Event()

    async def apply(settings: gateway.Settings) -> None:
        nonlocal served
        served = settings
        heard.set()

    running = asyncio.create_task(Reloader(source, apply).on(hangup))
    (config.parent / "lab-ra.pem").write_text("half a certifi")
    hangup.set()
    await until(lambda: not hangup.is_set())
    with suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            await heard.wait()
    running.cancel()

    assert set(served.profiles) == {PROFILE, "lab"}
