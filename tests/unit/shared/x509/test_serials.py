"""Serial numbers as people and services write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.x509.serials import read_serial


@pytest.mark.parametrize("text", ["0x0aBc", "0A:BC", " 0a bc ", "abc", "00000abc", "0X0ABC"])
def test_all_spellings_of_a_number_are_one_serial(text: str) -> None:
    assert read_serial(text) == "0abc"


@pytest.mark.parametrize("text", ["", "0x", "12 or 1=1", "0x-1", "é", "a" * 65])
def test_anything_else_is_none(text: str) -> None:
    assert read_serial(text) is None


@given(st.integers(min_value=1, max_value=2**159 - 1))
def test_a_serial_is_the_contents_of_its_integer(number: int) -> None:
    contents = number.to_bytes(number.bit_length() // 8 + 1, "big").hex()

    assert read_serial(f"{number:X}") == contents
