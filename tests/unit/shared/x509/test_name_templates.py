"""Templates: what they make of claims, and that no claim is more than a value."""

from typing import Any

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from shared.text.printable import HIDDEN
from shared.x509.name_rules import bad_general_names, bad_name
from shared.x509.name_templates import (
    MissingClaimError,
    UnfitNameError,
    read_san_template,
    read_subject_template,
    write_sans,
    write_subject,
)
from shared.x509.names import read_general_names, read_name

HOSTILE = 'x,O=Evil+CN=root\\"<>;#= /?@:%{iss}'


def subject(*templates: str, **claims: Any) -> Any:
    found = write_subject(map(read_subject_template, templates), listed(claims))
    assert bad_name(found, strict=True) == ""
    return read_name(found)


def listed(claims: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    return {n: (v,) if isinstance(v, str) else tuple(v) for n, v in claims.items()}


def sans(*templates: str, **claims: Any) -> list[str]:
    found = write_sans(map(read_san_template, templates), listed(claims))
    if found is None:
        return []
    assert bad_general_names(found) == ""
    return [f"{san.kind}:{san.value}" for san in read_general_names(found)]


def test_a_subject_is_built_in_the_order_of_its_templates() -> None:
    templates = (
        "C=DE",
        "O=Corp, Inc.",
        "OU={department}",
        "CN=dev-{device_name}",
        "2.5.4.12={sub}",
    )

    assert subject(*templates, department="R&D", device_name="7", sub="x") == (
        ("C", "DE"),
        ("O", "Corp, Inc."),
        ("OU", "R&D"),
        ("CN", "dev-7"),
        ("2.5.4.12", "x"),
    )


def test_subject_alternative_names_are_built_of_each_kind() -> None:
    assert sans(
        "dns:{san_dns}",
        "dns:{device_name}.corp.example",
        "rfc822:{san_rfc822}",
        "upn:{user_name}@corp.example",
        "uri:urn:device:{device_id}",
        san_dns=["a.example", "b.example", "a.example"],
        san_rfc822=(),
        device_name="d7",
        user_name="ann",
        device_id="1-2",
    ) == [
        "dns:a.example",
        "dns:b.example",
        "dns:d7.corp.example",
        "upn:ann@corp.example",
        "uri:urn:device:1-2",
    ]


def test_lists_that_are_empty_make_no_extension() -> None:
    assert sans("dns:{san_dns}", san_dns=()) == []


def test_braces_are_doubled() -> None:
    assert subject("CN={{{device_name}}}", device_name="a") == (("CN", "{a}"),)


@given(st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=64))
def test_no_value_becomes_more_than_the_value_of_its_attribute(value: str) -> None:
    assert subject("CN={device_name}", "O=Corp", device_name=value) == (
        ("CN", value),
        ("O", "Corp"),
    )


@given(st.text(min_size=1, max_size=30).filter(lambda text: not HIDDEN.search(text)))
def test_a_uri_gets_values_percent_encoded(value: str) -> None:
    (found,) = sans("uri:https://corp.example/d/{device_name}/end", device_name=value)
    begin, end = "uri:https://corp.example/d/", "/end"

    assert found.startswith(begin)
    assert found.endswith(end)
    assert not set("/?#@:[] ") & set(found[len(begin) : -len(end)])


def test_a_hostile_value_stays_one_value() -> None:
    assert subject("CN={device_name}", device_name=HOSTILE) == (("CN", HOSTILE),)
    encoded = x509.Name.from_rfc4514_string(
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOSTILE)]).rfc4514_string()
    ).public_bytes()
    made = write_subject([read_subject_template("CN={iss}")], {"iss": (HOSTILE,)})
    assert made == encoded


@pytest.mark.parametrize(
    ("template", "value", "said"),
    [
        ("dns:{device_name}.corp.example", "evil.x", "must not contain . and *"),
        ("dns:{device_name}.corp.example", "*", "must not contain . and *"),
        ("rfc822:{user_name}@corp.example", "a@evil.example,b", "must not contain @"),
        ("upn:{user_name}@corp.example", "admin@corp", "must not contain @"),
        ("dns:{device_name}", "bücher.example", "outside ASCII"),
        ("dns:{device_name}", "a\0b", "hidden character"),
        ("upn:{user_name}@corp.example", "a\N{RIGHT-TO-LEFT OVERRIDE}b", "hidden character"),
    ],
)
def test_a_value_that_would_change_the_name_around_it_is_refused(
    template: str, value: str, said: str
) -> None:
    with pytest.raises(UnfitNameError) as error:
        sans(template, device_name=value, user_name=value)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("template", "value", "said"),
    [
        ("CN={sub}", "x" * 65, "CN must have at most 64 characters"),
        ("C={sub}", "DEU", "C must have 2 characters"),
        ("serialNumber={sub}", "a_b", "PrintableString"),
        ("emailAddress={sub}", "ä@b.example", "outside ASCII"),
        ("CN={sub}", "a\nb", "hidden character"),
    ],
)
def test_a_value_that_does_not_fit_its_attribute_is_refused(
    template: str, value: str, said: str
) -> None:
    with pytest.raises(UnfitNameError) as error:
        subject(template, sub=value)
    assert said in str(error.value)


def test_a_claim_that_is_missing_is_named() -> None:
    with pytest.raises(MissingClaimError) as error:
        subject("CN={device_name}", sub="x")
    assert str(error.value) == "device_name"
    with pytest.raises(MissingClaimError, match="san_dns"):
        sans("dns:{san_dns}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not an attribute and a template"),
        ("device_name", "not an attribute and a template"),
        ("XX={sub}", "not an attribute and a template"),
        ("CN=", "not a template"),
        ("CN={sub", "a brace alone"),
        ("CN=sub}", "a brace alone"),
        ("CN={}", "a brace alone"),
        ("CN={Sub}", "a brace alone"),
        ("CN={password}", "no claim password"),
        ("CN={san_dns}", "may have several values"),
        ("O=" + "x" * 65, "O must have at most 64"),
        ("C=Germany", "C must have 2"),
        ("CN=a\0", "not a template"),
    ],
)
def test_a_subject_template_that_cannot_be_filled_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError) as error:
        read_subject_template(text)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ip:{sub}", "not a kind and a template"),
        ("{sub}", "not a kind and a template"),
        ("dns:", "not a template"),
        ("uri:{sub}", "must begin with its scheme"),
        ("uri:corp.example/{sub}", "must begin with its scheme"),
        ("dns:{san_rfc822}", 'write san_rfc822 as "rfc822:{san_rfc822}"'),
        ("dns:{san_dns}.example", 'write san_dns as "dns:{san_dns}"'),
        ("uri:urn:{san_dns}", 'write san_dns as "dns:{san_dns}"'),
    ],
)
def test_a_san_template_that_cannot_be_filled_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError) as error:
        read_san_template(text)
    assert said in str(error.value)
