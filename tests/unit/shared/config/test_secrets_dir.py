"""The directory of secrets: a file for each value, over the environment, over the file."""

import tempfile
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.config.load import SettingsError, load
from shared.config.sections import Configuration
from tests.unit.shared.changed import PROFILE, add_profile, change
from tests.unit.shared.configurations import MARKER, write

CHALLENGE: Final = "SCEPSTREAM_PROFILE_CORP_2_CHALLENGE_PASSWORD"
NO_LINE_END = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"))


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    found = tmp_path / "secrets"
    found.mkdir()
    return found


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write(tmp_path)


def loaded(config: Path, secrets: Path | str, **environment: str) -> Configuration:
    return load(config, environment | {"SCEPSTREAM_SECRETS_DIR": str(secrets)})


def refused(config: Path, secrets: Path | str, **environment: str) -> str:
    """The complaint; a secret never stands in it."""
    with pytest.raises(SettingsError) as error:
        loaded(config, secrets, **environment)
    assert MARKER not in str(error.value)
    return str(error.value)


def challenges(configuration: Configuration) -> tuple[str, ...]:
    return configuration.profiles[PROFILE].challenge_password


# What a file sets


@pytest.mark.parametrize(
    ("table", "key", "content", "expected"),
    [
        ("profile_corp_2", "challenge_password", "from a file", ("from a file",)),
        ("profile_corp_2", "webhook_secret", "k" * 16, "k" * 16),
        ("profile_corp_2", "legacy", "yes\n", True),
        ("profile_corp_2", "reply_budget", "90s\n", 90.0),
        ("audit", "database_url", "sqlite:///x.db\n", "sqlite:///x.db"),
        ("gateway", "body_limit", "5000\n", 5000),
    ],
)
def test_a_file_sets_the_key_that_a_variable_of_its_name_sets(
    config: Path, secrets: Path, table: str, key: str, content: str, expected: Any
) -> None:
    (secrets / f"SCEPSTREAM_{table}_{key}".upper()).write_text(content)
    found = loaded(config, secrets)
    place = getattr(found, table, found.profiles[PROFILE])

    assert getattr(place, key) == expected


def test_a_name_in_lower_case_is_the_same_name(config: Path, secrets: Path) -> None:
    (secrets / CHALLENGE.lower()).write_text("lower")

    assert challenges(loaded(config, secrets)) == ("lower",)


def test_a_secret_lies_over_the_environment_and_that_over_the_file(
    config: Path, secrets: Path
) -> None:
    environment = {CHALLENGE: "from the environment"}

    assert challenges(loaded(config, secrets)) == (MARKER,)
    assert challenges(loaded(config, secrets, **environment)) == ("from the environment",)
    (secrets / CHALLENGE).write_text("from a file")
    assert challenges(loaded(config, secrets, **environment)) == ("from a file",)


def test_an_empty_directory_changes_nothing(config: Path, secrets: Path) -> None:
    assert loaded(config, secrets) == load(config, {})


def test_without_a_directory_nothing_is_looked_for(config: Path) -> None:
    assert loaded(config, "") == load(config, {})


def test_a_mounted_kubernetes_secret_is_read_through_its_links(config: Path, secrets: Path) -> None:
    """Each key is a link into ..data, which is a link to a directory that a swap replaces."""
    real = secrets / "..2026_01_01_00_00_00.1"
    real.mkdir()
    (real / CHALLENGE).write_text("mounted")
    (secrets / "..data").symlink_to(real.name)
    (secrets / CHALLENGE).symlink_to(Path("..data") / CHALLENGE)

    assert challenges(loaded(config, secrets)) == ("mounted",)


def test_a_directory_changed_since_is_read_anew(config: Path, secrets: Path) -> None:
    (secrets / CHALLENGE).write_text("one")
    first = loaded(config, secrets)
    (secrets / CHALLENGE).write_text("two")

    assert (challenges(first), challenges(loaded(config, secrets))) == (("one",), ("two",))


# The value of a file


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"s3cret", "s3cret"),
        (b"s3cret\n", "s3cret"),
        (b"s3cret\r\n", "s3cret"),
        (b"s3cret\n\n", "s3cret\n"),
        (b" s3cret \t\n", " s3cret \t"),
        (b"\ns3cret", "\ns3cret"),
        ("gr\u00fc\u00dfe \U0001f511\n".encode(), "gr\u00fc\u00dfe \U0001f511"),
    ],
)
def test_one_line_end_is_not_the_values(
    config: Path, secrets: Path, content: bytes, value: str
) -> None:
    (secrets / CHALLENGE).write_bytes(content)

    assert challenges(loaded(config, secrets)) == (value,)


@pytest.mark.parametrize("value", ["one\r\ntwo", "one\rtwo"])
def test_line_ends_within_a_value_are_the_values(config: Path, secrets: Path, value: str) -> None:
    (secrets / CHALLENGE).write_bytes(value.encode() + b"\n")

    assert challenges(loaded(config, secrets)) == (value,)


@settings(max_examples=40)
@given(NO_LINE_END.filter(bool), st.sampled_from(["", "\n", "\r\n"]))
def test_any_line_of_text_is_the_value(value: str, end: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        config, secrets = write(Path(name)), Path(name) / "secrets"
        secrets.mkdir()
        (secrets / CHALLENGE).write_bytes((value + end).encode())

        assert challenges(loaded(config, secrets)) == (value,)


@pytest.mark.parametrize("content", ["", "\n", "\r\n"])
def test_an_empty_file_is_an_empty_value(config: Path, secrets: Path, content: str) -> None:
    (secrets / CHALLENGE).write_text(content)

    assert refused(config, secrets).endswith(
        f"profiles.{PROFILE}.challenge_password: the profile has no verifier: "
        "set challenge_password or enable another verifier"
    )


# What is refused


@pytest.mark.parametrize(
    "name",
    ["README", "challenge", "SCEPSTREAM_", "SCEPSTREAM_UNHEARD", "SCEPSTREAM_CONFIG",
     "SCEPSTREAM_SECRETS_DIR", "SCEPSTREAM_PROFILE_OTHER_LEGACY", "SCEPSTREAM_VERSION",
     "SCEPSTREAM_BUS_URL.bak", "scepstream_config", "CERTCTL_SCEP_CHALLENGE_PASSWORD"],
)  # fmt: skip
def test_an_unknown_file_is_named_and_not_quoted(config: Path, secrets: Path, name: str) -> None:
    (secrets / name).write_text(MARKER)
    complaint = refused(config, secrets)

    assert name.upper() in complaint.upper()
    assert complaint.endswith("no such setting")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("SCEPSTREAM_PROFILE_CORP_2_LEGACY", "not true or false"),
        ("SCEPSTREAM_GATEWAY_BODY_LIMIT", "not a whole number"),
        ("SCEPSTREAM_PROFILE_CORP_2_REPLY_BUDGET", "profiles.corp-2.reply_budget"),
        ("SCEPSTREAM_PROFILE_CORP_2_WEBHOOK_TIMEOUT", "profiles.corp-2.webhook_timeout"),
    ],
)
def test_a_value_that_does_not_parse_is_named_and_not_quoted(
    config: Path, secrets: Path, name: str, complaint: str
) -> None:
    (secrets / name).write_text(MARKER)

    assert complaint in refused(config, secrets)


def test_a_directory_that_is_not_there_is_named(config: Path, tmp_path: Path) -> None:
    complaint = refused(config, tmp_path / "absent")

    assert complaint == f"{tmp_path / 'absent'}: No such file or directory"


def test_a_file_in_place_of_the_directory_is_named(config: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert refused(config, tmp_path / "file") == f"{tmp_path / 'file'}: Not a directory"


def test_a_file_that_is_no_text_is_named(config: Path, secrets: Path) -> None:
    (secrets / CHALLENGE).write_bytes(MARKER.encode() + b"\xff")
    complaint = refused(config, secrets)

    assert "not UTF-8 text" in complaint
    assert CHALLENGE in complaint


def test_a_directory_in_place_of_a_file_is_named(config: Path, secrets: Path) -> None:
    (secrets / CHALLENGE).mkdir()
    complaint = refused(config, secrets)

    assert "directory" in complaint
    assert CHALLENGE in complaint


def test_a_link_to_nowhere_is_named(config: Path, secrets: Path) -> None:
    (secrets / CHALLENGE).symlink_to("nowhere")

    assert CHALLENGE in refused(config, secrets)


def test_two_files_for_one_setting_are_refused(config: Path, secrets: Path) -> None:
    """Else it is for the alphabet to say which of them counts."""
    for name in (CHALLENGE, CHALLENGE.lower()):
        (secrets / name).write_text(name)
    assert len(list(secrets.iterdir())) == 2, "TMPDIR must be where names differ by case"

    assert CHALLENGE in refused(config, secrets).upper()


# Numbers and names, wherever they come from


@pytest.mark.parametrize("value", ["", "-1", "1.0", "1e3", "0x10", "\u00b2", "9" * 5000])
def test_what_is_no_number_is_the_one_error(config: Path, secrets: Path, value: str) -> None:
    assert "SCEPSTREAM_GATEWAY_BODY_LIMIT" in refused(
        config, "", SCEPSTREAM_GATEWAY_BODY_LIMIT=value
    )
    (secrets / "SCEPSTREAM_GATEWAY_BODY_LIMIT").write_text(value)
    assert "SCEPSTREAM_GATEWAY_BODY_LIMIT" in refused(config, secrets)


def test_what_a_variable_of_two_meanings_sets_is_not_for_the_files_order_to_say(
    tmp_path: Path,
) -> None:
    """Is it notify_webhook_url of corp, or webhook_url of corp-notify?"""
    variable = {"SCEPSTREAM_PROFILE_CORP_NOTIFY_WEBHOOK_URL": "https://told.example/"}
    found = []
    for names in (("corp", "corp-notify"), ("corp-notify", "corp")):
        config = write(tmp_path)
        for name in names:
            add_profile(config, name)
        change(config, "profiles", **{PROFILE: None})
        try:
            profiles = load(config, variable).profiles
        except SettingsError as error:
            found.append(str(error).removeprefix(f"{config}: "))
        else:
            found.append(f"notified: {profiles['corp'].notify_webhook_url}")

    assert found[0] == found[1]
