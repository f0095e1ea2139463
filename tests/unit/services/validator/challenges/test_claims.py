"""The claims, name by name and type by type."""

import json
from decimal import Decimal
from typing import Any, Final

import pytest

from services.validator.challenges.claims import (
    Claims,
    UnknownVersionError,
    issuer_of,
    read_claims,
    read_payload,
)
from services.validator.challenges.jws import MalformedTokenError
from tests.support.signed_challenges import (
    ABSENT,
    ISSUER,
    NONCE,
    REQUIRED,
    claims,
    encode,
)
from tests.support.world import NOW
from tests.unit.services.validator.challenges.broken import BROKEN_JSON

LAST_SECOND: Final = 253_402_300_799
NEVER_A_STRING: Final[list[Any]] = [None, True, False, 0, 1, -1, 1.5, [], ["x"], {}, {"x": "y"}]
NEVER_A_TIME: Final[list[Any]] = [
    *(None, True, False, "", "x", str(NOW), 0, -1, -NOW, -0.5, 0.0, 1e300, -0.0),
    *([], [NOW], {}, {"x": NOW}, LAST_SECOND + 1, NOW * 1000, 10**18, 2**63, 2**64 + NOW, 10**400),
]
NEVER_NAMES: Final[list[Any]] = [
    *(None, True, 0, 1, 1.5, "", "device.example", {}, {"x": "y"}, [None], [1], [True], [1.5]),
    *([["x"]], [{}], ["x", None], [1, "x"], ["x", ["y"]], ["x", "y", False]),
]


def claims_in(payload: bytes) -> Claims:
    return read_claims(read_payload(payload))


def read(**changes: Any) -> Claims:
    return claims_in(encode(claims(**changes)))


def malformed(payload: bytes) -> str:
    with pytest.raises(MalformedTokenError) as error:
        claims_in(payload)
    return str(error.value)


def test_every_claim_is_read() -> None:
    found = read(san_dns=["b", "A", "b"], san_rfc822=["a@b.example"], san_upn=[])

    assert found == Claims(
        issuer=ISSUER,
        subject="device-guid-1",
        issued_at=NOW - 60,
        expires_at=NOW + 3600,
        nonce=NONCE,
        audience=("https://scep.example/demo",),
        device_name="device",
        san_dns=("b", "A", "b"),
        san_rfc822=("a@b.example",),
        san_upn=(),
    )


def test_claims_that_need_not_be_there_are_none() -> None:
    found = read(aud=ABSENT, device_name=ABSENT, san_dns=ABSENT)

    assert found == Claims(ISSUER, "device-guid-1", NOW - 60, NOW + 3600, NONCE)
    assert (found.audience, found.device_name) == (None, None)
    assert (found.san_dns, found.san_rfc822, found.san_upn) == (None, None, None)


def test_the_audience_is_one_or_several() -> None:
    assert read(aud="a").audience == ("a",)
    assert read(aud=["a", "b", "a"]).audience == ("a", "b", "a")
    assert read(aud=[]).audience == ()


@pytest.mark.parametrize("audience", [None, 1, True, {}, [1], ["a", None], [["a"]], [{}]])
def test_an_audience_is_of_strings(audience: Any) -> None:
    assert "aud" in malformed(encode(claims(aud=audience)))


@pytest.mark.parametrize(
    "written", ["1764166386.5", "1764166386.0", "1.7641663865e9", "1764166386.50000000000000000001"]
)
def test_a_time_is_exactly_what_is_written(written: str) -> None:
    template = encode(claims(iat=7, exp=8)).decode()
    found = claims_in(template.replace('"iat": 7', f'"iat": {written}').encode())

    assert found.issued_at == Decimal(written)
    assert found.expires_at == 8


@pytest.mark.parametrize("written", ["1e999999999", "253402300799.0000001", "1e-999999999", "-1.5"])
def test_a_time_that_no_calendar_has_is_malformed_at_once(written: str) -> None:
    template = encode(claims(iat=7, exp=8)).decode()
    payload = template.replace('"exp": 8', f'"exp": {written}').encode()
    if written == "1e-999999999":  # a moment after 1970 began
        assert 0 < claims_in(payload).expires_at < 1
    else:
        assert "exp" in malformed(payload)


def test_an_empty_list_is_a_claim() -> None:
    found = read(san_dns=[], san_rfc822=[], san_upn=[])

    assert (found.san_dns, found.san_rfc822, found.san_upn) == ((), (), ())


def test_text_is_kept_as_it_is() -> None:
    odd = " \u212a\u0130\uff21\u00e9e\u0301\U0001f600\0\t"

    found = read(iss=odd, sub=odd, nonce=odd, aud=odd, device_name=odd, san_dns=[odd, ""])

    assert {found.issuer, found.subject, found.nonce, found.device_name} == {odd}
    assert found.audience == (odd,)
    assert found.san_dns == (odd, "")


@pytest.mark.parametrize(
    "extra",
    [
        {"nbf": NOW + 10**6, "jti": 7, "scope": None},
        {"ISS": "x", "Exp": 1, "iat ": "x", "san_ip": [1], "san_uri": "x", "san": {}},
        {"": 1, "a": {"iss": 1, "exp": None}, "b": [1.5, 1e300, True]},
        {"sub_": "\U0001f600", "Version": "v9"},
    ],
)
def test_unknown_claims_are_ignored(extra: dict[str, Any]) -> None:
    assert read(**extra) == read()


# Versions


@pytest.mark.parametrize("version", [ABSENT, "", "v1"])
def test_the_first_version_has_three_spellings(version: Any) -> None:
    assert read(version=version) == read()


@pytest.mark.parametrize(
    "version", ["v2", "V1", "v1 ", " v1", "v1.0", "v10", "v", "1", "v\uff11", "v1\0", " ", "null"]
)
def test_another_version_is_unknown(version: str) -> None:
    with pytest.raises(UnknownVersionError):
        read(version=version)


@pytest.mark.parametrize("version", [None, 1, True, ["v1"]])
def test_whatever_else_stands_for_a_version_is_unknown_too(version: Any) -> None:
    """Absent, "" or "v1"; all else is a version that is not known."""
    with pytest.raises(UnknownVersionError):
        read(version=version)


def test_an_unknown_version_may_have_claims_of_its_own() -> None:
    with pytest.raises(UnknownVersionError):
        claims_in(b'{"version": "v2", "iss": 7, "expires": "never"}')


# Types


@pytest.mark.parametrize("name", REQUIRED)
def test_a_required_claim_that_is_missing_is_malformed(name: str) -> None:
    assert name in malformed(encode(claims(**{name: ABSENT})))


def test_no_claims_at_all_are_malformed() -> None:
    malformed(b"{}")
    malformed(b'{"version": "v1"}')


@pytest.mark.parametrize("name", ["iss", "sub", "nonce"])
@pytest.mark.parametrize("value", [*NEVER_A_STRING, ""], ids=repr)
def test_a_required_text_is_a_string_that_says_something(name: str, value: Any) -> None:
    assert name in malformed(encode(claims(**{name: value})))


@pytest.mark.parametrize("value", NEVER_A_STRING, ids=repr)
def test_a_text_that_need_not_be_there_is_a_string_if_it_is(value: Any) -> None:
    """Null is no string either: a claim that is there is not taken as missing."""
    assert "device_name" in malformed(encode(claims(device_name=value)))


def test_an_empty_text_is_not_a_missing_one() -> None:
    assert read(device_name="").device_name == ""
    assert read(aud="").audience == ("",)


@pytest.mark.parametrize("name", ["iat", "exp"])
@pytest.mark.parametrize("value", NEVER_A_TIME, ids=lambda value: repr(value)[:24])
def test_a_time_is_a_positive_number(name: str, value: Any) -> None:
    assert name in malformed(encode(claims(**{name: value})))


@pytest.mark.parametrize("name", ["iat", "exp"])
@pytest.mark.parametrize(
    "literal",
    ["-0", "0", "0.0", "0e9", "-1", f"-{NOW}", f"-{NOW}.5", f'"{NOW}"', f'"{NOW}.5"', "-0.1"],
)
def test_a_time_is_a_positive_number_of_json(name: str, literal: str) -> None:
    text = json.dumps(claims(**{name: "HERE"})).replace('"HERE"', literal)

    assert name in malformed(text.encode())


@pytest.mark.parametrize("name", ["iat", "exp"])
@pytest.mark.parametrize("value", [1, 2, NOW, 2**31 - 1, 2**31, 2**32, LAST_SECOND])
def test_any_time_that_somebody_may_mean_is_read(name: str, value: int) -> None:
    found = read(**{name: value})

    assert value == (found.issued_at if name == "iat" else found.expires_at)


@pytest.mark.parametrize("name", ["san_dns", "san_rfc822", "san_upn"])
@pytest.mark.parametrize("value", NEVER_NAMES, ids=repr)
def test_names_are_an_array_of_strings(name: str, value: Any) -> None:
    assert name in malformed(encode(claims(**{name: value})))


# JSON


@pytest.mark.parametrize("name", BROKEN_JSON)
def test_a_payload_is_one_object_in_which_no_name_stands_twice(name: str) -> None:
    """Each is refused for its form, though it has no claims either."""
    good = json.dumps(claims())[1:].encode()
    broken = BROKEN_JSON[name].replace(b'{"alg": "RS256"', b'{"alg": "RS256", ' + good[:-1], 1)

    assert "payload" in malformed(broken)


def test_the_objects_around_which_others_are_broken_are_good() -> None:
    """The table before this one breaks nothing but what it says."""
    good = json.dumps(claims())[1:-1].encode()

    assert claims_in(b'{"x": 1, ' + good + b', "a": [1, {"b": "\xc3\xa9"}]}') == read()


@pytest.mark.parametrize("name", sorted(claims()))
def test_no_claim_stands_twice_even_if_it_says_the_same(name: str) -> None:
    text = json.dumps(claims())
    again = json.dumps({name: claims()[name]})[1:-1]

    assert "payload" in malformed(f"{text[:-1]}, {again}}}".encode())
    assert "payload" in malformed(f"{{{again}, {text[1:]}".encode())


@pytest.mark.parametrize("name", ["version", "iss", "exp", "san_upn"])
def test_a_name_in_other_letters_is_the_same_name(name: str) -> None:
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in name)
    text = json.dumps(claims(version="v1", san_upn=[]))

    assert "payload" in malformed(f'{text[:-1]}, "{escaped}": "v1"}}'.encode())


@pytest.mark.parametrize("name", ["iss", "sub", "nonce", "aud", "device_name"])
@pytest.mark.parametrize("half", ["\ud800", "x\udfff", "\udc00\ud800"])
def test_half_a_pair_is_no_text(name: str, half: str) -> None:
    malformed(encode(claims(**{name: half})))


@pytest.mark.parametrize("name", ["san_dns", "san_rfc822", "san_upn"])
def test_half_a_pair_is_no_name(name: str) -> None:
    malformed(encode(claims(**{name: ["ok", "\ud83d"]})))


@pytest.mark.parametrize("name", sorted(claims(version="v1", san_rfc822=[], san_upn=[])))
@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "9" * 5000, "[" * 5000])
def test_what_is_no_value_of_json_is_none_of_a_claim(name: str, literal: str) -> None:
    text = json.dumps(claims(**{name: "HERE"})).replace('"HERE"', literal)

    malformed(text.encode())


def test_an_error_does_not_repeat_the_value() -> None:
    said = malformed(encode(claims(nonce=[NONCE])))

    assert NONCE not in said


# Whom to ask


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b'{"iss": "a"}', "a"),
        (b'{"iss": "\\u0061 "}', "a "),
        (b'{"iss": ""}', ""),
        (b'{"Iss": "a"}', ""),
        (b'{"a": {"iss": "a"}}', ""),
        (b"{}", ""),
        (b'{"iss": null}', ""),
        (b'{"iss": ["a"]}', ""),
        (b'{"iss": {"a": 1}}', ""),
        (b'{"iss": 7}', ""),
        (b'{"iss": true}', ""),
        (b'{"iss": "a", "iss": "b"}', ""),
        (b'{"iss": "a", "x": NaN}', ""),
        (b'["iss", "a"]', ""),
        (b'"a"', ""),
        (b"", ""),
        (b"\xff", ""),
        (b"[" * 20000, ""),
    ],
)
def test_the_issuer_is_told_before_anything_is_believed(payload: bytes, expected: str) -> None:
    assert issuer_of(read_payload(payload)) == expected
