"""Profiles whose challenges Intune validates: what does not go with that is refused at once."""

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from services.validator import settings as validator
from shared.config.load import SettingsError, load
from shared.log.roles import Role
from tests.support.world import NOW
from tests.unit.shared import configurations
from tests.unit.shared.changed import change

GUID = "4b1f5a60-3f3b-4a43-8f0a-0c1f5a603f3b"
Keys = dict[str, Any]
SECRET = "the secret of the app"
BASE: Keys = {"intune_connection": "contoso", "challenge_password": None}


@pytest.fixture
def config(tmp_path: Path, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey) -> Path:
    found = configurations.write_all(tmp_path, rsa_key, ec_key)
    secret = tmp_path / "contoso.secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    table = f'tenant_id = "{GUID}"\nclient_id = "{GUID}"\nclient_secret_path = "contoso.secret"'
    found.write_text(f"{found.read_text()}\n[intune.contoso]\n{table}\n")
    return found


def problems(config: Path, **keys: Any) -> str:
    change(config, **(BASE | keys))
    with pytest.raises(SettingsError) as caught:
        load(config, {})
    return str(caught.value)


def test_a_profile_with_a_connection_asks_intune_and_waits_for_it(config: Path) -> None:
    change(config, **BASE)
    found = validator.read_settings(load(config, {}), NOW)
    (policy,) = (p for p in found.policies.values() if p.connection)

    assert (policy.connection, policy.withheld) == ("contoso", True)
    assert not policy.renewal.allowed
    assert set(found.connections()) == {"contoso"}
    assert SECRET not in repr(found)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"intune_connection": "fabrikam"}, "no such connection: fabrikam"),
        ({"challenge_password": "secret"}, "intune_allow_static"),
        ({"renewal": True}, "renewal"),
        ({"approval": "manual"}, "intune_allow_manual"),
        ({"compliance": "entra", "compliance_grace": "1h"}, "compliance_grace"),
        ({"compliance": "intune", "compliance_policy": {"good": "allow"}}, "no such state: good"),
        ({"compliance_on_error": "allow"}, "requires compliance"),
        ({"sid_lookup": "user"}, "sid_extension"),
    ],
)
def test_what_does_not_go_with_intune_is_refused(
    config: Path, keys: dict[str, Any], sentence: str
) -> None:
    assert sentence in problems(config, **keys)


@pytest.mark.parametrize(
    "keys",
    [
        {"challenge_password": "secret", "intune_allow_static": True},
        {"approval": "manual", "intune_allow_manual": True},
        {"renewal": False},
        {"compliance": "intune", "compliance_policy": {"unknown": "defer"}},
    ],
)
def test_an_explicit_word_admits_it(config: Path, keys: dict[str, Any]) -> None:
    change(config, **(BASE | keys))

    assert load(config, {}).confirmed()


@pytest.mark.parametrize("key", ["compliance", "sid_lookup", "intune_allow_static"])
def test_without_a_connection_its_keys_mean_nothing(config: Path, key: str) -> None:
    value: Any = {"compliance": "intune", "sid_lookup": "user"}.get(key, True)
    change(config, **{key: value})

    with pytest.raises(SettingsError, match=f"{key}: requires intune_connection"):
        load(config, {})


@pytest.mark.parametrize("role", [Role.GATEWAY, Role.ISSUER, Role.AUDIT])
def test_only_validators_need_the_tables_of_connections(config: Path, role: Role) -> None:
    change(config, **BASE)
    found = load(config, {}, role)

    assert found.intune == {}
    assert found.confirmed()
    assert not any(p.challenge_password for p in found.profiles.values() if p.intune_connection)
