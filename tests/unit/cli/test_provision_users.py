"""Which keys `scepstream provision server` finds in a directory, and what it says of others."""

import os
import re
from pathlib import Path

import nkeys
import pytest
from typer.testing import CliRunner

from cli.__main__ import app
from cli.provision import read_users
from cli.up.firststart import ensure_nkeys, first_start
from cli.up.layout import Layout
from shared.bus.users import User, public_key_of
from shared.config.load import SettingsError
from shared.log.roles import Role
from tests.support.world import NOW


def make(directory: Path, name: str) -> str:
    """A seed in a file; its public key."""
    seed = bytes(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)).decode()
    path = directory / f"{name}.nkey"
    path.touch(mode=0o600)
    path.write_text(seed)
    return public_key_of(seed)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    for role in Role:
        make(tmp_path, role)
    return tmp_path


def test_a_key_for_the_role_and_keys_for_replicas_are_users(keys: Path) -> None:
    own = make(keys, "gateway-1")
    found = [user for user in read_users(keys) if user.role is Role.GATEWAY]

    assert User(Role.GATEWAY, own, "gateway-1") in found
    assert [user.replica for user in found] == ["gateway-1", ""]


def test_a_public_key_will_do(keys: Path) -> None:
    public = make(keys, "issuer-7")
    (keys / "issuer-7.nkey").unlink()
    (keys / "issuer-7.pub").write_text(f"{public}\n")

    assert User(Role.ISSUER, public, "issuer-7") in read_users(keys)


def test_a_role_may_have_keys_of_replicas_alone(keys: Path) -> None:
    (keys / "gateway.nkey").unlink()
    own = make(keys, "gateway-0")

    found = [user for user in read_users(keys) if user.role is Role.GATEWAY]
    assert found == [User(Role.GATEWAY, own, "gateway-0")]


@pytest.mark.parametrize("text", ["", "SUAKEY", "U" + "A" * 54, "not a key", "\xff" * 56])
def test_what_is_no_public_key_is_named(keys: Path, text: str) -> None:
    (keys / "gateway-1.pub").write_text(text)

    with pytest.raises(SettingsError, match=r"gateway-1\.pub: not an nkey's public key"):
        read_users(keys)


def test_a_role_without_a_key_is_named(keys: Path) -> None:
    (keys / "audit.nkey").unlink()

    with pytest.raises(SettingsError, match="no key for the audit"):
        read_users(keys)


def test_other_files_of_the_directory_do_not_matter(keys: Path) -> None:
    for name in ("gateway-signing.pem", "gateway.nkey.bak", "gateway_1.nkey"):
        (keys / name).write_text("x")

    assert len(read_users(keys)) == len(Role)


def test_the_directory_that_up_makes_will_do(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    first_start(layout, "rsa:2048", None, 4222, NOW)
    ensure_nkeys(layout)

    assert {user.role for user in read_users(layout.key("x").parent)} == set(Role)


def test_the_configuration_lists_each_key_once_with_its_rights(keys: Path) -> None:
    own = make(keys, "gateway-1")
    command = ["provision", "server", "--keys", str(keys), "--store", "/var/lib/nats"]
    output = CliRunner().invoke(app, command).output
    user = re.search(rf"nkey: {own}, permissions: {{(.*?)}}}}", output, re.DOTALL)

    assert user is not None
    assert '"gw.gateway-1"' in user[1]
    assert '"$KV.REPLICAS.gateway.gateway-1"' in user[1]
    assert '"gw.*"' not in user[1]
