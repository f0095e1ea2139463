"""Searches and names as people write them."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from services.audit.query.lookup import recent
from services.audit.record.write import store
from services.audit.store.spelling import folded, spellings
from shared.x509.dn import write_dn
from tests.unit.services.audit.stories import STREAM, approved, issued, requested

HIGH = "00c8" + "4a" * 15  # as an INTEGER's contents, with its zero octet
COMPOSED, SPLIT = "Pr\u00fcfger\u00e4t-7", unicodedata.normalize("NFD", "Pr\u00fcfger\u00e4t-7")


@pytest.fixture
def devices(engine: Engine) -> Engine:
    names = [
        write_dn([("CN", "Sue, Grabbit and Runn"), ("O", "Lab")]),
        write_dn([("CN", COMPOSED)]),
        write_dn([("CN", SPLIT)]),
    ]
    found = [
        event
        for number, name in enumerate(names)
        for event in (
            requested(3 * number + 1, number),
            approved(3 * number + 2, number, name),
            issued(3 * number + 3, number, HIGH if number else "0a1b2c"),
        )
    ]
    store(engine, STREAM, found)
    return engine


def found_by(engine: Engine, search: str) -> list[str]:
    return [line.transaction_id for line in recent(engine, 10, search=search)]


def test_a_name_with_a_comma_and_a_serial_in_any_spelling_are_found(devices: Engine) -> None:
    for search in (
        "Sue, Grabbit and Runn",
        "sue, grabbit",
        "Sue,",
        r"CN=Sue\, Grabbit and Runn, O=Lab",
        "0a1b2c",
        "0A:1B:2C",
        "0A:1B",
        "0A:1",
        "0x0A1B2C",
        "0xa1b2c",
        "A1B2C",
        "a:1b:2c",
    ):
        assert found_by(devices, search) == ["T0"], search


def test_either_unicode_form_and_a_serial_without_its_zero_find_both(devices: Engine) -> None:
    names = (COMPOSED, SPLIT, SPLIT.upper(), COMPOSED[:3], f" {SPLIT} ")
    for search in (*names, HIGH, HIGH[2:], "C8:4A:4a"):
        assert found_by(devices, search) == ["T2", "T1"], search


@given(st.integers(0, 2**160 - 1), st.integers(2, 40))
def test_a_serial_as_openssl_prints_it_is_spelled_as_the_index_has_it(
    number: int, digits: int
) -> None:
    contents = number.to_bytes(number.bit_length() // 8 + 1, "big").hex()
    printed = number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big").hex(":").upper()
    for way in (printed, printed[:digits], f"0x{number:X}", f"{number:x}", contents):
        assert any(contents.startswith(each) for each in spellings(way)), way


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_is_folded_once(text: str) -> None:
    once = folded(text)
    once.encode()
    assert folded(once) == once
    for way in spellings(text):
        way.encode()


@pytest.mark.parametrize("search", ["", " ", ":", "0x", "::"])
def test_nothing_is_no_serial(search: str) -> None:
    assert set(spellings(search)) <= {search.strip()}
