"""Patterns of names: they match completely, never an asterisk, and in linear time."""

import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.x509.name_patterns import read_san_pattern, read_subject_pattern


def san_matches(pattern: str, value: str, kind: str = "") -> bool:
    return read_san_pattern(pattern).matches(kind or pattern.partition(":")[0], value)


@pytest.mark.parametrize(
    ("pattern", "value", "expected"),
    [
        ("dns:*.corp.example", "a.corp.example", True),
        ("dns:*.corp.example", "a.b.corp.example", True),
        ("dns:*.Corp.example", "A.cORP.example", True),
        ("dns:*.corp.example", "corp.example", False),
        ("dns:*.corp.example", "a.corp.example.evil.example", False),
        ("dns:*.corp.example", "acorp.example", False),
        ("dns:corp.example", "corp.example", True),
        ("dns:corp.example", "corpXexample", False),
        ("dns:dev-*-*.corp.example", "dev-1-2.corp.example", True),
        ("dns:dev-*-*.corp.example", "dev-1.corp.example", False),
        ("dns:aa*aa", "aaa", False),
        ("dns:aa*aa", "aaaa", True),
        ("dns:*", "anything.example", True),
        ("dns:*", "", True),
        # A wildcard certificate stands for many hosts: `*` does not allow one.
        ("dns:*.corp.example", "*.corp.example", False),
        ("dns:*", "*.corp.example", False),
        (r"dns:\*.corp.example", "*.corp.example", True),
        (r"dns:\*.corp.example", "a.corp.example", False),
        ("rfc822:*@corp.example", "Ann@CORP.example", True),
        ("rfc822:ann@corp.example", "Ann@corp.example", False),
        ("rfc822:*@corp.example", "ann@evil.example", False),
        ("rfc822:*@corp.example", '"a@b"@corp.example', False),
        ("upn:*@corp.example", "ann@CORP.EXAMPLE", True),
        ("upn:*@corp.example", "ann@evil@corp.example", False),
        ("uri:https://*.corp.example/*", "https://a.corp.example/b", True),
        ("uri:https://*.corp.example/*", "https://evil.example/.corp.example/b", False),
        ("uri:https://*.corp.example/*", "https://evil.example?.corp.example/b", False),
        ("uri:https://*.corp.example", "https://evil.example#.corp.example", False),
        ("uri:https://*:1/", "https://a:b@evil:1/", False),
        ("uri:urn:uuid:*", "urn:uuid:0a1b", True),
        ("ip:192.0.2.0/24", "192.0.2.77", True),
        ("ip:192.0.2.0/24", "192.0.3.1", False),
        ("ip:192.0.2.0/24", "2001:db8::1", False),
        ("ip:2001:db8::/32", "2001:db8::1", True),
        ("ip:192.0.2.7", "192.0.2.7", True),
        ("other:*", "0601", True),
    ],
)
def test_a_subject_alt_name_matches_completely(pattern: str, value: str, expected: bool) -> None:  # noqa: FBT001 - a case
    assert san_matches(pattern, value) is expected


def test_a_pattern_is_for_one_kind() -> None:
    assert not san_matches("dns:*", "a.example", "uri")
    assert not san_matches("ip:0.0.0.0/0", "192.0.2.1", "dns")
    assert not san_matches("dns:*", "192.0.2.1", "ip")


@pytest.mark.parametrize(
    ("pattern", "kind", "value", "expected"),
    [
        ("CN=device-*", "CN", "device-7", True),
        ("CN=device-*", "CN", "Device-7", False),
        ("CN=device-*", "CN", "x device-7", False),
        ("CN=device-*", "O", "device-7", False),
        ("O=Sue, Grabbit = Runn", "O", "Sue, Grabbit = Runn", True),
        ("2.5.4.12=Dr*", "2.5.4.12", "Dr. No", True),
        ("2.5.4.3=Dr*", "CN", "Dr. No", True),
        ("CN=*", "CN", "a@b/c.d", True),
        ("CN=*", "CN", "*.corp.example", False),
        (r"CN=a\\*", "CN", r"a\b", True),
    ],
)
def test_an_attribute_matches_completely_and_exactly(
    pattern: str,
    kind: str,
    value: str,
    expected: bool,  # noqa: FBT001 - a case
) -> None:
    assert read_subject_pattern(pattern).matches(kind, value) is expected


@pytest.mark.parametrize(
    "pattern",
    ["", "dns", "dns:", "email:*", "DNS:*", "ip:*", "ip:192.0.2.1/24", "dns:a\\", r"dns:\a",
     "dns:é", "dns:\0", "dns:**", "dns:a**b"],
)  # fmt: skip
def test_what_is_no_pattern_of_a_san_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"pattern|network|kind"):
        read_san_pattern(pattern)


@pytest.mark.parametrize("pattern", ["", "CN", "CN=", "cn=*", "2=*", "CN=a\\", "title=*", "=*"])
def test_what_is_no_pattern_of_a_subject_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"pattern|attribute"):
        read_subject_pattern(pattern)


def oracle(pattern: str, stops: str) -> re.Pattern[str]:
    any_run = f"[^*{re.escape(stops)}]*"
    return re.compile(any_run.join(map(re.escape, pattern.split("*"))), re.DOTALL)


@given(
    st.text("ab@/", max_size=6).flatmap(lambda t: st.permutations([*t, *"**"])).map("".join),
    st.text("ab@/*", max_size=12),
    st.sampled_from([("uri", "/?#@"), ("upn", "@"), ("other", "")]),
)
def test_patterns_match_as_the_regular_expression_would(
    pattern: str, value: str, kind: tuple[str, str]
) -> None:
    while "**" in pattern:
        pattern = pattern.replace("**", "*")
    name, stops = kind
    expected = oracle(pattern, stops).fullmatch(value) is not None

    assert san_matches(f"{name}:{pattern}", value) is expected


def test_no_pattern_takes_long() -> None:
    """A regular expression of this shape would try some 10^16 ways."""
    pattern, value = "other:" + "*a" * 120 + "*b", "a" * 16384
    began = time.process_time()

    assert not san_matches(pattern, value)
    assert time.process_time() - began < 0.1


@given(st.sampled_from(["dns", "rfc822", "uri", "upn", "other"]), st.text())
def test_any_value_has_an_answer(kind: str, value: str) -> None:
    patterns: list[Any] = [read_san_pattern(p) for p in ("dns:*", "uri:*", "ip:::/0", "other:a*")]

    assert {p.matches(kind, value) for p in patterns} <= {True, False}
