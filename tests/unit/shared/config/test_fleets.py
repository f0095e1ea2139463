"""Fleets and shards: where the log of a profile lives, and who is told of its enrollments."""

from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.audit import settings as audit
from services.gateway import settings as gateway
from services.validator import settings as validator
from shared.config.load import SettingsError, load
from shared.config.sections import Configuration
from shared.log.shards import Epoch, all_shards
from tests.support.world import NOW
from tests.unit.shared import configurations
from tests.unit.shared.changed import PROFILE, add_profile, change

SHARDS: Final = ("a", "b", "c", "d")
TRANSACTIONS: Final = tuple(f"transaction-{number}" for number in range(64))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return configurations.write(tmp_path)


def epochs(config: Path, *found: dict[str, Any]) -> Path:
    return change(config, "log", epochs=list(found))


def places(epoch: Epoch, profile: str) -> set[str]:
    """Where a profile's transactions go."""
    return {epoch.shard(profile, transaction) for transaction in TRANSACTIONS}


def only(configuration: Configuration) -> Epoch:
    (epoch,) = configuration.epochs()
    return epoch


# Where a profile lives


def test_by_default_its_transactions_are_spread_over_all_shards(config: Path) -> None:
    epoch = only(load(epochs(config, {"shards": SHARDS}), {}))

    assert epoch == Epoch(0.0, SHARDS, {})
    assert places(epoch, PROFILE) == set(SHARDS)


def test_a_profile_lives_on_its_own_shard(config: Path) -> None:
    change(epochs(config, {"shards": SHARDS}), shard="b")

    assert places(only(load(config, {})), PROFILE) == {"b"}


def test_a_profile_lives_where_its_fleet_is_pinned(config: Path) -> None:
    for name, fleet in (("lab", "north"), ("office", "north"), ("field", "south")):
        add_profile(config, name, fleet=fleet)
    epoch = only(load(epochs(config, {"shards": SHARDS, "pinned": {"north": "d"}}), {}))

    assert places(epoch, "lab") == places(epoch, "office") == {"d"}
    assert places(epoch, "field") == places(epoch, PROFILE) == set(SHARDS)


def test_a_profile_without_a_fleet_is_one_of_its_own_name(config: Path) -> None:
    epoch = only(load(epochs(config, {"shards": SHARDS, "pinned": {PROFILE: "c"}}), {}))

    assert places(epoch, PROFILE) == {"c"}


def test_its_own_shard_comes_before_its_fleets(config: Path) -> None:
    change(config, fleet="north", shard="a")
    add_profile(config, "lab", shard=None)
    epoch = only(load(epochs(config, {"shards": SHARDS, "pinned": {"north": "d"}}), {}))

    assert (places(epoch, PROFILE), places(epoch, "lab")) == ({"a"}, {"d"})


def test_each_epoch_pins_for_itself(config: Path) -> None:
    change(config, fleet="north")
    pins: tuple[dict[str, str], ...] = ({"north": "a"}, {"south": "b"}, {"north": "c"})
    found = [
        {"effective_at": float(at), "shards": SHARDS, "pinned": pinned}
        for at, pinned in enumerate(pins)
    ]
    first, second, third = load(epochs(config, *found), {}).epochs()

    assert [e.effective_at for e in (first, second, third)] == [0, 1, 2]
    assert places(first, PROFILE) == {"a"}
    assert places(second, PROFILE) == set(SHARDS)
    assert places(third, PROFILE) == {"c"}


def test_a_profile_of_a_fleet_is_not_taken_for_the_fleet_of_its_name(config: Path) -> None:
    """Pinned are fleets: profile lab is of fleet north, fleet lab is somebody else's."""
    add_profile(config, "lab", fleet="north")
    add_profile(config, "bench", fleet="lab")
    epoch = only(load(epochs(config, {"shards": SHARDS, "pinned": {"lab": "d"}}), {}))

    assert places(epoch, "bench") == {"d"}
    assert places(epoch, "lab") == set(SHARDS)


FLEETS = st.one_of(st.none(), st.sampled_from(["f-one", "f-two"]))
PINS = st.dictionaries(
    st.sampled_from(["f-one", "f-two", "p-one", "p-two"]), st.sampled_from(SHARDS)
)
OWN = st.one_of(st.none(), st.sampled_from(SHARDS))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.fixed_dictionaries({"p-one": st.tuples(FLEETS, OWN), "p-two": st.tuples(FLEETS, OWN)}), PINS
)
def test_own_shard_then_fleets_pin_then_hash(
    config: Path, profiles: dict[str, tuple[str | None, str | None]], pinned: dict[str, str]
) -> None:
    """Whatever is set: fleets are pinned, and a profile alone is a fleet of its own name."""
    configurations.write(config.parent)
    named = {name for name, (fleet, _) in profiles.items() if fleet is None}
    pinned = {name: shard for name, shard in pinned.items() if name[0] == "f" or name in named}
    epochs(config, {"shards": SHARDS, "pinned": pinned})
    for name, (fleet, shard) in profiles.items():
        add_profile(config, name, fleet=fleet, shard=shard)
    epoch = only(load(config, {}))

    for name, (fleet, shard) in profiles.items():
        place = shard or pinned.get(fleet or name)
        assert places(epoch, name) == ({place} if place else set(SHARDS))


# What follows from it


def test_shards_that_only_a_profile_or_a_fleet_names_have_streams_too(config: Path) -> None:
    change(config, shard="own")
    add_profile(config, "lab", fleet="north", shard=None)
    epochs(config, {"shards": ["0"], "pinned": {"north": "far"}})

    assert set(all_shards(load(config, {}).epochs())) == {"0", "own", "far"}


@pytest.fixture
def complete(
    tmp_path: Path, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey
) -> Path:
    return configurations.write_all(tmp_path, rsa_key, ec_key)


def test_every_service_knows_the_shards_alike(complete: Path) -> None:
    configuration = load(change(complete, shard="own"), {})
    validating = validator.read_settings(configuration, NOW)

    assert gateway.read_settings(configuration, NOW).epochs == configuration.epochs()
    assert validating.epochs == audit.read_settings(configuration).epochs == configuration.epochs()
    assert set(all_shards(validating.epochs)) == {"0", "own"}


@pytest.mark.parametrize(
    ("fleet", "expected"), [(None, PROFILE), ("", PROFILE), ("north", "north")]
)
def test_the_record_names_the_fleet_by_default_the_profile(
    complete: Path, fleet: str | None, expected: str
) -> None:
    configuration = load(change(complete, fleet=fleet), {})

    assert validator.read_settings(configuration, NOW).policies[PROFILE].fleet == expected


def test_fleet_and_shard_can_be_set_by_variables(config: Path) -> None:
    found = load(
        config,
        {"SCEPSTREAM_PROFILE_CORP_2_FLEET": "north", "SCEPSTREAM_PROFILE_CORP_2_SHARD": "b"},
    )

    assert (found.profiles[PROFILE].fleet, found.profiles[PROFILE].shard) == ("north", "b")


@pytest.mark.parametrize("shard", ["", "a.b", "a b", "*", ">", "x" * 33, "\u00fc", "a\n", 1])
def test_a_shard_that_is_no_subject_token_is_refused(config: Path, shard: Any) -> None:
    with pytest.raises(SettingsError, match=rf"profiles\.{PROFILE}\.shard: "):
        load(change(config, shard=shard), {})


@pytest.mark.parametrize("shard", ["", "a.b", "*", "x" * 33])
def test_a_fleet_is_pinned_to_a_subject_token(config: Path, shard: str) -> None:
    with pytest.raises(SettingsError, match=r"log\.epochs\.0\.pinned\.north: "):
        load(epochs(config, {"shards": ["0"], "pinned": {"north": shard}}), {})


# Who is told


def test_the_profiles_of_whose_enrollments_somebody_is_told_are_named(config: Path) -> None:
    assert load(config, {}).notified() == ()
    add_profile(config, "lab", notify_webhook_url="https://told.example/")
    add_profile(config, "bench", notify_webhook_url="http://127.0.0.1:9/")

    assert set(load(config, {}).notified()) == {"lab", "bench"}
