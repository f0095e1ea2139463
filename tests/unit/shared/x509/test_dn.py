"""Names as text: whatever a value holds, it is read back as that value and poses as nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.text.printable import HIDDEN, visible
from shared.x509.dn import escaped, read_dn, write_dn

ANY_TEXT = st.text(st.characters(exclude_categories=()))
KINDS = st.sampled_from(["CN", "OU", "O", "emailAddress", "1.2.3.4"])


@given(st.lists(st.tuples(KINDS, ANY_TEXT), max_size=5))
def test_parts_are_read_back_as_they_were_written(parts: list[tuple[str, str]]) -> None:
    assert list(read_dn(write_dn(parts))) == parts


@given(ANY_TEXT)
def test_no_unit_poses_as_a_common_name(value: str) -> None:
    name = write_dn([("OU", f"x, CN=printer-7{value}"), ("OU", value)])
    assert all(kind != "CN" for kind, _ in read_dn(name))


@given(ANY_TEXT)
def test_a_written_name_holds_nothing_hidden(value: str) -> None:
    assert HIDDEN.search(write_dn([("CN", value)])) is None
    write_dn([("CN", value)]).encode()


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("device-1", "device-1"),
        ("Sue, Grabbit and Runn", r"Sue\, Grabbit and Runn"),
        ('James "Jim" Smith, III', r"James \"Jim\" Smith\, III"),
        ("Before\rAfter", r"Before\0DAfter"),
        ("#4869", r"\#4869"),
        (" x ", r"\ x\ "),
        (" ", r"\ "),
        ("a=b", "a=b"),
        ("a\\b", r"a\\b"),
        ("Lu\u010di\u0107", "Lu\u010di\u0107"),
        ("\0", r"\00"),
        ("a\u202eb", r"a\E2\80\AEb"),
        ("", ""),
    ],
)
def test_values_are_escaped_as_rfc_4514_does(value: str, written: str) -> None:
    assert escaped(value) == written


@pytest.mark.parametrize("broken", ["\\", "CN=a\\", "x", ",", ", ,", "=", "CN=\\ff"])
def test_any_text_can_be_read(broken: str) -> None:
    for _, value in read_dn(broken):
        assert isinstance(value, str)


@given(ANY_TEXT)
def test_any_text_can_be_read_as_a_name(text: str) -> None:
    list(read_dn(text))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x[/]y", "x[/]y"),
        ("\x1b]52;c;aGk=\x07", "\\x1b]52;c;aGk=\\x07"),
        ("a\nb\tc", "a\\x0ab\\x09c"),
        ("\x7f\x9b", "\\x7f\\x9b"),
        ("\u202eexe.txt\u2066", "\\u202eexe.txt\\u2066"),
        ("\u061c\u200e\u200f", "\\u061c\\u200e\\u200f"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("Zo\xeb \u05d0", "Zo\xeb \u05d0"),
    ],
)
def test_what_a_terminal_obeys_or_hides_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(ANY_TEXT)
def test_visible_text_is_one_line_that_any_output_takes(text: str) -> None:
    shown = visible(text)
    assert HIDDEN.search(shown) is None
    assert len(shown.splitlines()) <= 1
    shown.encode()
