"""Whatever Microsoft answers is read without a crash, and nothing of it is unbounded."""

import base64
import contextlib
import json
from dataclasses import astuple
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.validator.microsoft import parsing
from services.validator.microsoft.parsing import UnreadableError

MEMBERS = st.text() | st.sampled_from(
    [
        "value", "Value", "code", "errorDescription", "access_token", "expires_in", "token_type",
        "error", "error_description", "providerName", "serviceName", "uri", "@odata.nextLink",
        "requestContext", "SerialNumber", "issuerName", "caConfiguration", "id", "complianceState",
        "enrolledDateTime", "deviceId", "accountEnabled", "onPremisesSecurityIdentifier",
    ]
)  # fmt: skip
SCALAR = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
OBJECT = st.dictionaries(MEMBERS, SCALAR, max_size=4)
VALUE = SCALAR | OBJECT | st.lists(SCALAR | OBJECT, max_size=3)
READERS: list[Any] = [
    parsing.read_token,
    parsing.read_token_error,
    parsing.read_error_code,
    parsing.read_endpoints,
    parsing.read_answer,
    parsing.read_revocations,
    parsing.read_uploaded,
    parsing.read_managed_device,
    parsing.read_managed_devices,
    parsing.read_entra_device,
    parsing.read_account_sid,
]


def bounded(found: Any, longest: int = 16384) -> None:
    if isinstance(found, str):
        assert len(found) <= longest
    elif isinstance(found, tuple):
        for each in found:
            bounded(each)
    elif hasattr(found, "__dataclass_fields__"):
        bounded(astuple(found))


@given(st.binary() | st.text().map(str.encode) | VALUE.map(lambda v: json.dumps(v).encode()))
def test_no_answer_crashes_a_reader(content: bytes) -> None:
    for read in READERS:
        with contextlib.suppress(UnreadableError):
            bounded(read(content))


@settings(max_examples=200)
@given(st.dictionaries(MEMBERS, VALUE, max_size=5))
def test_no_object_crashes_a_reader(table: dict[str, Any]) -> None:
    content = json.dumps(table).encode()
    for read in READERS:
        with contextlib.suppress(UnreadableError):
            bounded(read(content))


@given(st.text() | st.integers() | st.none())
def test_any_time_is_a_finite_number_of_seconds(value: Any) -> None:
    assert 0.0 <= parsing.read_time(value) < 1e12


@given(st.text())
def test_any_retry_after_is_bounded(value: str) -> None:
    found = parsing.retry_after(value, 1_800_000_000.0)

    assert found is None or 0.0 <= found <= 86400.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2.128", 2.128),
        ("120", 120.0),
        ("Fri, 15 Jan 2027 08:00:30 GMT", 30.0),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1e9", None),
    ],
)
def test_retry_after_may_be_a_fraction_or_a_date(value: str, seconds: float | None) -> None:
    assert parsing.retry_after(value, 1_800_000_000.0) == seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2018-06-11T16:11:20.0904778Z", 1528733480.0),
        ("2018-06-11T16:11:20.090Z", 1528733480.0),
        ("2018-06-11T18:11:20+02:00", 1528733480.0),
        ("0001-01-01T00:00:00Z", 0.0),
        ("2018-13-11T16:11:20Z", 0.0),
        ("9999-12-31T23:59:59Z", 253402300799.0),
        (5, 0.0),
    ],
)
def test_times_are_read_to_the_second(value: Any, seconds: float) -> None:
    assert parsing.read_time(value) == pytest.approx(seconds)


def test_a_code_is_exact_and_everything_else_is_no_code() -> None:
    codes = ["Success", "success", " Success", "Success\n", 1, None, "x" * 200, ["Success"]]
    found = [parsing.read_answer(json.dumps({"code": code}).encode()).code for code in codes]

    assert found == ["Success", "success", " Success", "", "", "", "", ""]
    assert [parsing.read_answer(json.dumps({"code": c}).encode()).accepted for c in codes] == [
        True, *[False] * 7,
    ]  # fmt: skip


def test_a_description_that_repeats_the_challenge_does_not_keep_it() -> None:
    challenge = base64.b64encode(b"c" * 400).decode()
    body = {"code": "X", "errorDescription": f"bad\n challenge {challenge} of CN=x"}
    found = parsing.read_answer(json.dumps(body).encode())

    assert found.description == "bad\\x0a challenge ... of CN=x"


def test_the_first_of_two_services_with_one_name_counts_and_case_does_not() -> None:
    entries = [
        {"providerName": "SCEP", "uri": "https://a/x/"},
        {"providerName": "scep", "uri": "https://b/x"},
        {"serviceName": "Pki", "uri": "https://c/x"},
        {"providerName": "None", "uri": None},
        5,
    ]
    found = parsing.read_endpoints(json.dumps({"value": entries}).encode())

    assert found.services == {"scep": "https://a/x", "pki": "https://c/x"}
    assert found.following == ""


def test_revocations_are_read_whatever_the_case_of_their_members() -> None:
    entries = [
        {"RequestContext": "c1", "SerialNumber": "0A:1b", "IssuerName": None},
        {"requestContext": "c2", "serialNumber": "not hex", "caConfiguration": "corp"},
        {"requestContext": "", "serialNumber": "01"},
        {"serialNumber": "01"},
    ]
    found = parsing.read_revocations(json.dumps({"Value": entries}).encode())

    assert [(r.context, r.serial, r.ca_configuration) for r in found] == [
        ("c1", "0A:1b", ""),
        ("c2", "", "corp"),
    ]


@pytest.mark.parametrize(
    ("value", "accepted"), [(True, True), ("True", True), (False, False), (1, False), (None, False)]
)
def test_results_are_uploaded_only_if_intune_says_so(value: Any, *, accepted: bool) -> None:
    assert parsing.read_uploaded(json.dumps({"value": value}).encode()) is accepted


def test_of_two_entries_of_a_device_the_one_seen_last_counts() -> None:
    entries = [
        {"complianceState": "noncompliant", "lastSyncDateTime": "2026-01-01T00:00:00Z"},
        {"complianceState": "compliant", "lastSyncDateTime": "2026-02-01T00:00:00Z"},
    ]
    found = parsing.read_managed_devices(json.dumps({"value": entries}).encode())

    assert found is not None
    assert found.compliance == "compliant"
    assert parsing.read_managed_devices(b'{"value": []}') is None


def test_a_state_that_is_not_known_is_unknown() -> None:
    assert parsing.read_managed_device(b'{"complianceState": "shiny"}').compliance == "unknown"
    assert parsing.read_managed_device(b'{"complianceState": null}').compliance == "unknown"


def test_roles_are_shown_from_a_token_and_an_opaque_one_has_none() -> None:
    payload = base64.urlsafe_b64encode(b'{"roles":["a","b\\n",3]}').rstrip(b"=").decode()

    assert parsing.roles_of(f"h.{payload}.s") == ("a", "b\\x0a")
    assert parsing.roles_of("opaque") == parsing.roles_of("a.!.c") == ()


def test_a_token_does_not_show_in_a_repr() -> None:
    found = parsing.read_token(b'{"access_token":"very-s3cret","expires_in":"3599"}')

    assert (found.value, found.expires_in) == ("very-s3cret", 3599.0)
    assert "s3cret" not in repr(found)
