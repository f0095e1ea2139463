"""certctl's variables as profiles: what each means here, and that nothing is lost silently."""

import re
from collections.abc import Mapping
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.certctl import DEFAULT, NotImportableError, import_profiles, read_variables
from shared.config.fields import PATH_ID, parse_duration

SECRET: Final = "Ma7ker-of-a-s3cret"
KEYS: Final = (
    "ISSUER_ID", "PROFILE_ID", "CHALLENGE_PASSWORD", "RA_CERT_PATH", "RA_KEY_PATH", "MTLS_ENABLED",
    "MTLS_CLIENT_CA_TRUST_BUNDLE_PATH", "INTUNE_ENABLED", "INTUNE_CONNECTOR_CERT_PATH",
    "INTUNE_AUDIENCE", "INTUNE_CHALLENGE_VALIDITY", "INTUNE_CLOCK_SKEW_TOLERANCE",
    "INTUNE_PER_DEVICE_RATE_LIMIT_24H",
)  # fmt: skip
FLAT: Final = KEYS[:5]
TEXTS: Final = (*FLAT, "MTLS_CLIENT_CA_TRUST_BUNDLE_PATH", "INTUNE_CONNECTOR_CERT_PATH",
                "INTUNE_AUDIENCE")  # fmt: skip
GO: Final = {"ns": 1e-6, "us": 1e-3, "\u00b5s": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4, "h": 3.6e6}


def flat(**values: str) -> dict[str, str]:
    return {f"CERTCTL_SCEP_{key}": value for key, value in values.items()}


def profile(name: str, **values: str) -> dict[str, str]:
    """The variables of one profile, and the list that names it."""
    keys = {f"CERTCTL_SCEP_PROFILE_{name.upper()}_{key}": v for key, v in values.items()}
    return {"CERTCTL_SCEP_PROFILES": name} | keys


def imported(name: str, **values: str) -> dict[str, Any]:
    (found,) = import_profiles(profile(name, **values)).values()
    return found


def refused(variables: Mapping[str, str]) -> str:
    with pytest.raises(NotImportableError) as error:
        import_profiles(variables)
    assert SECRET not in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


# Which profiles there are


def test_the_flat_variables_are_the_one_profile_at_the_root() -> None:
    values = {key: f"value of {key}" for key in FLAT}

    assert import_profiles(flat(ENABLED="true", **values)) == {
        DEFAULT: {key.lower(): value for key, value in values.items()}
    }


def test_the_flat_issuer_has_certctls_default() -> None:
    assert import_profiles(flat(PROFILE_ID="p"))[DEFAULT]["issuer_id"] == "iss-local"
    assert import_profiles(flat(ISSUER_ID=""))[DEFAULT]["issuer_id"] == "iss-local"


def test_the_issuer_of_a_named_profile_has_no_default() -> None:
    assert imported("corp", PROFILE_ID="p") == {"profile_id": "p"}


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        ("corp", ["corp"]),
        ("corp,iot", ["corp", "iot"]),
        (" Corp , IOT ,", ["corp", "iot"]),
        (",,corp,,", ["corp"]),
        ("b,a", ["b", "a"]),
        ("my-corp,a1,0", ["my-corp", "a1", "0"]),
        ("default", ["default"]),
    ],
)
def test_the_list_names_the_profiles_in_order(listed: str, names: list[str]) -> None:
    assert list(import_profiles({"CERTCTL_SCEP_PROFILES": listed})) == names


@pytest.mark.parametrize("listed", ["", " ", ",", " , ,"])
def test_an_empty_list_is_none(listed: str) -> None:
    assert list(import_profiles({"CERTCTL_SCEP_PROFILES": listed})) == [DEFAULT]


def test_with_a_list_the_flat_variables_are_ignored_as_certctl_does() -> None:
    variables = flat(**dict.fromkeys(FLAT, "flat"), ENABLED="true")

    assert import_profiles(variables | profile("corp", ISSUER_ID="own")) == {
        "corp": {"issuer_id": "own"}
    }


def test_each_profile_has_its_own_values() -> None:
    variables = profile("a", ISSUER_ID="1") | profile("a-b", ISSUER_ID="2")
    variables["CERTCTL_SCEP_PROFILES"] = "a, a-b"

    assert import_profiles(variables) == {"a": {"issuer_id": "1"}, "a-b": {"issuer_id": "2"}}


def test_a_hyphen_stays_one_in_the_variable() -> None:
    variables = {
        "CERTCTL_SCEP_PROFILES": "my-corp",
        "CERTCTL_SCEP_PROFILE_MY-CORP_ISSUER_ID": "own",
    }

    assert import_profiles(variables) == {"my-corp": {"issuer_id": "own"}}
    assert "PROFILE_MY_CORP_ISSUER_ID" in refused(
        {"CERTCTL_SCEP_PROFILES": "my-corp", "CERTCTL_SCEP_PROFILE_MY_CORP_ISSUER_ID": SECRET}
    )


@pytest.mark.parametrize(
    "listed",
    ["-corp", "corp-", "corp_2", "a b", "a/b", "\u00fc", "\u00df", "corp,corp", "corp,CORP", "a.b",
     "corp\u20282", "*"],
)  # fmt: skip
def test_what_is_no_path_id_is_refused_with_the_name(listed: str) -> None:
    assert refused({"CERTCTL_SCEP_PROFILES": listed}).startswith("CERTCTL_SCEP_PROFILES: ")


# What each variable means


@pytest.mark.parametrize("key", TEXTS)
def test_texts_are_taken_as_they_are(key: str) -> None:
    for value in (SECRET, " kept ", "a,b", '"', "\u00fc", "true", "0"):
        assert imported("corp", **{key: value}) == {key.lower(): value}


@pytest.mark.parametrize("key", KEYS)
def test_an_empty_variable_is_an_unset_one(key: str) -> None:
    assert imported("corp", **{key: ""}) == {}


@pytest.mark.parametrize("key", ["MTLS_ENABLED", "INTUNE_ENABLED"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [("true", True), ("1", True), ("yes", True), ("false", False), ("0", False), ("no", False)],
)
def test_booleans_are_true_for_certctls_three_words(
    key: str,
    value: str,
    expected: bool,  # noqa: FBT001 - a case
) -> None:
    assert imported("corp", **{key: value}) == {key.lower(): expected}


@pytest.mark.parametrize("value", ["TRUE", "True", "on", "t", "y", " true", "enabled", "FALSE"])
def test_what_certctl_silently_takes_for_false_is_said(value: str) -> None:
    complaint = refused(profile("corp", INTUNE_ENABLED=value))

    assert complaint.startswith("CERTCTL_SCEP_PROFILE_CORP_INTUNE_ENABLED: ")
    assert "false" in complaint


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("60m", 3600), ("1h30m", 5400), ("90s", 90), ("1h0m0s", 3600), ("0s", 0), ("24h", 86400),
     ("1.5h", 5400), ("0.5m", 30), ("250ms", 0.25), ("1m30s", 90), ("1s500ms", 1.5),
     ("1.001s", 1.001), ("1s1ms", 1.001), ("0.057s", 0.057), ("4.035s", 4.035),
     ("2h45m30.5s", 9930.5), ("0", 0), ("+60s", 60), (".5h", 1800), ("5.s", 5),
     ("500000us", 0.5), ("2000000000ns", 2)],
)  # fmt: skip
def test_what_go_takes_for_a_duration_means_the_same_here(value: str, seconds: float) -> None:
    """To the millisecond; certctl reads these by time.ParseDuration."""
    found = imported("corp", INTUNE_CLOCK_SKEW_TOLERANCE=value)["intune_clock_skew_tolerance"]

    assert round(parse_duration(found) * 1000) == round(seconds * 1000)


@pytest.mark.parametrize(
    "value",
    ["60", "1d", "1w", "h", "m", "-1h", "1h-1m", "1 h", " 1h", "1h ", "1H", "1h30", "1e3s", "1h,1m",
     ".s", "one hour", "\u0661h", SECRET],
)  # fmt: skip
def test_what_is_no_duration_is_refused_with_the_variables_name(value: str) -> None:
    complaint = refused(profile("corp", INTUNE_CHALLENGE_VALIDITY=value))

    assert complaint.startswith("CERTCTL_SCEP_PROFILE_CORP_INTUNE_CHALLENGE_VALIDITY: ")
    assert "60m" in complaint


@pytest.mark.parametrize("value", ["1ns", "100us", "0.0001s", "1s1us", "280000h"])
def test_a_duration_that_cannot_be_written_here_is_refused_not_bent(value: str) -> None:
    try:
        found = imported("corp", INTUNE_CHALLENGE_VALIDITY=value)["intune_challenge_validity"]
    except NotImportableError:
        return
    exact = sum(
        float(number) * GO[unit] for number, unit in re.findall(r"([0-9.]+)([a-z\u00b5]+)", value)
    )

    assert round(parse_duration(found) * 1e6) == round(exact * 1e3)


@given(
    st.lists(
        st.tuples(st.integers(0, 60), st.sampled_from(["h", "m", "s", "ms"])),
        min_size=1,
        max_size=4,
    )
)
def test_any_sum_of_whole_parts_is_exact(parts: list[tuple[int, str]]) -> None:
    value = "".join(f"{number}{unit}" for number, unit in parts)
    found = imported("corp", INTUNE_CHALLENGE_VALIDITY=value)["intune_challenge_validity"]

    assert round(parse_duration(found) * 1000) == sum(n * GO[unit] for n, unit in parts)


@pytest.mark.parametrize(("value", "expected"), [("0", 0), ("3", 3), ("007", 7)])
def test_the_rate_limit_is_a_number(value: str, expected: int) -> None:
    assert imported("corp", INTUNE_PER_DEVICE_RATE_LIMIT_24H=value) == {
        "intune_per_device_rate_limit_24h": expected
    }


@pytest.mark.parametrize("value", ["-1", "1.5", "1e3", "three", " 3", "\u0663", "9" * 5000, "0x3"])
def test_what_is_no_number_is_refused_with_the_variables_name(value: str) -> None:
    assert "INTUNE_PER_DEVICE_RATE_LIMIT_24H: " in refused(
        profile("corp", INTUNE_PER_DEVICE_RATE_LIMIT_24H=value)
    )


# What means nothing


@pytest.mark.parametrize(
    "name",
    ["CERTCTL_SCEP_UNHEARD", "CERTCTL_SCEP_", "CERTCTL_SCEP_MTLS_ENABLED",
     "CERTCTL_SCEP_INTUNE_ENABLED", "CERTCTL_SCEP_PROFILE_OTHER_ISSUER_ID",
     "CERTCTL_SCEP_PROFILE_CORP_UNHEARD", "CERTCTL_SCEP_PROFILE_CORP",
     "CERTCTL_SCEP_PROFILE_corp_ISSUER_ID", "CERTCTL_SCEP_challenge_password"],
)  # fmt: skip
def test_a_variable_that_means_nothing_is_named_and_not_quoted(name: str) -> None:
    assert refused(profile("corp") | {name: SECRET}).startswith(f"{name}: ")


def test_variables_of_anything_else_are_none_of_ours() -> None:
    others = {"PATH": "/bin", "CERTCTL_SERVER_PORT": "1", "XCERTCTL_SCEP_ENABLED": "1"}

    assert import_profiles(profile("corp") | others) == {"corp": {}}


NAMES = st.sampled_from(["corp", "CORP", "a-b", "a_b", "", " x ", "\u00fc", "intune", "0"])
SUFFIXES = st.one_of(st.sampled_from([*KEYS, "ENABLED", "PROFILES", ""]), st.text(max_size=8))
VARIABLE_NAMES = st.one_of(
    st.builds("CERTCTL_SCEP_{}".format, SUFFIXES),
    st.builds(lambda n, s: f"CERTCTL_SCEP_PROFILE_{n.upper()}_{s}", NAMES, SUFFIXES),
    st.text(max_size=12),
)
VALUES = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["true", "0", "60m", "1h30m", "corp,a-b", "3", SECRET]),
    st.lists(NAMES, max_size=4).map(",".join),
    st.from_regex(r"[0-9.]{0,6}(h|ms|m|s|us)?", fullmatch=True),
)


@given(st.dictionaries(VARIABLE_NAMES, VALUES, max_size=6), st.lists(NAMES, max_size=3))
def test_any_variables_give_profiles_or_the_one_error(
    variables: dict[str, str], listed: list[str]
) -> None:
    variables = {"CERTCTL_SCEP_PROFILES": ",".join(listed)} | variables
    try:
        found = import_profiles(variables)
    except NotImportableError as error:
        assert str(error).startswith("CERTCTL_SCEP_")  # noqa: PT017 - many are refused
        return

    keys = {key.lower() for key in KEYS}
    assert found
    assert all(re.fullmatch(PATH_ID, name) for name in found)
    assert all(set(table) <= keys for table in found.values())
    assert all(isinstance(value, str | bool | int) for t in found.values() for value in t.values())


# Environment files


def test_a_file_of_variables_is_read_as_shells_and_containers_write_them() -> None:
    text = """\
# certctl
CERTCTL_SCEP_ENABLED=true

export CERTCTL_SCEP_ISSUER_ID=iss-local
CERTCTL_SCEP_PROFILE_ID = spaced
  CERTCTL_SCEP_CHALLENGE_PASSWORD="a = b # c"
CERTCTL_SCEP_RA_CERT_PATH='/etc/ra.pem'
CERTCTL_SCEP_RA_KEY_PATH="it's"
#CERTCTL_SCEP_UNHEARD=1
EMPTY=
no equals sign
QUOTE="
"""

    assert read_variables(text) == {
        "CERTCTL_SCEP_ENABLED": "true",
        "CERTCTL_SCEP_ISSUER_ID": "iss-local",
        "CERTCTL_SCEP_PROFILE_ID": "spaced",
        "CERTCTL_SCEP_CHALLENGE_PASSWORD": "a = b # c",
        "CERTCTL_SCEP_RA_CERT_PATH": "/etc/ra.pem",
        "CERTCTL_SCEP_RA_KEY_PATH": "it's",
        "EMPTY": "",
        "QUOTE": '"',
    }


def test_line_ends_of_windows_are_line_ends() -> None:
    assert read_variables("A=1\r\nB=2\r\n") == {"A": "1", "B": "2"}


def test_the_last_of_two_lines_counts_as_in_a_shell() -> None:
    assert read_variables("A=1\nA=2\n") == {"A": "2"}


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp", "Zs"]), max_size=20))
def test_any_value_in_quotes_is_taken_as_it_is(value: str) -> None:
    for quote in "\"'":
        assert read_variables(f"A={quote}{value}{quote}\n") == {"A": value}


@given(st.text())
def test_any_text_gives_variables(text: str) -> None:
    assert all(isinstance(value, str) for value in read_variables(text).values())
