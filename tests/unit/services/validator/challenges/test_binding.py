"""Gate 6: which requests a token is for, name by name."""

from typing import Any, Final

import pytest

from services.validator.challenges.binding import Mismatch, mismatch
from services.validator.challenges.claims import Claims
from shared.scep.errors import ScepError
from shared.x509.csr import CertificationRequest
from tests.support.messages import (
    BMP,
    COMMON_NAME,
    IA5,
    PRINTABLE,
    SEQ,
    SET,
    T61,
    UTF8,
    name,
    oid,
    tlv,
)
from tests.support.signed_challenges import (
    UPN,
    dns,
    other_name,
    request,
    rfc822,
    upn,
    uri,
)

EMPTY: Final = tlv(SEQ)
GUID: Final = "0a1B2c3D-4e5F-6789-abCD-ef0123456789"
SID: Final = "tag:microsoft.com,2022-09-14:sid:S-1-5-21-2967416934-3759838345-1234567890-1104"
MAKERS: Final = {"dns": dns, "rfc822": rfc822, "upn": upn}
KINDS: Final = tuple(MAKERS)
KELVIN: Final = "\u212a"
DOTTED_I: Final = "\u0130"
FOREIGN: Final = {
    "an IPv4 address": tlv(0x87, bytes((192, 0, 2, 1))),
    "an IPv6 address": tlv(0x87, bytes(16)),
    "no address at all": tlv(0x87, b"\1\2\3"),
    "a URI": uri("https://device.example/"),
    "an empty URI": uri(""),
    "a URN": uri("urn:device:1"),
    "a directory name": tlv(0xA4, name((COMMON_NAME, UTF8, b"device"))),
    "a registered ID": tlv(0x88, b"\x2a\x03"),
    "an X.400 address": tlv(0xA3, b""),
    "an EDI party": tlv(0xA5, tlv(0xA1, tlv(UTF8, b"x"))),
    "another otherName": other_name("1.3.6.1.5.2.2", tlv(UTF8, b"device")),
    "an NT security object": other_name("1.3.6.1.4.1.311.25.2", tlv(UTF8, b"S-1-5-21-1")),
    "nearly a UPN": other_name(f"{UPN}.1", tlv(UTF8, b"a@b.example")),
    "a constructed DNS name": tlv(0xA2, tlv(0x16, b"device.example")),
    "an unknown tag": tlv(0x8A, b"device.example"),
}


def claimed(device: str | None = None, **names: tuple[str, ...]) -> Claims:
    """The claims of a token that names a device, and SANs of the kinds given."""
    return Claims("issuer", "subject", 1, 2, "nonce", None, device, **names)


def of_kind(kind: str, *values: str) -> dict[str, Any]:
    return {f"san_{kind}": values}


def asking(kind: str, *values: str) -> Any:
    return request(*(MAKERS[kind](value) for value in values))


def refused(claims: Claims, csr: CertificationRequest) -> bool:
    """Whether the request is not let through, be it for its names or for how they are written."""
    try:
        return mismatch(claims, csr) is not None
    except ScepError:
        return True


def dimension(found: Mismatch | None) -> str | None:
    return found.dimension if found else None


# Common name


@pytest.mark.parametrize("tag", [UTF8, PRINTABLE, T61])
def test_the_device_name_is_the_common_name(tag: int) -> None:
    asked = request(subject=name((COMMON_NAME, tag, b"device-1")))

    assert mismatch(claimed("device-1"), asked) is None


@pytest.mark.parametrize(
    ("tag", "contents"),
    [(BMP, "Ger\u00e4t \u9375".encode("utf-16-be")), (UTF8, "Ger\u00e4t \u9375".encode())],
)
def test_names_beyond_ascii_are_compared_as_text(tag: int, contents: bytes) -> None:
    asked = request(subject=name((COMMON_NAME, tag, contents)))

    assert mismatch(claimed("Ger\u00e4t \u9375"), asked) is None
    assert dimension(mismatch(claimed("Gerat \u9375"), asked)) == "device_name"
    assert dimension(mismatch(claimed("Gera\u0308t \u9375"), asked)) == "device_name"


@pytest.mark.parametrize(
    "other",
    [
        *("Device", "DEVICE", "device ", " device", "devic", "devicee", "", "device\0", "device\n"),
        *("\uff44evice", "dev\u0131ce", f"dev{DOTTED_I}ce", "\u0501evice", "device\u200b"),
        *("CN=device", "device,", "none"),
    ],
)
def test_another_common_name_does_not_do(other: str) -> None:
    """Case and blanks count."""
    asked = request(subject=name((COMMON_NAME, UTF8, other.encode())))

    found = mismatch(claimed("device"), asked)

    assert found == Mismatch("device_name", other or "none", "device")
    assert dimension(mismatch(claimed(other), request())) == "device_name"


@pytest.mark.parametrize(
    "subject",
    [
        EMPTY,
        name(("2.5.4.10", UTF8, b"device")),
        name(("2.5.4.5", UTF8, b"device")),
        name((f"{COMMON_NAME}.1", UTF8, b"device")),
    ],
)
@pytest.mark.parametrize("device", ["device", ""])
def test_a_request_without_a_common_name_does_not_do(subject: bytes, device: str) -> None:
    found = mismatch(claimed(device), request(subject=subject))

    assert found == Mismatch("device_name", "none", device)


@pytest.mark.parametrize("second", [b"device", b"admin", b""])
@pytest.mark.parametrize("together", [True, False])
def test_several_common_names_do_not_do(second: bytes, together: bool) -> None:  # noqa: FBT001 - as two RDNs, and as one of two values
    pair = [tlv(SEQ, oid(COMMON_NAME), tlv(UTF8, each)) for each in (b"device", second)]
    for values in (pair, pair[::-1]):
        rdns = [tlv(SET, *values)] if together else [tlv(SET, value) for value in values]

        found = mismatch(claimed("device"), request(subject=tlv(SEQ, *rdns)))

        assert dimension(found) == "device_name"


@pytest.mark.parametrize("hidden", [b"admin", b"device"])
def test_no_second_value_stands_behind_a_common_name(hidden: bytes) -> None:
    """The subject is certified byte for byte, and another reader may take the last value."""
    smuggler = tlv(SEQ, oid(COMMON_NAME), tlv(UTF8, b"device"), tlv(UTF8, hidden))

    assert refused(claimed("device"), request(subject=tlv(SEQ, tlv(SET, smuggler))))


def test_a_token_that_names_no_device_is_for_any() -> None:
    assert mismatch(claimed(), request()) is None
    assert mismatch(claimed(), request(subject=EMPTY)) is None


def test_the_common_name_is_bound_where_unclaimed_names_are_allowed() -> None:
    assert dimension(mismatch(claimed("other"), request(), allow_unclaimed=True)) == "device_name"


# One kind of names


SAME: Final = [
    ((), ()),
    (("a.example",), ("a.example",)),
    (("a.example",), ("A.Example",)),
    (("A.EXAMPLE",), ("a.example",)),
    (("a.example", "a.example"), ("a.example",)),
    (("a.example",), ("a.example", "a.example", "A.example")),
    (("b.example", "a.example"), ("a.example", "b.example")),
    ((" a.example\t",), ("a.example",)),
    (("\u00c4\u00d6.example",), ("\u00e4\u00f6.example",)),
    (("\u0391\u0392@x",), ("\u03b1\u03b2@x",)),
    ((KELVIN,), (KELVIN,)),
    (("\r\n a.example ",), ("a.example",)),
]
DIFFERENT: Final = [
    (("a.example",), ()),
    ((), ("a.example",)),
    (("a.example",), ("b.example",)),
    (("a.example", "b.example"), ("a.example",)),
    (("a.example",), ("a.example", "b.example")),
    (("a.example", "b.example"), ("a.example", "c.example")),
    (("a.example",), ("a.example.",)),
    (("a.example",), ("*.example",)),
    (("a.example",), ("aa.example",)),
    (("a.example",), ("a .example",)),
    (("a.example",), ("a.example\0",)),
    (("a.example",), ("a.example\0.b",)),
    (("a.example",), ("a.example\u200b",)),
    (("a.example, b.example",), ("a.example", "b.example")),
    (("a.example",), ("\uff41.example",)),
    (("a.example",), ("\u0430.example",)),
    (("k.example",), (f"{KELVIN}.example",)),
    (("K.example",), (f"{KELVIN}.example",)),
    (("i.example",), (f"{DOTTED_I}.example",)),
    (("I.example",), (f"{DOTTED_I}.example",)),
    (("i.example",), ("\u0131.example",)),
    (("s.example",), ("\u017f.example",)),
    (("strasse.example",), ("stra\u00dfe.example",)),
    (("\u00e9",), ("e\u0301",)),
    (("a.example",), ("",)),
    (("",), ()),
    ((), ("",)),
    ((), (" ",)),
    (("a.example",), ("a.example", "")),
    (("none",), ()),
]


@pytest.mark.parametrize("allow", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("token", "csr"), SAME, ids=ascii)
def test_the_same_set_of_names_passes(
    kind: str,
    token: tuple[str, ...],
    csr: tuple[str, ...],
    allow: bool,  # noqa: FBT001 - parametrized
) -> None:
    claims = claimed(**of_kind(kind, *token))

    assert mismatch(claims, asking(kind, *csr), allow_unclaimed=allow) is None


@pytest.mark.parametrize("allow", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("token", "csr"), DIFFERENT, ids=ascii)
def test_another_set_of_names_does_not_pass_either_way_round(
    kind: str,
    token: tuple[str, ...],
    csr: tuple[str, ...],
    allow: bool,  # noqa: FBT001 - parametrized
) -> None:
    """Extra names and missing ones; a name that is claimed is bound whatever is allowed."""
    for one, other in ((token, csr), (csr, token)):
        claims = claimed(**of_kind(kind, *one))

        found = mismatch(claims, asking(kind, *other), allow_unclaimed=allow)

        assert dimension(found) == f"san_{kind}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("values", [("a.example",), ("",), (" ",), ("a", "b"), ("none",)])
def test_a_kind_that_is_not_claimed_is_not_in_the_request(
    kind: str, values: tuple[str, ...]
) -> None:
    asked = asking(kind, *values)

    assert dimension(mismatch(claimed(), asked)) == f"san_{kind}"
    assert mismatch(claimed(), asked, allow_unclaimed=True) is None
    assert dimension(mismatch(claimed(**of_kind(kind)), asked, allow_unclaimed=True)) is not None


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_is_neither_claimed_nor_asked_for_passes(kind: str) -> None:
    assert mismatch(claimed(), request()) is None
    assert mismatch(claimed(**of_kind(kind)), request()) is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_mismatch_shows_both_sides(kind: str) -> None:
    claims = claimed(**of_kind(kind, "B.example", " a.example"))

    assert mismatch(claims, asking(kind, "c.example")) == Mismatch(
        f"san_{kind}", "c.example", "a.example, b.example"
    )
    assert mismatch(claims, request()) == Mismatch(f"san_{kind}", "none", "a.example, b.example")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_a_name_of_one_kind_is_none_of_another(kind: str, other: str) -> None:
    found = mismatch(claimed(**of_kind(kind, "a@b.example")), asking(other, "a@b.example"))

    assert (found is None) == (kind == other)


def test_all_kinds_together() -> None:
    claims = claimed("device", san_dns=("d.example",), san_rfc822=("m@x",), san_upn=("u@x", "v@x"))
    good = [upn("V@X"), dns("D.example"), rfc822("M@x"), upn("u@x"), uri(SID), dns("d.example")]

    assert mismatch(claims, request(*good)) is None
    for index in (0, 2, 3):
        assert mismatch(claims, request(*good[:index], *good[index + 1 :])) is not None
    for extra in (dns("e.example"), rfc822("n@x"), upn("w@x"), *FOREIGN.values()):
        assert mismatch(claims, request(*good, extra)) is not None


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        (claimed("x", san_dns=("x",), san_rfc822=("x",), san_upn=("x",)), "device_name"),
        (claimed("device", san_dns=("x",), san_rfc822=("x",), san_upn=("x",)), "san_dns"),
        (claimed("device", san_dns=("d",), san_rfc822=("x",), san_upn=("x",)), "san_rfc822"),
        (claimed("device", san_dns=("d",), san_rfc822=("m",), san_upn=("x",)), "san_upn"),
        (claimed("device", san_dns=("d",), san_rfc822=("m",), san_upn=("u",)), "san_other"),
    ],
)
def test_the_first_dimension_that_differs_is_named(claims: Claims, expected: str) -> None:
    asked = request(dns("d"), rfc822("m"), upn("u"), uri("x:y"))

    assert dimension(mismatch(claims, asked)) == expected


# User principal names


@pytest.mark.parametrize("tag", [IA5, BMP, 0x04, SEQ])
def test_a_upn_is_a_utf8string(tag: int) -> None:
    text = "a@b.example".encode("utf-16-be" if tag == BMP else "ascii")

    assert refused(claimed(san_upn=("a@b.example",)), request(other_name(UPN, tlv(tag, text))))


@pytest.mark.parametrize(
    "smuggler",
    [
        other_name(UPN, tlv(UTF8, b"a@b.example"), tlv(UTF8, b"admin@b.example")),
        tlv(
            0xA0,
            oid(UPN),
            tlv(0xA0, tlv(UTF8, b"a@b.example")),
            tlv(0xA0, tlv(UTF8, b"admin@b.example")),
        ),
    ],
    ids=["behind the string", "behind the value"],
)
def test_no_second_value_stands_behind_a_upn(smuggler: bytes) -> None:
    """SANs are certified byte for byte, and another reader may take the last value."""
    assert refused(claimed(san_upn=("a@b.example",)), request(smuggler))


def test_bytes_that_are_no_text_are_no_name_that_was_claimed() -> None:
    """What stands for unreadable bytes is not what the connector meant."""
    assert refused(claimed(san_dns=("a\ufffd",)), request(dns(b"a\xff")))


# Other names


@pytest.mark.parametrize("foreign", FOREIGN)
def test_a_name_for_which_there_is_no_claim_does_not_pass(foreign: str) -> None:
    claims = claimed("device", san_dns=("device.example",), san_rfc822=(), san_upn=())
    asked = request(dns("device.example"), FOREIGN[foreign])

    assert dimension(mismatch(claims, asked)) == "san_other"
    assert mismatch(claims, asked, allow_unclaimed=True) is None


@pytest.mark.parametrize("claims", [claimed(), claimed(san_dns=())])
@pytest.mark.parametrize(
    "value", [SID, f"IntuneDeviceId://{GUID}", "tag:microsoft.com,2022-09-14:sid:S-1-5-18"]
)
def test_two_forms_of_uri_need_no_claim(claims: Claims, value: str) -> None:
    assert mismatch(claims, request(uri(value))) is None
    assert mismatch(claims, request(uri(value), uri(value))) is None


def test_both_forms_stand_beside_each_other_but_excuse_nothing_else() -> None:
    both = [uri(SID), uri(f"IntuneDeviceId://{GUID}")]

    assert mismatch(claimed(), request(*both)) is None
    assert dimension(mismatch(claimed(), request(*both, uri("urn:x:y")))) == "san_other"
    assert dimension(mismatch(claimed(), request(*both, dns("x")))) == "san_dns"


@pytest.mark.parametrize(
    "value",
    [
        "TAG:microsoft.com,2022-09-14:sid:S-1-5-18",
        "tag:Microsoft.com,2022-09-14:sid:S-1-5-18",
        "tag:microsoft.com,2022-09-14:SID:S-1-5-18",
        "tag:microsoft.com,2022-09-14:uid:S-1-5-18",
        "tag:microsoft.com,2022-09-15:sid:S-1-5-18",
        "tag:microsoft.com,2022-9-14:sid:S-1-5-18",
        "tag:microsoft.com:sid:S-1-5-18",
        "tag:microsoftxcom,2022-09-14:sid:S-1-5-18",
        "tag:microsoft.com.evil,2022-09-14:sid:S-1-5-18",
        "tag:evil,microsoft.com,2022-09-14:sid:S-1-5-18",
        " tag:microsoft.com,2022-09-14:sid:S-1-5-18",
        "xtag:microsoft.com,2022-09-14:sid:S-1-5-18",
        "tag:microsoft.com,2022-09-14:sid:S-1-5-18\n",
        "tag:microsoft.com,2022-09-14:sid:S-1-5-18\nhttps://evil.example/",
        "tag:microsoft.com,2022-09-14:sid:S-1-\u0665-18",
        "https://x/?tag:microsoft.com,2022-09-14:sid:S-1-5-18",
        f"intunedeviceid://{GUID}",
        f"INTUNEDEVICEID://{GUID}",
        f"IntuneDeviceID://{GUID}",
        f"IntuneDeviceId:/{GUID}",
        f"IntuneDeviceId:{GUID}",
        f"IntuneDeviceId//{GUID}",
        f" IntuneDeviceId://{GUID}",
        f"XIntuneDeviceId://{GUID}",
        f"https://x/IntuneDeviceId://{GUID}",
        f"IntuneDeviceId://{GUID}\n",
        f"IntuneDeviceId://{GUID} IntuneDeviceId://{GUID}",
        GUID,
        "tag:microsoft.com,2022-09-14:sid",
        "IntuneDeviceId",
    ],
)
def test_nearly_such_a_uri_is_a_uri_like_any_other(value: str) -> None:
    assert dimension(mismatch(claimed(), request(uri(value)))) == "san_other"


def test_what_looks_like_such_a_uri_is_none_elsewhere() -> None:
    assert dimension(mismatch(claimed(), request(dns(SID)))) == "san_dns"
    assert dimension(mismatch(claimed(), request(rfc822(SID)))) == "san_rfc822"
    assert dimension(mismatch(claimed(), request(upn(SID)))) == "san_upn"
    assert dimension(mismatch(claimed(), request(tlv(0x88, SID.encode())))) == "san_other"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("asked", ["a.example ", "\r\n a.example", " a.example", "\ta.example"])
def test_blanks_of_the_request_count_for_they_would_be_certified(kind: str, asked: str) -> None:
    for claims in (("a.example",), (asked,), ("a.example", asked)):
        assert refused(claimed(**of_kind(kind, *claims)), asking(kind, asked))


# The rest of the subject

OU: Final = "2.5.4.11"
EMAIL: Final = "1.2.840.113549.1.9.1"
OCTETS: Final = 0x04


def beside(*others: tuple[str, int, bytes], **allowed: Any) -> Mismatch | None:
    """What there is against a subject with the claimed CN and these attributes."""
    asked = request(subject=name((COMMON_NAME, UTF8, b"device"), *others))
    return mismatch(claimed("device"), asked, **allowed)


@pytest.mark.parametrize("kind", ["2.5.4.6", "2.5.4.10", "2.5.4.7", "2.5.4.8", "2.5.4.5"])
def test_where_a_device_is_may_stand_beside_its_name(kind: str) -> None:
    assert beside((kind, PRINTABLE, b"AT")) is None
    found = beside((kind, OCTETS, b"AT"))
    assert found is not None
    assert found.dimension == "subject"


@pytest.mark.parametrize(
    ("kind", "tag", "named"),
    [
        (OU, UTF8, "OU"),
        (EMAIL, IA5, "emailAddress"),
        ("0.9.2342.19200300.100.1.1", UTF8, "UID"),
        ("0.9.2342.19200300.100.1.25", IA5, "DC"),
        ("1.2.840.113549.1.9.2", IA5, "unstructuredName"),
        ("2.5.4.12", UTF8, "2.5.4.12"),
        ("1.3.6.1.4.1.99999.1", UTF8, "1.3.6.1.4.1.99999.1"),
    ],
)
def test_what_gives_rights_elsewhere_needs_the_operators_leave(
    kind: str, tag: int, named: str
) -> None:
    attribute = (kind, tag, b"Domain, Admins")
    assert beside(attribute) == Mismatch(
        "subject", f"{named}=Domain\\, Admins", "CN, C, L, O, ST, serialNumber"
    )
    assert beside(attribute, attributes=frozenset({named})) is None
    assert beside(attribute, attributes=frozenset({"any"})) is None
    assert beside(attribute, attributes=frozenset()) is not None
    assert beside(attribute, attributes=frozenset({"L"})) is not None


def test_a_token_without_a_device_name_allows_no_more() -> None:
    asked = request(subject=name((COMMON_NAME, UTF8, b"x"), (OU, UTF8, b"Domain Admins")))
    assert dimension(mismatch(claimed(), asked)) == "subject"
    assert mismatch(claimed(), asked, attributes=frozenset({"OU"})) is None


@pytest.mark.parametrize("tag", [OCTETS, IA5, 0x03, 0x18])
def test_a_common_name_is_a_directory_string(tag: int) -> None:
    asked = request(subject=name((COMMON_NAME, tag, b"device")))
    assert mismatch(claimed("device"), asked) == Mismatch(
        "device_name", "unsupported string type", "device"
    )
    assert dimension(mismatch(claimed(), asked, attributes=frozenset({"any"}))) == "subject"


def test_a_second_common_name_is_none_that_was_claimed() -> None:
    second = (COMMON_NAME, UTF8, b"printer-7")
    assert dimension(beside(second)) == "device_name"
    asked = request(subject=name(second, second))
    found = mismatch(claimed(), asked, attributes=frozenset({"any"}))
    assert found is not None
    assert found.asked == "more than one CN"


def test_a_set_of_attributes_is_looked_at_one_by_one() -> None:
    pairs = [
        tlv(SEQ, oid(COMMON_NAME), tlv(UTF8, b"device")),
        tlv(SEQ, oid(OU), tlv(UTF8, b"Domain Admins")),
    ]
    asked = request(subject=tlv(SEQ, tlv(SET, *pairs)))
    assert dimension(mismatch(claimed("device"), asked)) == "subject"
