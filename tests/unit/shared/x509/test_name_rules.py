from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shared.scep.errors import ScepError
from shared.x509.csr import read_csr
from shared.x509.name_rules import bad_general_names, bad_name
from shared.x509.names import name_text, read_general_names
from tests.support.messages import (
    BMP,
    IA5,
    PRINTABLE,
    SEQ,
    SET,
    T61,
    UNIVERSAL,
    UTF8,
    name,
    oid,
    tlv,
)
from tests.unit.shared.certified import certified, read_by_openssl, read_everywhere

CN = "2.5.4.3"
UPN = "1.3.6.1.4.1.311.20.2.3"
VECTORS = Path(__file__).parents[3] / "vectors" / "csrs"
# What a terminal obeys, what turns text around, and what no font shows.
HIDDEN_CHARACTERS = "\x01\n\x1b\x7f\x9b\u061c\u200b\u200f\u2028\u202e\u2060\u2066\u206f\ufeff\ufff9"
HIDDEN_CHARACTERS += "\xad\u034f\u115f\u180e\u3164\uffa0"  # fillers, and what joins nothing
SAID = {
    "badutf8": "CN: the UTF8String does not decode",
    "bmpodd": "CN: the BMPString does not decode",
    "cn-empty": "CN: the value is empty",
    "nul": "CN: the value contains a NUL character",
    "rdn-empty": "RDN 1 of the name, which is empty",
    "dns-empty": 'entry 1, dNSName "": it is empty',
    "dns-nul": "a NUL character is not allowed",
    "dns-utf8": "characters outside ASCII are not allowed",
    "email-utf8": 'rfc822Name "j\\xc3\\xb6rg',
    "sannul": "a NUL character is not allowed",
    "uri-empty": 'uniformResourceIdentifier "": it is empty',
    "uri-utf8": "characters outside ASCII are not allowed",
}


@pytest.mark.parametrize("path", sorted(VECTORS.iterdir()), ids=lambda p: p.name.partition(".")[0])
def test_each_hand_made_request_is_refused_for_its_fault(path: Path) -> None:
    csr = read_csr(path.read_bytes())
    sans = [e.value for e in csr.extensions if e.oid == "2.5.29.17"]

    problem = bad_name(csr.subject) or "".join(map(bad_general_names, sans))

    assert SAID[path.name.partition(".")[0]] in problem
    assert "(RFC 5280 4." in problem
    assert isinstance(name_text(csr.subject), str)


# Subjects


@pytest.mark.parametrize(
    ("tag", "contents"),
    [
        (UTF8, "Zoë".encode()),
        (UTF8, b"a" * 300),
        (PRINTABLE, b"device-1"),
        (BMP, "Zoë".encode("utf-16-be")),
        (UNIVERSAL, "Zoë".encode("utf-32-be")),
        (T61, b"plain"),
        (IA5, b"a@b"),
    ],
)
@pytest.mark.parametrize("kind", [CN, "1.2.3.4.5", "1.2.840.113549.1.9.2"])
def test_every_string_type_is_certified_and_read_by_everybody(
    kind: str, tag: int, contents: bytes
) -> None:
    subject = name((kind, tag, contents))

    assert bad_name(subject) == ""
    read_everywhere(certified(subject))


@pytest.mark.parametrize(
    ("tag", "contents"),
    [
        (PRINTABLE, b"a_b!@*"),
        (PRINTABLE, "Zoë".encode()),
        (PRINTABLE, "Straße".encode()),
        (PRINTABLE, b"Zo\xeb"),
        (T61, b"Zo\xeb"),
    ],
)
def test_what_old_clients_write_wrongly_stays_allowed_in_a_subject_only(
    tag: int, contents: bytes
) -> None:
    subject = name((CN, tag, contents))

    assert bad_name(subject) == ""
    assert read_by_openssl(certified(subject))
    assert "outside its alphabet" in bad_general_names(tlv(SEQ, tlv(0xA4, subject)))


@pytest.mark.parametrize("text", ["Straße 7", "Ärzte", "Émile", "Öl", "Müller", "日本"])
@pytest.mark.parametrize("tag", [UTF8, T61, PRINTABLE])
def test_text_that_was_taken_for_latin_1_stays_allowed_in_a_subject(tag: int, text: str) -> None:
    """`openssl req -subj` without `-utf8` writes it, with C1 controls for some letters."""
    mistaken = text.encode().decode("latin-1")
    contents = mistaken.encode() if tag == UTF8 else text.encode()

    assert bad_name(name((CN, tag, contents))) == ""


@pytest.mark.parametrize(
    ("tag", "contents", "said"),
    [
        (UTF8, b"", "is empty"),
        (IA5, b"", "is empty"),
        (UTF8, b"a\xff", "does not decode"),
        (UTF8, b"\xed\xa0\x80", "does not decode"),
        (UTF8, b"a\0b", "NUL"),
        (PRINTABLE, b"a\0b", "NUL"),
        (T61, b"\0", "NUL"),
        (IA5, b"\0", "NUL"),
        (IA5, "Zoë".encode(), "does not decode"),
        (BMP, b"\0a\0", "does not decode"),
        (BMP, b"\xd8\x00", "does not decode"),
        (BMP, b"\xd8\x00\xdc\x00", "surrogates"),
        (BMP, b"\0a\0\0", "NUL"),
        (UNIVERSAL, b"\0\0\0", "does not decode"),
        (UNIVERSAL, b"\0\x11\0\0", "does not decode"),
        (UNIVERSAL, b"\0\0\xd8\0", "does not decode"),
        (UNIVERSAL, bytes(4), "NUL"),
        *((UTF8, f"a{c}b".encode(), "hidden character") for c in HIDDEN_CHARACTERS),
        *((BMP, f"a{c}b".encode("utf-16-be"), "hidden character") for c in HIDDEN_CHARACTERS),
        (UNIVERSAL, "a\U000e0041".encode("utf-32-be"), "hidden character"),
        (UTF8, "a\U000e0041".encode(), "hidden character"),
        (UTF8, "a\u202eb".encode().decode("latin-1").encode(), "hidden character"),
        (UTF8, "Straße\x9b".encode(), "hidden character"),
        (PRINTABLE, b"a\x1b[2J", "hidden character"),
        (PRINTABLE, b"a\x9b2J", "hidden character"),
        (PRINTABLE, "a\u202eb".encode(), "hidden character"),
        (T61, b"a\x9b2J", "hidden character"),
        (IA5, b"a\r\n", "hidden character"),
        (0x04, b"abc", "not a character string"),
        (0x02, b"\x01", "not a character string"),
        (SEQ, b"", "not a character string"),
        (0x1B, b"abc", "not a character string"),
    ],
)
@pytest.mark.parametrize("kind", [CN, "1.2.3.4.5"])
def test_a_value_that_its_type_does_not_hold_is_refused(
    kind: str, tag: int, contents: bytes, said: str
) -> None:
    problem = bad_name(name((CN, UTF8, b"first"), (kind, tag, contents)))

    assert problem.startswith("RDN 2 of the name, ")
    assert said in problem


def attribute(kind: bytes, value: bytes = b"\x13\x01a", more: bytes = b"") -> bytes:
    return tlv(SEQ, kind, value, more)


@pytest.mark.parametrize(
    ("der", "said"),
    [
        (tlv(SEQ, tlv(SET)), "is empty"),
        (tlv(SEQ, tlv(SET, *[attribute(oid(CN))] * 2)), "duplicate attribute type"),
        (
            tlv(SEQ, tlv(SET, attribute(oid(CN)), attribute(oid(CN), b"\x13\x01b"))),
            "duplicate attribute type",
        ),
        (tlv(SEQ, tlv(SET, attribute(oid("2.5.4.5")), attribute(oid(CN)))), "order"),
        (tlv(SEQ, tlv(SET, attribute(oid(CN), more=b"\x13\x01a"))), "well-formed"),
        (tlv(SEQ, tlv(SET, attribute(tlv(6, b"")))), "cut short"),
        (tlv(SEQ, tlv(SET, attribute(tlv(6, b"\x55\x84")))), "cut short"),
        (tlv(SEQ, tlv(SET, attribute(tlv(6, b"\x55\x80\x04")))), "not minimal"),
        (tlv(SEQ, tlv(SET, attribute(tlv(6, b"\x2a" * 64)))), "63 bytes"),
        (tlv(SEQ, tlv(SET, b"\x13\x01a")), "well-formed"),
        (tlv(SEQ, b"\x13\x01a"), "well-formed"),
        (tlv(SEQ, tlv(SET, attribute(oid("2.5.4.45"), b"\x03\x01\x07"))), "whole octets"),
        (tlv(SEQ) + b"\0", "well-formed"),
        (b"", "well-formed"),
    ],
)
def test_a_name_of_the_wrong_shape_is_refused(der: bytes, said: str) -> None:
    assert said in bad_name(der)


def test_no_name_at_all_breaks_no_rule() -> None:
    assert bad_name(tlv(SEQ)) == bad_general_names(tlv(SEQ)) == ""


def test_a_unique_identifier_is_a_bit_string() -> None:
    subject = name(("2.5.4.45", 0x03, b"\0abc"))

    assert bad_name(subject) == ""
    read_everywhere(certified(subject))


# subjectAltNames


def other_name(kind: str, *values: bytes) -> bytes:
    return tlv(0xA0, oid(kind), tlv(0xA0, *values))


GOOD = [
    tlv(0x82, b"device.example"),
    tlv(0x82, b"device_1"),
    tlv(0x82, b"*.example.org"),
    tlv(0x82, b"xn--bcher-kva.example"),
    tlv(0x82, b"192.0.2.1"),
    tlv(0x82, b".".join([b"a" * 63] * 3 + [b"a" * 61])),
    tlv(0x81, b"a.b+c@mail.example"),
    tlv(0x81, b"a@[192.0.2.1]"),
    tlv(0x81, b'"a@b"@example'),
    tlv(0x86, b"urn:uuid:0"),
    tlv(0x86, b"https://user@host.example:8443/a%20b?c=d#e"),
    tlv(0x86, b"https://[2001:db8::1]:443/"),
    tlv(0x86, b"IntuneDeviceId://{2f3a0f5e-0f3a-4c3a-9c3a-2f3a0f5e0f3a}"),
    tlv(0x86, b"IntuneDeviceId://2f3a0f5e-0f3a-4c3a-9c3a-2f3a0f5e0f3a"),
    tlv(0x86, b"tag:microsoft.com,2022-09-14:sid:S-1-5-21-1-2-3-500"),
    tlv(0x86, b"spiffe://trust.example/device/1"),
    tlv(0x87, bytes(4)),
    tlv(0x87, bytes(16)),
    tlv(0x88, b"\x2a\x03"),
    tlv(0xA4, name((CN, UTF8, b"directory"))),
    other_name(UPN, tlv(UTF8, "zoë@example".encode())),
    other_name(UPN, tlv(UTF8, b"zoe van x@example")),
    other_name("1.2.3.4", tlv(SEQ, tlv(2, b"\x01"), tlv(SEQ, tlv(UTF8, b"x")))),
]


@pytest.mark.parametrize("entry", GOOD, ids=repr)
def test_a_name_by_the_rules_of_its_kind_is_certified_and_read_by_everybody(entry: bytes) -> None:
    sans = tlv(SEQ, entry)

    assert bad_general_names(sans) == ""
    read_everywhere(certified(sans=sans))


BAD_IA5 = {
    b"": "it is empty",
    b"a b": "space",
    b" ": "space",
    b"a\0b": "NUL",
    b"a\x1bb": "control characters",
    b"a\x7fb": "control characters",
    b"a\n": "control characters",
    "ä".encode(): "outside ASCII",
    b"\xff": "outside ASCII",
}
BAD = [
    *((0x82, b"device" + c if c else c, said) for c, said in BAD_IA5.items()),
    *((0x81, b"a@b" + c if c else c, said) for c, said in BAD_IA5.items()),
    *((0x86, b"urn:a:" + c if c else c, said) for c, said in BAD_IA5.items()),
    (0x82, b"a..b", "a dot must separate"),
    (0x82, b".a", "a dot must separate"),
    (0x82, b"a.", "a dot must separate"),
    (0x82, b".", "a dot must separate"),
    (0x82, b"*", "wildcard"),
    (0x82, b"a*.example", "wildcard"),
    (0x82, b"a.*.example", "wildcard"),
    (0x82, b"*.*.example", "wildcard"),
    (0x82, b"-a.example", "hyphen"),
    (0x82, b"a-.example", "hyphen"),
    (0x82, b"a/b", "letters, digits"),
    (0x82, b"https://a", "letters, digits"),
    (0x82, b"a" * 64, "63"),
    (0x82, b"a." * 126 + b"ab", "253"),
    (0x81, b"nobody", "local-part@domain"),
    (0x81, b"@example", "local-part@domain"),
    (0x81, b"a@", "local-part@domain"),
    (0x81, b"a@b@example", "before the @"),
    (0x81, b".a@example", "before the @"),
    (0x81, b"<a@example", "before the @"),
    (0x81, b"a" * 65 + b"@example", "before the @"),
    (0x81, b"a@*.example", "wildcard"),
    (0x81, b"a@b..example", "a dot must separate"),
    (0x86, b"/relative", "absolute"),
    (0x86, b"relative", "absolute"),
    (0x86, b"//host/path", "absolute"),
    (0x86, b"1http://host", "absolute"),
    (0x86, b"https:", "absolute"),
    (0x86, b"https://host/%zz", "RFC 3986"),
    (0x86, b"https://host:port/", "RFC 3986"),
    (0x86, b"https://a{b}/", "RFC 3986"),
    (0x86, b"https://a<b>/", "RFC 3986"),
    (0x87, b"", "it is empty"),
    (0x87, bytes(3), "4 or 16"),
    (0x87, bytes(8), "4 or 16"),
    (0x88, b"", "it is empty"),
    (0x88, b"\x80\x01", "not minimal"),
    (0x88, b"\x2a\x83", "cut short"),
    (0xA4, b"", "it is empty"),
    (0xA4, tlv(SEQ), "the name is empty"),
    (0xA4, b"xx", "well-formed"),
    (0xA4, name((CN, UTF8, b"")), "the value is empty"),
    (0xA0, b"", "it is empty"),
    (0xA0, oid(UPN), "well-formed"),
    (0xA0, oid(UPN) + tlv(0xA0), "well-formed"),
    (0xA0, oid(UPN) + tlv(0xA0, tlv(UTF8)), "not empty"),
    (0xA0, oid(UPN) + tlv(0xA0, tlv(IA5, b"a@b")), "UTF8String"),
    (0xA0, oid(UPN) + tlv(0xA0, tlv(UTF8, b"a\xff")), "does not decode"),
    (0xA0, oid(UPN) + tlv(0xA0, tlv(UTF8, b"a\0b")), "NUL"),
    *(
        (0xA0, oid(UPN) + tlv(0xA0, tlv(UTF8, f"a{c}@b".encode())), "hidden character")
        for c in HIDDEN_CHARACTERS
    ),
    *(
        (0xA0, oid(UPN) + tlv(0xA0, tlv(UTF8, text.encode())), "space")
        for text in (" a@b", "a@b ", "\u00a0a@b", "a@b\u3000", " ")
    ),
    (0xA0, oid("1.2.3") + tlv(0xA0, tlv(SEQ, tlv(UTF8, b"a\x1b"))), "hidden character"),
    (0xA4, name((CN, UTF8, "a\u202eb".encode())), "hidden character"),
    (0xA0, oid("1.2.3") + tlv(0xA0, tlv(SEQ, b"\x02\x05a")), "well-formed"),
    (0xA0, oid("1.2.3") + tlv(0xA0, tlv(UTF8, b"a"), tlv(UTF8, b"b")), "well-formed"),
    (0xA0, oid("1.2.3") + tlv(0xA0, b"\0\0"), "invalid tag 0"),
    (0xA3, b"", "not supported"),
    (0xA5, tlv(0xA1, tlv(UTF8, b"x")), "not supported"),
    (0x89, b"a", "not supported"),
]


@pytest.mark.parametrize(("tag", "contents", "said"), BAD, ids=repr)
def test_a_name_against_the_rules_of_its_kind_is_refused(
    tag: int, contents: bytes, said: str
) -> None:
    problem = bad_general_names(tlv(SEQ, GOOD[0], tlv(tag, contents)))

    assert problem.startswith("subjectAltName entry 2, ")
    assert said in problem
    assert problem.isprintable()
    assert problem.isascii()
    assert len(problem) < 300


@pytest.mark.parametrize("der", [b"", b"\x31\x00", tlv(SEQ, b"\x82\x05abc"), tlv(SEQ) + b"\0"])
def test_what_is_no_sequence_of_names_is_refused(der: bytes) -> None:
    assert bad_general_names(der).startswith("subjectAltName is not well-formed")


# Whatever the bytes are

TEXTS = st.text(st.characters(exclude_categories=["Cs"], max_codepoint=0xFFFF), max_size=8)
TYPED = st.one_of(
    st.tuples(st.just(UTF8), TEXTS.map(str.encode)),
    st.tuples(st.just(BMP), TEXTS.map(lambda t: t.encode("utf-16-be"))),
    st.tuples(st.just(UNIVERSAL), TEXTS.map(lambda t: t.encode("utf-32-be"))),
    st.tuples(st.just(PRINTABLE), st.from_regex(rb"\A[A-Za-z0-9 '()+,./:=?-]*\Z")),
    st.tuples(st.sampled_from([IA5, T61]), st.from_regex(rb"\A[\x00-\x7f]*\Z")),
)
STRINGS = st.one_of(TYPED, TYPED, TYPED, st.tuples(st.integers(0, 0xFF), st.binary(max_size=8)))
TYPES = st.one_of(
    st.sampled_from([CN, "2.5.4.10", "2.5.4.5", "1.2.840.113549.1.9.2", "1.2.3.4"]).map(oid),
    st.binary(max_size=70).map(lambda contents: tlv(6, contents)),
)
ATTRIBUTES = st.builds(lambda kind, value: tlv(SEQ, kind, tlv(*value)), TYPES, STRINGS)
RDNS = st.one_of(
    st.lists(ATTRIBUTES, max_size=3).map(lambda found: tlv(SET, *sorted(found))),
    st.lists(ATTRIBUTES, max_size=3).map(lambda found: tlv(SET, *found)),
)
NAMES = st.one_of(
    st.lists(RDNS, max_size=3).map(lambda found: tlv(SEQ, *found)),
    st.lists(RDNS, max_size=3).flatmap(lambda f: st.binary(max_size=4).map(
        lambda noise: tlv(SEQ, *f, noise))),
)  # fmt: skip
TAGS = st.sampled_from([0xA0, 0x81, 0x82, 0xA4, 0x86, 0x87, 0x88, 0xA3, 0xA5])
HOSTS = st.from_regex(r"\A[a-zA-Z0-9_*-]{1,8}(\.[a-z0-9-]{1,8}){0,3}\.?\Z").map(str.encode)
GENERAL_NAMES = st.one_of(
    st.sampled_from(GOOD),
    HOSTS.map(lambda h: tlv(0x82, h)),
    HOSTS.map(lambda h: tlv(0x81, b"a.b@" + h)),
    st.from_regex(r"\A[a-z]{1,4}:(//[a-z@:.%0-9\[\]-]{0,12})?[ -~]{0,12}\Z").map(
        lambda u: tlv(0x86, u.encode())
    ),
    st.binary(min_size=4, max_size=16).map(lambda a: tlv(0x87, a)),
    st.binary(max_size=12).map(lambda o: tlv(0x88, o)),
    NAMES.map(lambda n: tlv(0xA4, n)),
    st.builds(lambda t, v: tlv(0xA0, t, tlv(0xA0, tlv(*v))), TYPES, TYPED),
    st.builds(tlv, TAGS, st.binary(max_size=12)),
)
SANS = st.lists(GENERAL_NAMES, min_size=1, max_size=4).map(lambda found: tlv(SEQ, *found))
SLOW = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@given(der=st.one_of(NAMES, st.binary(max_size=40), st.binary(max_size=40).map(
    lambda contents: tlv(SEQ, contents))))  # fmt: skip
@example(tlv(SEQ, tlv(SET)))
@example(tlv(SEQ, b"\x31\x05"))
def test_any_sequence_has_a_text_and_any_bytes_a_judgement(der: bytes) -> None:
    problem = bad_name(der)

    assert problem.isprintable()
    if der[:1] == b"\x30" and not problem:
        # An RDN that cannot be read is shown as #HEX; a value may begin with an escaped one.
        assert "#" not in name_text(der).replace("=#", "").replace("\\#", "")
    try:
        assert isinstance(name_text(der), str)
    except ScepError:
        assert "well-formed" in problem


@given(der=st.one_of(SANS, st.binary(max_size=40)))
def test_general_names_that_break_no_rule_are_read(der: bytes) -> None:
    problem = bad_general_names(der)

    assert problem.isprintable()
    try:
        read = read_general_names(der)
    except ScepError:
        assert "well-formed" in problem
        return
    assert problem or all(san.value for san in read)


@SLOW
@given(subject=NAMES)
def test_a_subject_that_breaks_no_rule_is_read_by_everybody(subject: bytes) -> None:
    if not bad_name(subject, strict=True):
        read_everywhere(certified(subject))


@SLOW
@given(sans=SANS)
def test_a_subject_alt_name_that_breaks_no_rule_is_read_by_everybody(sans: bytes) -> None:
    if not bad_general_names(sans):
        read_everywhere(certified(sans=sans))
