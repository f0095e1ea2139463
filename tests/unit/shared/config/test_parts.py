"""Each service reads its part of the configuration, from a whole file or from its part alone."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from cli.services import _source
from shared.config.apart import load_apart
from shared.config.load import SettingsError, load
from shared.config.parts import PLACEHOLDER, part_of
from shared.log.roles import SERVICES, Role
from tests.unit.shared.configurations import text

INLINE = (
    "the-static-password",
    "the-webhook-secret-1",
    "the-bearer-token",
    "the-option-of-a-verifier",
    "the-database-password",
)


@pytest.fixture
def table() -> dict[str, Any]:
    """A file that holds everybody's secrets."""
    found = whole()
    found["audit"]["database_url"] = f"postgresql://audit:{INLINE[4]}@db/audit"
    found["profiles"]["corp-2"]["challenge_password"] = [INLINE[0], "another-password"]
    hooked = {k: v for k, v in found["profiles"]["corp-2"].items() if k != "challenge_password"}
    found["profiles"]["hooked"] = hooked | {
        "webhook_url": "https://hook.example/",
        "webhook_secret": INLINE[1],
        "webhook_bearer_token": INLINE[2],
    }
    added = {k: v for k, v in hooked.items() if not k.startswith("webhook")}
    found["profiles"]["added"] = added | {"verifier": {"voucher": {"key": INLINE[3]}}}
    return found


def whole() -> dict[str, Any]:
    return tomllib.loads(text())


def write(directory: Path, table: dict[str, Any]) -> Path:
    path = directory / "scepstream.toml"
    path.write_text(tomli_w.dumps(table))
    path.chmod(0o600)
    return path


def knows(role: Role) -> set[str]:
    """Which of the secrets above a service needs."""
    return {
        Role.VALIDATOR: set(INLINE[:4]), Role.AUDIT: {INLINE[4]},
    }.get(role, set())  # fmt: skip


@pytest.mark.parametrize("role", SERVICES)
def test_a_service_knows_its_own_secrets_alone(
    tmp_path: Path, table: dict[str, Any], role: Role
) -> None:
    found = repr(load(write(tmp_path, table), {}, role)) + json.dumps(part_of(table, role))

    assert {secret for secret in INLINE if secret in found} == knows(role)


@pytest.mark.parametrize("role", SERVICES)
def test_a_service_reads_a_file_without_the_secrets_of_others(
    tmp_path: Path, table: dict[str, Any], role: Role
) -> None:
    for other in set(SERVICES) - {role}:
        del table[other]
    if role is not Role.VALIDATOR:
        del table["profiles"]["corp-2"]["challenge_password"]
        del table["profiles"]["hooked"]["webhook_secret"]
        del table["profiles"]["hooked"]["webhook_bearer_token"]
        table["profiles"]["added"]["verifier"]["voucher"] = {}
    found = load(write(tmp_path, table), {}, role)

    assert set(found.profiles) == {"corp-2", "hooked", "added"}
    assert found.profiles["added"].verifiers == ("voucher",)
    assert PLACEHOLDER not in repr(getattr(found, role))


def test_what_a_service_needs_itself_is_still_asked_for(
    tmp_path: Path, table: dict[str, Any]
) -> None:
    for role in SERVICES:
        broken = {name: value for name, value in table.items() if name != role}
        with pytest.raises(SettingsError, match=f"{role}: required"):
            load(write(tmp_path, broken), {}, role)
    del table["profiles"]["corp-2"]["challenge_password"]
    with pytest.raises(SettingsError, match="has no verifier"):
        load(write(tmp_path, table), {}, Role.VALIDATOR)


def test_a_gateway_holds_the_password_of_a_profile_that_needs_it_there(
    tmp_path: Path, table: dict[str, Any]
) -> None:
    table["profiles"]["corp-2"]["password_recipients"] = True
    found = load(write(tmp_path, table), {}, Role.GATEWAY).profiles["corp-2"]
    assert found.challenge_password == (INLINE[0], "another-password")
    del table["profiles"]["corp-2"]["challenge_password"]

    with pytest.raises(SettingsError, match="has no verifier"):
        load(write(tmp_path, table), {}, Role.GATEWAY)


@pytest.mark.parametrize(
    ("written", "opens"),
    [*((value, True) for value in (True, 1, 1.0, "true", "yes", "ON", "1")),
     *((value, False) for value in (False, 0, "false", "no", "off", "0"))],
)  # fmt: skip
def test_what_counts_as_true_is_the_same_in_a_part(
    tmp_path: Path, table: dict[str, Any], written: object, *, opens: bool
) -> None:
    """A gateway that opens requests with a placeholder opens what anybody encrypts to it."""
    table["profiles"]["corp-2"]["password_recipients"] = written
    found = load(write(tmp_path, table), {}, Role.GATEWAY).profiles["corp-2"]

    assert found.password_recipients is opens
    assert (PLACEHOLDER in found.challenge_password) is not opens
    assert (INLINE[0] in found.challenge_password) is opens


@pytest.mark.parametrize(
    ("written", "is_verifier"),
    [({"one_time_enabled": "yes"}, True), ({"one_time_enabled": "no"}, False),
     ({"intune_enabled": 0}, False), ({"challenge_password": [""]}, False)],
    ids=str,
)  # fmt: skip
def test_what_is_no_verifier_gets_a_placeholder_in_a_part(
    tmp_path: Path, table: dict[str, Any], written: dict[str, object], *, is_verifier: bool
) -> None:
    profile = table["profiles"]["corp-2"]
    del profile["challenge_password"]
    profile |= written
    found = load(write(tmp_path, table), {}, Role.ISSUER).profiles["corp-2"]

    assert (found.challenge_password == (PLACEHOLDER,)) is not is_verifier


@pytest.mark.parametrize("role", SERVICES)
def test_what_is_wrong_in_a_part_is_said_as_in_the_whole(
    tmp_path: Path, table: dict[str, Any], role: Role
) -> None:
    table["profiles"]["corp-2"]["no_such_key"] = 1

    with pytest.raises(SettingsError, match=r"profiles\.corp-2\.no_such_key"):
        load(write(tmp_path, table), {}, role)


def test_a_gateways_part_is_read_by_another_process(tmp_path: Path, table: dict[str, Any]) -> None:
    path = write(tmp_path, table)

    assert load_apart(path, Role.GATEWAY) == load(path, role=Role.GATEWAY)


@pytest.mark.parametrize("wrong", ["[", "a = 1979-05-27", 'bus = "x"'])
def test_what_cannot_be_read_apart_is_one_sentence(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "scepstream.toml"
    path.write_text(wrong)
    with pytest.raises(SettingsError) as apart:
        load_apart(path, Role.GATEWAY)
    with pytest.raises(SettingsError) as whole_file:
        load(path, role=Role.GATEWAY)

    assert str(apart.value) == str(whole_file.value)
    assert "\n" not in str(apart.value)


@pytest.mark.parametrize("role", SERVICES)
def test_a_gateway_never_reads_the_file_itself(
    tmp_path: Path, table: dict[str, Any], role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its start and at every reload; the other services do."""
    path, read = write(tmp_path, table), []
    loads = tomllib.loads
    monkeypatch.setattr("shared.config.load.tomllib.loads", lambda t: read.append(1) or loads(t))
    source, _ = _source(path, role, lambda found: found)
    source.read()

    assert len(read) == (0 if role is Role.GATEWAY else 2)
    assert set(source.first.profiles) == {"corp-2", "hooked", "added"}
