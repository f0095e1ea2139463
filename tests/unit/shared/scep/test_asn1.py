import pytest
from asn1crypto import core
from hypothesis import assume, given
from hypothesis import strategies as st

from shared.limits import OID_BYTES
from shared.scep import asn1
from shared.scep.asn1 import OCTET_STRING, SEQUENCE, Der
from shared.scep.errors import ScepError

PRINTABLE = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 '()+,-./:=?"
ARCS = st.lists(st.integers(0, 2**64), min_size=0, max_size=8)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x04",
        b"\x04\x01",
        b"\x04\x05abcd",
        b"\x04\x81",
        b"\x04\x82\x01",
        b"\x04\x84\xff\xff\xff\xff",
        b"\x04\x84\x7f\xff\xff\xff" + bytes(64),
        b"\x04\x85\x00\x00\x00\x00\x01a",
        b"\x04\x88" + b"\xff" * 8 + bytes(64),
        b"\x04\xff" + b"\xff" * 127,
    ],
)
def test_length_beyond_the_data_is_refused(data: bytes) -> None:
    with pytest.raises(ScepError):
        Der(data).any()


@pytest.mark.parametrize(
    "data",
    [
        b"\x04\x81\x01a",
        b"\x04\x81\x7f" + bytes(0x7F),
        b"\x04\x82\x00\x80" + bytes(0x80),
        b"\x04\x83\x00\x01\x00" + bytes(0x100),
        b"\x04\x84\x00\x00\x00\x01a",
        b"\x04\x81\x00",
    ],
)
def test_length_that_is_not_minimal_is_refused(data: bytes) -> None:
    with pytest.raises(ScepError):
        Der(data).value(OCTET_STRING)


def test_indefinite_length_is_refused() -> None:
    with pytest.raises(ScepError):
        Der(b"\x30\x80\x04\x00\x00\x00").enter(SEQUENCE)


@pytest.mark.parametrize("tag", [0x1F, 0x3F, 0x5F, 0x9F, 0xBF, 0xFF])
def test_multi_byte_tag_is_refused(tag: int) -> None:
    with pytest.raises(ScepError):
        Der(bytes((tag, 0x01, 0x00))).any()


@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 65535, 65536, 1 << 20])
def test_elements_of_every_length_form_are_written_as_asn1crypto_writes_them(size: int) -> None:
    body = b"x" * size
    written = asn1.tlv(OCTET_STRING, body)
    assert written == core.OctetString(body).dump()
    assert Der(written).value(OCTET_STRING) == body


def test_contents_never_reach_beyond_their_container() -> None:
    """The inner length runs into the outer element's sibling."""
    der = Der(b"\x30\x03\x04\x02a" + b"\x04\x01b")
    inner = der.enter(SEQUENCE)
    with pytest.raises(ScepError):
        inner.value(OCTET_STRING)


def test_header_split_by_the_end_of_its_container_is_refused() -> None:
    inner = Der(b"\x30\x01\x04" + b"\x00\x00").enter(SEQUENCE)
    with pytest.raises(ScepError):
        inner.any()


def test_long_length_split_by_the_end_of_its_container_is_refused() -> None:
    inner = Der(b"\x30\x02\x04\x81" + b"\x80" * 200).enter(SEQUENCE)
    with pytest.raises(ScepError):
        inner.any()


def test_cursor_walks_siblings_in_order() -> None:
    der = Der(b"\x02\x01\x05\x04\x02hi\x05\x00\x0c\x01u")
    assert der.value(asn1.INTEGER) == b"\x05"
    assert der.next_is(OCTET_STRING)
    assert not der.skip_if(SEQUENCE)
    assert der.element(OCTET_STRING) == b"\x04\x02hi"
    assert der.skip_if(0x05)
    assert der.more()
    assert der.any() == (asn1.UTF8_STRING, b"u")
    assert not der.more()
    assert not der.next_is(0)
    der.finish()


def test_rest_takes_what_is_left_of_the_container_and_no_more() -> None:
    outer = Der(b"\x30\x05\x02\x01\x05ab" + b"tail")
    inner = outer.enter(SEQUENCE)
    inner.element()
    assert inner.rest() == b"ab"
    assert inner.rest() == b""
    assert outer.rest() == b"tail"


@pytest.mark.parametrize("method", ["enter", "value", "element"])
def test_another_tag_than_asked_for_is_refused(method: str) -> None:
    der = Der(b"\x04\x01a")
    with pytest.raises(ScepError):
        getattr(der, method)(SEQUENCE)
    assert der.value(OCTET_STRING) == b"a"


def test_finish_refuses_what_is_left() -> None:
    with pytest.raises(ScepError):
        Der(b"\x05\x00").finish()


@given(st.integers(0, 2**200))
def test_integers_are_written_as_asn1crypto_writes_them(value: int) -> None:
    assert asn1.integer(value) == core.Integer(value).dump()


@given(
    st.sampled_from([(0, 0), (0, 39), (1, 2), (1, 39), (2, 0), (2, 47), (2, 48), (2, 999)]), ARCS
)
def test_object_identifiers_go_both_ways(root: tuple[int, int], arcs: list[int]) -> None:
    dotted = ".".join(map(str, (*root, *arcs)))
    written = asn1.object_identifier(dotted)
    assert written == core.ObjectIdentifier(dotted).dump()
    assume(len(Der(written).value(asn1.OID)) <= OID_BYTES)
    assert asn1.dotted(Der(written).value(asn1.OID)) == dotted


@pytest.mark.parametrize("contents", [b"", b"\x80", b"\x2a\x86", b"\x2a\x86\xf7"])
def test_cut_object_identifier_is_refused(contents: bytes) -> None:
    with pytest.raises(ScepError):
        asn1.dotted(contents)


def test_object_identifier_arc_of_thousands_of_bytes_is_refused() -> None:
    """Such an arc has more decimal digits than Python converts, and takes quadratic time."""
    with pytest.raises(ScepError):
        asn1.dotted(b"\x2a" + b"\x81" * 3000 + b"\x01")


def test_set_of_sorts_its_elements() -> None:
    elements = (b"\x04\x01b", b"\x02\x01\x01", b"\x04\x01a", b"\x04\x02aa")
    sorted_set = b"\x31\x0d\x02\x01\x01\x04\x01a\x04\x01b\x04\x02aa"
    assert asn1.set_of(*elements) == sorted_set


def test_printable_string_alphabet_is_that_of_x680() -> None:
    assert bytes(b for b in range(256) if asn1.is_printable(bytes((b,)))) == bytes(
        sorted(PRINTABLE)
    )
    assert asn1.is_printable(b"AZ az 09 '()+,-./:=?")
    assert not asn1.is_printable(b"good until the last*")


@pytest.mark.parametrize(
    ("tag", "contents", "expected"),
    [
        (asn1.UTF8_STRING, "Zoë".encode(), "Zoë"),
        (asn1.PRINTABLE_STRING, b"plain", "plain"),
        (asn1.IA5_STRING, b"a@b", "a@b"),
        (asn1.T61_STRING, "Zoë".encode("latin-1"), "Zoë"),
        (asn1.BMP_STRING, "Zoë".encode("utf-16-be"), "Zoë"),
        (asn1.UNIVERSAL_STRING, "Zoë".encode("utf-32-be"), "Zoë"),
    ],
)
def test_every_string_type_is_decoded(tag: int, contents: bytes, expected: str) -> None:
    assert asn1.is_string(tag)
    assert asn1.text(tag, contents) == expected


@given(st.integers(0, 255), st.binary(max_size=64))
def test_no_bytes_are_refused_as_text(tag: int, contents: bytes) -> None:
    asn1.text(tag, contents).encode("utf-8")


@pytest.mark.parametrize("tag", [0, 1, asn1.INTEGER, OCTET_STRING, SEQUENCE, 0x80, 0xA0])
def test_other_tags_are_no_strings(tag: int) -> None:
    assert not asn1.is_string(tag)


def test_an_object_identifier_that_is_too_long_is_refused() -> None:
    most = b"\x2a" + b"\x01" * (OID_BYTES - 1)
    assert asn1.dotted(most).startswith("1.2.1")
    with pytest.raises(ScepError, match="more than 64 bytes"):
        asn1.dotted(most + b"\x01")
