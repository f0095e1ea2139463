import datetime as dt
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519

from services.issuer.ceilings import Times, beyond_ceilings, ended, out_of_time
from shared.log.events.enrollment import TemplateExtension
from shared.x509.sid import SID, write_sid
from tests.support import pki
from tests.support.messages import NULL, SEQ, UTF8, integer, name, oid, spki, tlv
from tests.support.templates import DAY, EKU, KEY_USAGE, SAN, SPKI, template
from tests.support.weak_keys import close_modulus, roca_modulus, sound_modulus
from tests.support.world import NOW

ROOT = pki.make_root(ec.derive_private_key(5, ec.SECP256R1()))
CEILINGS = pki.ceilings(ROOT)
CA_END = int(pki.END.timestamp())
YEARS = 2 * 365 * DAY
BACKDATE = CEILINGS.max_backdate


def problem(**changes: Any) -> str:
    return beyond_ceilings(template(ROOT, **changes), CEILINGS)


def extension(dotted: str, value: bytes = NULL, *, critical: bool = False) -> TemplateExtension:
    return TemplateExtension(oid=dotted, critical=critical, value=value)


def usage(value: bytes) -> TemplateExtension:
    return extension("2.5.29.15", value, critical=True)


def ekus(*names: str) -> TemplateExtension:
    return extension("2.5.29.37", tlv(SEQ, *map(oid, names)))


def with_san(*names: bytes) -> TemplateExtension:
    return extension("2.5.29.17", tlv(SEQ, *names))


def rsa_spki(bits: int) -> bytes:
    """A public key of so many bits; whether it is two primes is nobody's concern here."""
    key = tlv(SEQ, integer(sound_modulus(bits)), integer(65537))
    return tlv(SEQ, tlv(SEQ, oid("1.2.840.113549.1.1.1"), NULL), tlv(3, b"\0", key))


def test_what_a_validator_approves_is_within_the_ceilings() -> None:
    assert problem() == ""


def test_another_ca_key_is_beyond() -> None:
    assert problem(ca_spki_sha256="00" * 32) == "the verdict is for another CA key"


@pytest.mark.parametrize(("end", "beyond"), [(CA_END, False), (CA_END + 1, True)])
def test_a_certificate_that_outlives_its_ca_is_beyond(end: int, beyond: bool) -> None:  # noqa: FBT001 - a case
    assert ("outlive" in problem(not_before=end - DAY, not_after=end)) is beyond


@pytest.mark.parametrize(
    ("start", "end", "beyond"),
    [
        (NOW, NOW + YEARS, False),
        (NOW - BACKDATE, NOW + YEARS, False),
        (NOW - BACKDATE - 1, NOW + YEARS, True),
        (NOW, NOW + YEARS + BACKDATE + 1, True),
        (NOW, NOW + 1, False),
        (NOW, NOW, True),
        (NOW, NOW - 1, True),
        (-(10**15), NOW, True),
    ],
)
def test_the_validity_has_a_longest_and_a_shortest(start: int, end: int, beyond: bool) -> None:  # noqa: FBT001 - a case
    found = problem(not_before=start, not_after=end)

    assert bool(found) is beyond
    if beyond and start > 0:
        assert ("validity" in found) is (end > start)
        assert ("expire before it becomes valid" in found) is (end <= start)


def with_key(exponent: int, modulus: int) -> str:
    key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    return problem(spki=spki(key))


def test_an_issuer_signs_no_key_that_can_be_factored() -> None:
    """Whatever a validator said; a small exponent is the profile's to allow."""
    assert "ROCA" in with_key(65537, roca_modulus(0))
    assert "close" in with_key(65537, close_modulus(2))
    assert with_key(3, sound_modulus(2048)) == ""


def test_a_certificate_that_precedes_its_ca_is_beyond() -> None:
    begin = int(pki.START.timestamp())

    assert problem(not_before=begin, not_after=begin + DAY) == ""
    assert "before its CA" in problem(not_before=begin - 1, not_after=begin + DAY)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"subject": name(("2.5.4.3", UTF8, b"a\0"))}, "NUL"),
        ({"subject": tlv(SEQ, tlv(0x31))}, "which is empty"),
        ({"subject": b"\x0c\x01a"}, "well-formed"),
        ({"extensions": (KEY_USAGE, EKU, with_san(tlv(0x82, b"a b")))}, "a space is not allowed"),
        ({"extensions": (KEY_USAGE, EKU, with_san(b"\x82\x05"))}, "well-formed"),
    ],
)
def test_names_against_the_rules_are_beyond(change: dict[str, Any], said: str) -> None:
    """Whatever validator let them through."""
    assert said in problem(**change)


# By the times of the log


def times_problem(not_before: int, not_after: int, requested: int = NOW) -> str:
    made = template(ROOT, not_before=not_before, not_after=not_after)
    return out_of_time(made, CEILINGS, Times(requested, NOW))


@pytest.mark.parametrize(
    ("not_before", "not_after", "said"),
    [
        (NOW - 3900, NOW + DAY, ""),
        (NOW - 3901, NOW + DAY, "longer before its request"),
        (0, NOW + DAY, "longer before its request"),
        (NOW + 300, NOW + DAY, ""),
        (NOW + 301, NOW + DAY, "begin in the future"),
        (NOW + 10 * 365 * DAY, NOW + 11 * 365 * DAY, "begin in the future"),
        (NOW - 600, NOW + 1, ""),
        (NOW - 600, NOW, "expired already"),
        (NOW - 3600, NOW + YEARS, ""),
        (NOW - 3600, NOW + YEARS + 300, ""),
        (NOW - 3600, NOW + YEARS + 301, "longer than this issuer allows"),
    ],
)
def test_a_certificate_begins_about_when_it_was_asked_for(
    not_before: int, not_after: int, said: str
) -> None:
    found = times_problem(not_before, not_after)

    assert said in found
    assert bool(found) is bool(said)


def test_a_request_that_waited_may_have_a_certificate_that_began_long_ago() -> None:
    """For an operator, or for a validator that was away."""
    assert times_problem(NOW - 7 * DAY, NOW + DAY, requested=NOW - 7 * DAY) == ""


@pytest.mark.parametrize(("at", "over"), [(CA_END - 1, False), (CA_END, True), (CA_END + 1, True)])
def test_a_ca_that_has_ended_says_when(at: int, *, over: bool) -> None:
    assert bool(ended(CEILINGS, at)) is over
    if over:
        assert "2044-01-01 00:00:00 UTC" in ended(CEILINGS, at)


@pytest.mark.parametrize("bits", [2048, 3072, 4096, 8192])
def test_rsa_keys_from_2048_to_8192_bits_are_signed(bits: int) -> None:
    assert problem(spki=rsa_spki(bits)) == ""


@pytest.mark.parametrize("bits", [1024, 2040, 16384])
def test_rsa_keys_of_other_sizes_are_beyond(bits: int) -> None:
    assert problem(spki=rsa_spki(bits)).startswith("the public key")


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_keys_on_nists_curves_are_signed(curve: ec.EllipticCurve) -> None:
    assert problem(spki=pki.spki(ec.derive_private_key(3, curve).public_key())) == ""


@pytest.mark.parametrize(
    "key",
    [
        ec.derive_private_key(3, ec.SECP256K1()).public_key(),
        ec.derive_private_key(3, ec.SECP224R1()).public_key(),
        ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key(),
        x25519.X25519PrivateKey.from_private_bytes(bytes(32)).public_key(),
    ],
)
def test_keys_of_other_kinds_are_beyond(key: Any) -> None:
    assert "too weak or of an unsupported kind" in problem(spki=pki.spki(key))


@pytest.mark.parametrize("spki", [b"", NULL, tlv(SEQ), SPKI[:-1], SPKI[::-1]])
def test_a_key_that_does_not_parse_is_beyond(spki: bytes) -> None:
    assert problem(spki=spki) == "the public key does not parse"


@pytest.mark.parametrize("twice", [KEY_USAGE, EKU, SAN])
def test_an_extension_that_stands_twice_is_beyond(twice: TemplateExtension) -> None:
    """Readers differ in which of the two they believe."""
    assert problem(extensions=(KEY_USAGE, EKU, SAN, twice)) == "duplicate extension"


@pytest.mark.parametrize(
    "smuggled",
    [
        extension("2.5.29.19", tlv(SEQ, b"\x01\x01\xff"), critical=True),
        extension("2.5.29.19", tlv(SEQ)),
        extension("1.3.6.1.4.1.311.25.2", tlv(SEQ)),
        extension("2.5.29.30", tlv(SEQ)),
        extension("1.3.6.1.4.1.311.20.2", NULL),
        extension("1.2.3.4"),
        extension("2.5.29.015"),
    ],
    ids=lambda e: e.oid,
)
def test_any_other_extension_is_beyond(smuggled: TemplateExtension) -> None:
    assert problem(extensions=(KEY_USAGE, EKU, smuggled)) == "extension not permitted"


@pytest.mark.parametrize("extensions", [(), (KEY_USAGE,), (EKU,), (SAN,)])
def test_a_certificate_without_both_key_usages_is_beyond(
    extensions: tuple[TemplateExtension, ...],
) -> None:
    """Without them it could be used for anything."""
    assert problem(extensions=extensions) == "key usages are missing"


@pytest.mark.parametrize(
    "bits",
    [b"\x03\x02\x02\x04", b"\x03\x02\x01\x02", b"\x03\x02\x01\x06", b"\x03\x02\x01\xa6",
     b"\x03\x03\x07\xa4\x80", b"\x03\x01\x00"],
    ids=["keyCertSign", "cRLSign", "both", "among others", "before decipherOnly", "none at all"],
)  # fmt: skip
def test_key_usages_of_a_ca_are_beyond(bits: bytes) -> None:
    assert problem(extensions=(usage(bits), EKU)) == "CA key usage not permitted"


@pytest.mark.parametrize("octet", [0x80, 0x40, 0x20, 0x10, 0x08, 0xF8])
def test_every_other_key_usage_is_signed(octet: int) -> None:
    assert problem(extensions=(usage(bytes((3, 2, 0, octet))), EKU)) == ""


@pytest.mark.parametrize(
    "names",
    [
        ("1.3.6.1.5.5.7.3.1",),
        (pki.CLIENT_AUTH, "1.3.6.1.5.5.7.3.3"),
        ("2.5.29.37.0",),
        ("1.3.6.1.4.1.311.20.2.1",),
    ],
)
def test_an_extended_key_usage_that_is_not_listed_is_beyond(names: tuple[str, ...]) -> None:
    assert "extended key usage" in problem(extensions=(KEY_USAGE, ekus(*names)))


def test_listed_extended_key_usages_are_signed() -> None:
    both = (pki.CLIENT_AUTH, "1.3.6.1.5.5.7.3.1")
    wider = replace(CEILINGS, extended_key_usages=frozenset(both))

    made = template(ROOT, extensions=(KEY_USAGE, ekus(*both)))
    assert beyond_ceilings(made, wider) == ""
    assert beyond_ceilings(made, CEILINGS) != ""


@pytest.mark.parametrize(
    "bad",
    [usage(b""), usage(NULL), usage(b"\x03\x05\x00"), extension("2.5.29.37", b"\x30\x05\x06")],
)
def test_usages_that_do_not_parse_are_beyond(bad: TemplateExtension) -> None:
    others = tuple(e for e in (KEY_USAGE, EKU) if e.oid != bad.oid)

    assert problem(extensions=(bad, *others)) == "the template does not parse"


@pytest.mark.parametrize(
    "bad",
    [
        extension("2.5.29.37", tlv(SEQ, oid(pki.CLIENT_AUTH)) + tlv(SEQ, oid("2.5.29.37.0"))),
        extension("2.5.29.37", tlv(SEQ)),
        usage(b"\x03\x02\x05\xa0\x03\x02\x01\x06"),
    ],
    ids=["bytes after the EKUs", "no EKU at all", "bytes after the key usage"],
)
def test_usages_that_readers_could_take_otherwise_are_beyond(bad: TemplateExtension) -> None:
    others = tuple(e for e in (KEY_USAGE, EKU) if e.oid != bad.oid)

    assert problem(extensions=(bad, *others)) != ""


# What relying parties are told beside names and usages

AIA, POLICIES, TLS_FEATURE = "1.3.6.1.5.5.7.1.1", "2.5.29.32", "1.3.6.1.5.5.7.1.24"
OCSP, CA_ISSUERS = "1.3.6.1.5.5.7.48.1", "1.3.6.1.5.5.7.48.2"
CPS, USER_NOTICE = "1.3.6.1.5.5.7.2.1", "1.3.6.1.5.5.7.2.2"


def access(method: str, url: bytes = b"http://a.example", tag: int = 0x86) -> bytes:
    return tlv(SEQ, oid(method), tlv(tag, url))


def practice(url: bytes = b"https://c.example", kind: str = CPS, tag: int = 0x16) -> bytes:
    """A policy's qualifiers with one in them."""
    return tlv(SEQ, tlv(SEQ, oid(kind), tlv(tag, url)))


def information(dotted: str, *qualifiers: bytes) -> bytes:
    return tlv(SEQ, oid(dotted), *qualifiers)


def added(dotted: str, *parts: bytes, critical: bool = False, policies: Any = ()) -> str:
    """The problem of a template with one more extension, a sequence of these parts."""
    more = extension(dotted, tlv(SEQ, *parts), critical=critical)
    wider = replace(CEILINGS, certificate_policies=frozenset(policies))
    return beyond_ceilings(template(ROOT, extensions=(KEY_USAGE, EKU, more)), wider)


def test_where_things_are_found_and_stapling_are_signed_for_every_profile() -> None:
    assert added(AIA, access(OCSP), access(CA_ISSUERS)) == ""
    assert added(TLS_FEATURE, integer(5)) == ""


@pytest.mark.parametrize(
    ("dotted", "parts"),
    [
        (AIA, ()),
        (AIA, (access("1.2.3.4"),)),
        (AIA, (access(OCSP, b"https://a.example"),)),
        (AIA, (access(OCSP, b"ldap://a.example"),)),
        (AIA, (access(OCSP, b"http://a b"),)),
        (AIA, (access(OCSP, b"a.example", 0x82),)),
        (AIA, (access(OCSP), access(OCSP) + NULL)),
        (TLS_FEATURE, ()),
        (TLS_FEATURE, (integer(17),)),
        (TLS_FEATURE, (integer(5), integer(5))),
        (POLICIES, ()),
        (POLICIES, (information("1.2.3"), information("1.2.3"))),
        (POLICIES, (information("1.2.3", practice(kind=USER_NOTICE)),)),
        (POLICIES, (information("1.2.3", practice(tag=0x0C)),)),
        (POLICIES, (information("1.2.3", practice(b"javascript:a")),)),
        (POLICIES, (information("1.2.3", tlv(SEQ)),)),
        (POLICIES, (information("1.2.3", practice(), practice()),)),
    ],
)
def test_what_relying_parties_are_told_has_one_form(dotted: str, parts: tuple[bytes, ...]) -> None:
    assert added(dotted, *parts, policies=("1.2.3",)) != ""


@pytest.mark.parametrize(
    ("dotted", "part"), [(AIA, access(OCSP)), (TLS_FEATURE, integer(5))], ids=["AIA", "staple"]
)
def test_what_relying_parties_may_ignore_is_not_critical(dotted: str, part: bytes) -> None:
    assert added(dotted, part, critical=True) == "the extension must not be critical"


def test_a_policy_is_signed_only_where_the_issuer_lists_it() -> None:
    """It may grant something: relying parties give roles and assurance levels by policy."""
    both = information("1.2.3"), information("1.2.4", practice())

    assert added(POLICIES, *both, policies=("1.2.3", "1.2.4", "1.2.5")) == ""
    for allowed in ((), ("1.2.3",), ("1.2.4",), ("2.5.29.32.0",)):
        assert added(POLICIES, *both, policies=allowed) == (
            "certificate policy not permitted by this issuer"
        )


def test_the_ceiling_is_the_cas_own_end_not_the_clocks() -> None:
    soon = pki.make_root(
        ec.derive_private_key(5, ec.SECP256R1()),
        end=dt.datetime.fromtimestamp(NOW + DAY, dt.UTC),
    )

    assert beyond_ceilings(template(soon, not_after=NOW + DAY), pki.ceilings(soon)) == ""
    assert beyond_ceilings(template(soon, not_after=NOW + DAY + 1), pki.ceilings(soon)) != ""
    assert isinstance(soon, x509.Certificate)


# The extension with a SID

ACCOUNT = "S-1-5-21-1004336348-1177238915-682003330-1104"


@pytest.mark.parametrize(
    ("value", "critical", "beyond"),
    [
        (write_sid(ACCOUNT), False, ""),
        (write_sid(ACCOUNT), True, "not the SID of one account"),
        (write_sid("S-1-5-32-544"), False, "not the SID of one account"),
        (tlv(SEQ), False, "not the SID of one account"),
        (tlv(SEQ, write_sid(ACCOUNT)[2:] * 2), False, "not the SID of one account"),
        (tlv(UTF8, ACCOUNT.encode()), False, "not the SID of one account"),
    ],
)
def test_an_issuer_that_allows_sids_signs_them_in_one_form_only(
    value: bytes,
    critical: bool,  # noqa: FBT001 - a case
    beyond: str,
) -> None:
    found = template(ROOT, extensions=(KEY_USAGE, EKU, extension(SID, value, critical=critical)))
    allowing = replace(CEILINGS, allow_sid=True)

    assert beyond_ceilings(found, CEILINGS) == "extension not permitted"
    assert beyond in beyond_ceilings(found, allowing)
    assert bool(beyond_ceilings(found, allowing)) is bool(beyond)
