"""Who may read and write the files that decide who enrolls."""

import os
from pathlib import Path

import pytest

from shared.config import load as settings
from shared.config.load import SettingsError, load, read_secret_file
from shared.config.urls import MASK, holds_secret, masked_url
from tests.unit.shared.configurations import MARKER, text, write


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "role.key"
    path.write_bytes(b"secret")
    return path


def ours(monkeypatch: pytest.MonkeyPatch, *groups: int) -> None:
    """This process is in these groups alone."""
    monkeypatch.setattr(settings.os, "getegid", lambda: groups[0])
    monkeypatch.setattr(settings.os, "getgroups", lambda: list(groups))


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o440, 0o640])
def test_a_key_may_be_read_by_its_owner_and_a_group_of_this_process(
    key: Path, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    key.chmod(mode)
    ours(monkeypatch, 54321, key.stat().st_gid)
    assert read_secret_file(key) == b"secret"


@pytest.mark.parametrize("mode", [0o440, 0o640])
def test_a_key_that_another_group_may_read_is_refused(
    key: Path, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    key.chmod(mode)
    ours(monkeypatch, key.stat().st_gid + 1)
    with pytest.raises(
        SettingsError, match=f"mode is {mode:04o}.*this process is in the file's group"
    ):
        read_secret_file(key)


def test_a_key_of_another_user_is_not_read_by_way_of_a_group(
    key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key.chmod(0o640)
    monkeypatch.setattr(settings.os, "geteuid", lambda: key.stat().st_uid + 1)
    if key.stat().st_uid == 0:
        os.chown(key, 12345, -1)
    with pytest.raises(SettingsError, match="this user or root owns the file"):
        read_secret_file(key)


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o444, 0o660, 0o620, 0o606, 0o602, 0o777])
def test_a_key_for_others_or_that_a_group_may_write_is_refused(key: Path, mode: int) -> None:
    key.chmod(mode)
    with pytest.raises(SettingsError, match=f"mode is {mode:04o}, must be 0600"):
        read_secret_file(key)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o666])
def test_a_configuration_with_a_secret_in_it_is_for_its_owner_alone(
    tmp_path: Path, mode: int
) -> None:
    path = write(tmp_path)
    path.chmod(mode)
    with pytest.raises(SettingsError) as error:
        load(path, {})
    assert "profiles.corp-2.challenge_password" in str(error.value)
    assert f"{mode:04o}" in str(error.value)
    assert MARKER not in str(error.value)


@pytest.mark.parametrize(
    "changed",
    [
        'webhook_secret = "0123456789abcdef"\none_time_enabled = true',
        'webhook_bearer_token = "x"\none_time_enabled = true',
    ],
)
def test_every_secret_of_a_profile_counts(tmp_path: Path, changed: str) -> None:
    path = write(tmp_path, text().replace(f'challenge_password = "{MARKER}"', changed))
    path.chmod(0o644)
    with pytest.raises(SettingsError, match=changed.partition(" ")[0]):
        load(path, {})


def test_a_password_of_the_database_counts(tmp_path: Path) -> None:
    bare = text().replace(f'challenge_password = "{MARKER}"', "one_time_enabled = true")
    with_password = bare.replace("sqlite:///audit.db", "postgresql://keeper:s3cret@db.example/scep")
    path = write(tmp_path, with_password)
    path.chmod(0o644)
    with pytest.raises(SettingsError, match=r"audit\.database_url"):
        load(path, {})


SECRET_NUMBER = "48151623420815"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (f"challenge_password = {SECRET_NUMBER}", "challenge_password: .*write it as a string"),
        (f"challenge_password = {SECRET_NUMBER}.5", "challenge_password: .*write it as a string"),
        (f"challenge_password = [{SECRET_NUMBER}]", r"challenge_password\.0: .* string"),
        ("challenge_password = true", "challenge_password: .*write it as a string"),
        ("challenge_password = {a = 1}", "challenge_password: .*write it as a string"),
        (f"webhook_secret = {SECRET_NUMBER}", "webhook_secret: .* string"),
        (f"webhook_bearer_token = {SECRET_NUMBER}", "webhook_bearer_token: .* string"),
    ],
)
def test_a_secret_that_is_no_string_is_an_error_without_it(
    tmp_path: Path, changed: str, told: str
) -> None:
    path = write(tmp_path, text().replace(f'challenge_password = "{MARKER}"', changed))
    with pytest.raises(SettingsError, match=rf"profiles\.corp-2\.{told}") as error:
        load(path, {})

    assert SECRET_NUMBER not in str(error.value)


def test_a_secret_that_is_a_number_is_for_its_owner_alone_too(tmp_path: Path) -> None:
    changed = f"challenge_password = {SECRET_NUMBER}"
    path = write(tmp_path, text().replace(f'challenge_password = "{MARKER}"', changed))
    path.chmod(0o644)

    with pytest.raises(SettingsError, match=r"contains profiles\.corp-2\.challenge_password.*0644"):
        load(path, {})


def test_a_configuration_without_secrets_may_be_read_but_not_written_by_others(
    tmp_path: Path,
) -> None:
    bare = text().replace(f'challenge_password = "{MARKER}"', "one_time_enabled = true")
    path = write(tmp_path, bare.replace("sqlite:///audit.db", "postgresql://keeper@db/scep"))
    path.chmod(0o644)
    assert load(path, {}).profiles["corp-2"].one_time_enabled
    path.chmod(0o646)
    with pytest.raises(SettingsError, match="others may write"):
        load(path, {})


def test_a_byte_order_mark_is_passed_over_and_another_encoding_named(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + text().encode())
    assert load(path, {}).profiles["corp-2"].challenge_password == (MARKER,)
    path.write_bytes(text().encode("utf-16"))
    with pytest.raises(SettingsError, match="its text is not UTF-8"):
        load(path, {})


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("sqlite:///audit.db", "postgresql://db/scep?user=a&password=b", "audit.database_url"),
        ("sqlite:///audit.db", "postgresql://keeper:b@db/scep", "audit.database_url"),
        ("nats://127.0.0.1:4222", "nats://user:b@127.0.0.1:4222", "bus.url"),
    ],
)
def test_a_password_in_a_url_is_a_secret_wherever_it_stands(
    tmp_path: Path, old: str, new: str, key: str
) -> None:
    bare = text().replace(f'challenge_password = "{MARKER}"', "one_time_enabled = true")
    assert old in bare
    path = write(tmp_path, bare.replace(old, new))
    path.chmod(0o644)

    with pytest.raises(SettingsError, match=f"contains the password of {key}.*0644"):
        load(path, {})


@pytest.mark.parametrize(
    ("url", "is_secret"),
    [
        ("sqlite:///audit.db", False),
        ("postgresql://db/scep", False),
        ("postgresql://keeper@db/scep", False),
        ("postgresql://keeper:@db/scep", False),
        ("postgresql://db/scep?user=a&passfile=/etc/pgpass", False),
        ("postgresql://keeper:p/w@db/scep", True),
        ("postgresql://db/scep?sslpassword=x", True),
        ("postgresql://db/scep?user=a&password=b", True),
        ("nats://127.0.0.1:4222", False),
        ("nats://token@127.0.0.1:4222", True),
        ("nats://user:b@127.0.0.1:4222", True),
    ],
)
def test_only_credentials_make_a_url_secret(url: str, is_secret: bool) -> None:  # noqa: FBT001
    assert holds_secret(url) is is_secret
    assert not is_secret or MASK in masked_url(url)
