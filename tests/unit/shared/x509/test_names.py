import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from shared.scep.errors import FailInfo, ScepError
from shared.x509.names import GeneralName, name_text, read_general_names, read_name
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

UPN = "1.3.6.1.4.1.311.20.2.3"


def general_names(*names: bytes) -> tuple[GeneralName, ...]:
    return read_general_names(tlv(SEQ, *names))


def other_name(kind: str, value: bytes) -> bytes:
    return tlv(0xA0, oid(kind), tlv(0xA0, value))


def test_name_of_cryptography_is_read_in_order() -> None:
    parts = [
        (NameOID.COUNTRY_NAME, "C", "NL"),
        (NameOID.STATE_OR_PROVINCE_NAME, "ST", "Utrecht"),
        (NameOID.LOCALITY_NAME, "L", "Zeist"),
        (NameOID.ORGANIZATION_NAME, "O", "Łab, Inc."),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "OU", "a"),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "OU", "b"),
        (NameOID.COMMON_NAME, "CN", "device"),
        (NameOID.SERIAL_NUMBER, "serialNumber", "123"),
        (NameOID.DOMAIN_COMPONENT, "DC", "example"),
        (NameOID.USER_ID, "UID", "u1"),
        (NameOID.EMAIL_ADDRESS, "emailAddress", "a@example"),
        (NameOID.UNSTRUCTURED_NAME, "unstructuredName", "router.example"),
        (NameOID.GIVEN_NAME, "2.5.4.42", "Ada"),
    ]
    der = x509.Name([x509.NameAttribute(kind, value) for kind, _, value in parts]).public_bytes()
    assert read_name(der) == tuple((short, value) for _, short, value in parts)


def test_multi_valued_rdn_is_read() -> None:
    pair = tlv(
        SET, tlv(SEQ, oid("2.5.4.3"), tlv(UTF8, b"a")), tlv(SEQ, oid("2.5.4.5"), b"\x13\x011")
    )
    assert read_name(tlv(SEQ, pair)) == (("CN", "a"), ("serialNumber", "1"))


@pytest.mark.parametrize(
    ("tag", "contents", "expected"),
    [
        (PRINTABLE, b"a_b!@*", "a_b!@*"),
        (PRINTABLE, "Zoë".encode(), "Zoë"),
        (T61, b"Zo\xeb", "Zoë"),
        (BMP, "Zoë".encode("utf-16-be"), "Zoë"),
        (UNIVERSAL, "Zoë".encode("utf-32-be"), "Zoë"),
        (IA5, b"a@b", "a@b"),
        (UTF8, b"x" * 70_000, "x" * 70_000),
        (UTF8, b"a\xff", "a\ufffd"),
    ],
)
def test_every_string_type_is_text(tag: int, contents: bytes, expected: str) -> None:
    assert read_name(name(("2.5.4.3", tag, contents))) == (("CN", expected),)


def test_name_for_people() -> None:
    der = name(("2.5.4.3", UTF8, b"device"), ("2.5.4.10", PRINTABLE, b"Lab"))
    assert name_text(der) == "CN=device, O=Lab"
    assert name_text(tlv(SEQ)) == ""


@pytest.mark.parametrize(
    ("der", "shown"),
    [
        (name(("2.5.4.3", UTF8, b"a\xff")), "CN=a\ufffd"),
        (name(("2.5.4.3", BMP, b"\0a\0")), "CN=a\ufffd"),
        (tlv(SEQ, tlv(SET)), "#3100"),
        (tlv(SEQ, tlv(SET, tlv(SEQ, oid("2.5.4.3")))), "#310730050603550403"),
        (tlv(SEQ, name(("2.5.4.3", UTF8, b"a"))[2:], b"\x31\x05"), "CN=a, #3105"),
        (tlv(SEQ, b"\x0c\x01a", name(("2.5.4.3", UTF8, b"a"))[2:]), "#0c0161, CN=a"),
    ],
)
def test_what_cannot_be_read_of_a_name_is_shown_as_it_is(der: bytes, shown: str) -> None:
    assert name_text(der) == shown


def test_general_names_of_every_kind_are_read_in_order() -> None:
    found = general_names(
        tlv(0x82, b"a.example"),
        tlv(0x81, b"a@example"),
        tlv(0x86, b"urn:a:b"),
        tlv(0x87, bytes((192, 0, 2, 1))),
        tlv(0x87, bytes.fromhex("20010db8000000000000000000000001")),
        other_name(UPN, tlv(UTF8, b"u@example")),
        tlv(0x82, b"b.example"),
    )
    assert found == (
        GeneralName("dns", "a.example"),
        GeneralName("rfc822", "a@example"),
        GeneralName("uri", "urn:a:b"),
        GeneralName("ip", "192.0.2.1"),
        GeneralName("ip", "2001:db8::1"),
        GeneralName("upn", "u@example"),
        GeneralName("dns", "b.example"),
    )


@pytest.mark.parametrize(
    ("tag", "contents"),
    [
        (0xA4, name(("2.5.4.3", UTF8, b"directory"))),
        (0x88, b"\x2a\x03"),
        (0xA0, oid("1.2.3") + tlv(0xA0, tlv(UTF8, b"x"))),
        (0x87, b"\x01\x02\x03"),
        (0x87, bytes(8)),
        (0x87, b""),
        (0xA5, b""),
        (0xA0, b""),
        (0xA0, oid(UPN)),
        (0xA0, oid(UPN) + tlv(0xA0)),
        (0xA0, b"\x06\x00"),
        (0xA0, tlv(6, b"\x2a" + b"\x81" * 3000 + b"\x01") + tlv(0xA0, b"\x13\x01a")),
    ],
)
def test_other_general_names_are_kept_as_hex(tag: int, contents: bytes) -> None:
    assert general_names(tlv(tag, contents)) == (GeneralName("other", contents.hex()),)


def test_names_of_cryptography_are_read() -> None:
    names = [
        x509.DNSName("d.example"),
        x509.RFC822Name("r@example"),
        x509.UniformResourceIdentifier("https://u.example/x"),
    ]
    der = x509.SubjectAlternativeName(names).public_bytes()
    assert [(n.kind, n.value) for n in read_general_names(der)] == [
        ("dns", "d.example"),
        ("rfc822", "r@example"),
        ("uri", "https://u.example/x"),
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x31\x00",
        tlv(SEQ, b"\x82\x05abc"),
        tlv(SEQ, tlv(0x82, b"a")) + b"\0",
    ],
)
def test_broken_general_names_are_refused(data: bytes) -> None:
    with pytest.raises(ScepError, match="subjectAltName is not well-formed") as raised:
        read_general_names(data)
    assert raised.value.fail_info is FailInfo.BAD_REQUEST


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x31\x00",
        tlv(SEQ, tlv(SEQ)),
        tlv(SEQ, tlv(SET, tlv(SEQ))),
        tlv(SEQ, tlv(SET, tlv(SEQ, oid("2.5.4.3")))),
        tlv(SEQ, tlv(SET, tlv(SEQ, b"\x06\x00", b"\x13\x01a"))),
    ],
)
def test_broken_name_is_refused(data: bytes) -> None:
    with pytest.raises(ScepError):
        read_name(data)


def test_oversized_object_identifiers_are_refused() -> None:
    """Thousands of bytes in one arc: more digits than Python converts to text."""
    huge = tlv(6, b"\x2a" + b"\x81" * 3000 + b"\x01")
    with pytest.raises(ScepError):
        read_name(tlv(SEQ, tlv(SET, tlv(SEQ, huge, b"\x13\x01a"))))
