"""The extension for a SID: exactly one form is written and read."""

import pytest
from asn1crypto import core, x509
from hypothesis import given
from hypothesis import strategies as st

from shared.scep.asn1 import tlv
from shared.x509.sid import is_sid, read_sid, write_sid

EXAMPLE = "S-1-5-21-1004336348-1177238915-682003330-1104"


def test_the_value_is_the_one_that_microsoft_documents() -> None:
    """[MS-WCCE] 2.2.2.7.7.4, encoded and decoded by another implementation."""
    value = write_sid(EXAMPLE)
    (name,) = x509.GeneralNames.load(value, strict=True)

    assert name.name == "other_name"
    assert name.chosen["type_id"].native == "1.3.6.1.4.1.311.25.2.1"
    assert name.chosen["value"].parsed.native == EXAMPLE.encode()
    assert isinstance(name.chosen["value"].parsed, core.OctetString)
    assert read_sid(value) == EXAMPLE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "S-1-5-18",
        "S-1-5-32-544",
        "S-1-12-1-1-2-3-4",
        "S-1-5-21-1-2-3",
        "S-1-5-21-1-2-3-4-5",
        "S-1-5-21-1-2-3-04",
        "S-1-5-21-1-2-3-4294967296",
        "s-1-5-21-1-2-3-4",
        " S-1-5-21-1-2-3-4",
        "S-1-5-21-1-2-3-4\n",
        "S-1-5-21-1-2-3-\N{ARABIC-INDIC DIGIT FOUR}",
    ],
)
def test_only_the_sid_of_an_account_in_a_domain_is_one(text: str) -> None:
    assert not is_sid(text)
    assert is_sid("S-1-5-21-0-2-3-4294967295")


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x30\x00",
        write_sid(EXAMPLE) + b"\x05\x00",
        write_sid("S-1-5-18"),
        tlv(0x30, write_sid(EXAMPLE)[2:], write_sid(EXAMPLE)[2:]),
        write_sid(EXAMPLE).replace(b"\x04\x2d", b"\x0c\x2d"),
    ],
)
def test_any_other_value_is_not_read(value: bytes) -> None:
    assert read_sid(value) == ""


@given(st.binary(max_size=80))
def test_whatever_the_bytes_are_there_is_an_answer(value: bytes) -> None:
    assert read_sid(value) == ""
