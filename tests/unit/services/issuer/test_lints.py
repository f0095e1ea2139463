"""Lints: of certificates that the system makes, which have none, and of each one that is broken."""

from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from services.issuer.connectors.connector import Order, Prepared, Refused
from services.issuer.connectors.local import LocalConnector
from services.issuer.lints import first_error, lint
from services.issuer.received import misissued
from shared.log.events.enrollment import TemplateExtension
from shared.log.reasons import Reason
from tests.support import pki
from tests.support.messages import NULL, SEQ, integer, name, oid, tlv
from tests.support.templates import EKU, KEY_USAGE, SAN, template
from tests.support.world import NOW

KEY = ec.derive_private_key(31, ec.SECP256R1())
CA = pki.local_ca(KEY)
SHA256 = tlv(SEQ, oid("1.2.840.10045.4.3.2"))
UTC, GENERALIZED = 0x17, 0x18
SIGNING = TemplateExtension(oid="2.5.29.15", critical=True, value=b"\x03\x02\x07\x80")
DRAFTED = template(CA.certificate)
PLAIN = msgspec.structs.replace(DRAFTED, extensions=(SIGNING, *DRAFTED.extensions[1:]))
NAME = name(("2.5.4.3", 0x0C, b"a"))
TIMES = (tlv(UTC, b"250101000000Z"), tlv(UTC, b"260101000000Z"))
TRUE = b"\x01\x01\xff"


def extension(dotted: str, value: bytes = NULL, critical: bytes = b"") -> bytes:
    return tlv(SEQ, oid(dotted), critical, tlv(4, value))


USAGE = extension("2.5.29.15", b"\x03\x02\x07\x80", TRUE)
PURPOSES = extension("2.5.29.37", tlv(SEQ, oid(pki.CLIENT_AUTH)))
IDS = (
    extension("2.5.29.14", tlv(4, b"12345678")),
    extension("2.5.29.35", tlv(SEQ, tlv(0x80, b"12345678"))),
)
SANS = extension("2.5.29.17", tlv(SEQ, tlv(0x82, b"a.example")))
CRITICAL_SANS = extension("2.5.29.17", tlv(SEQ, tlv(0x82, b"a.example")), TRUE)


def made(**changes: Any) -> bytes:
    """A certificate, encoded by the tests, with some of its parts altered."""
    parts: dict[str, Any] = {
        "version": tlv(0xA0, integer(2)),
        "serial": integer(7),
        "inner": SHA256,
        "issuer": NAME,
        "times": TIMES,
        "subject": NAME,
        "spki": PLAIN.spki,
        "extensions": (USAGE, PURPOSES, *IDS, SANS),
        "outer": SHA256,
    } | changes
    tbs = tlv(
        SEQ,
        parts["version"],
        parts["serial"],
        parts["inner"],
        parts["issuer"],
        tlv(SEQ, *parts["times"]),
        parts["subject"],
        parts["spki"],
        tlv(0xA3, tlv(SEQ, *parts["extensions"])),
    )
    return tlv(SEQ, tbs, parts["outer"], tlv(3, b"\0", b"signature"))


def with_extensions(*extensions: bytes) -> dict[str, Any]:
    return {"extensions": extensions}


def test_what_the_local_ca_makes_has_no_findings() -> None:
    made_here = CA.draft(PLAIN, "enroll.0.a.b.c.0")

    assert lint(CA.unsigned(made_here)) == ()
    assert lint(CA.sign(made_here)) == ()
    assert lint(made()) == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": b""}, "the version is not 3"),
        ({"version": tlv(0xA0, integer(1))}, "the version is not 3"),
        ({"serial": integer(0)}, "not positive"),
        ({"serial": tlv(2, b"\x80")}, "not positive"),
        ({"serial": tlv(2)}, "not positive"),
        ({"serial": integer(1 << 159)}, "longer than 20 octets"),
        ({"serial": tlv(2, b"\0\x01")}, "not in DER"),
        ({"outer": tlv(SEQ, oid("1.2.840.10045.4.3.3"))}, "inside and outside differ"),
        ({"inner": tlv(SEQ, oid("1.2.840.113549.1.1.4"), NULL),
          "outer": tlv(SEQ, oid("1.2.840.113549.1.1.4"), NULL)}, "MD5"),
        ({"issuer": tlv(SEQ)}, "the issuer is empty"),
        ({"times": TIMES[::-1]}, "expires before"),
        ({"times": (tlv(UTC, b"991231235959Z"), TIMES[0], TIMES[1])}, "after the last"),
        ({"times": (tlv(UTC, b"2501010000Z"), TIMES[1])}, "a time is not"),
        ({"times": (tlv(UTC, b"250101000000+0100"), TIMES[1])}, "a time is not"),
        ({"times": (TIMES[0], tlv(GENERALIZED, b"20600101000000.5Z"))}, "a time is not"),
        (with_extensions(), "the extensions are empty"),
        (with_extensions(USAGE, PURPOSES, *IDS, SANS, SANS), "duplicate extension 2.5.29.17"),
        (with_extensions(USAGE, extension("1.2.3", NULL, TRUE), *IDS), "must not be critical"),
        (with_extensions(USAGE, extension("2.5.29.37", tlv(SEQ)), *IDS), "extendedKeyUsage is emp"),
        (with_extensions(USAGE, extension("2.5.29.17", tlv(SEQ))), "subjectAltName is empty"),
        (with_extensions(USAGE, extension("2.5.29.31", tlv(SEQ))), "cRLDistributionPoints is"),
        (with_extensions(extension("2.5.29.15", b"\x03\x01\0", TRUE)), "the key usage is empty"),
        (with_extensions(extension("2.5.29.15", b"\x03\x02\x07\0", TRUE)), "key usage is empty"),
        (with_extensions(extension("2.5.29.15", b"\x03\x02\x02\x84", TRUE)), "keyCertSign"),
        (with_extensions(USAGE, extension("2.5.29.19", tlv(SEQ, TRUE))), "a CA certificate"),
        (with_extensions(USAGE, extension("2.5.29.19", tlv(SEQ, integer(0)))), "a path length"),
        ({"subject": tlv(SEQ), **with_extensions(USAGE, PURPOSES, *IDS)}, "neither subject nor"),
    ],
)  # fmt: skip
def test_what_programs_reject_is_an_error(changes: dict[str, Any], said: str) -> None:
    assert said in first_error(made(**changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"inner": tlv(SEQ, oid("1.2.840.10045.4.1")), "outer": tlv(SEQ, oid("1.2.840.10045.4.1"))},
         "SHA-1"),
        ({"inner": tlv(SEQ, oid("1.2.840.113549.1.1.10"), tlv(SEQ)),
          "outer": tlv(SEQ, oid("1.2.840.113549.1.1.10"), tlv(SEQ))}, "SHA-1"),
        ({"times": (tlv(GENERALIZED, b"20250101000000Z"), TIMES[1])}, "not a UTCTime"),
        (with_extensions(USAGE, PURPOSES, IDS[0]), "no authority key identifier"),
        (with_extensions(USAGE, PURPOSES, IDS[1]), "no subject key identifier"),
        (with_extensions(USAGE, PURPOSES, *IDS, CRITICAL_SANS), "critical beside a subject"),
        ({"subject": tlv(SEQ)}, "the subject is empty and the subjectAltName not critical"),
        (with_extensions(extension("2.5.29.15", b"\x03\x02\x07\x80"), *IDS), "not critical"),
        (with_extensions(extension("2.5.29.15", b"\x03\x02\x05\xa0", TRUE), *IDS), "an EC key"),
        (with_extensions(extension("2.5.29.15", b"\x03\x02\x06\x40", TRUE), PURPOSES, *IDS),
         "no extended key usage is consistent"),
        (with_extensions(USAGE, extension("2.5.29.32", tlv(SEQ, tlv(SEQ)), b"\x01\x01\0"), *IDS),
         "flag is not in DER"),
    ],
)  # fmt: skip
def test_what_programs_tolerate_is_a_warning(changes: dict[str, Any], said: str) -> None:
    found = lint(made(**changes))

    assert [each.is_error for each in found] == [False]
    assert said in found[0].text


def test_times_from_2050_are_generalized_times() -> None:
    late = (TIMES[0], tlv(GENERALIZED, b"20500101000000Z"))

    assert lint(made(times=late)) == ()
    assert lint(made(times=(tlv(UTC, b"500101000000Z"), TIMES[0]))) == ()  # 1950
    assert lint(made(times=(tlv(UTC, b"491231235959Z"), late[1]))) == ()


def test_an_empty_subject_has_a_critical_san() -> None:
    assert lint(made(subject=tlv(SEQ), extensions=(USAGE, PURPOSES, *IDS, CRITICAL_SANS))) == ()


def prepared(**changes: Any) -> Prepared | Refused:
    approved = msgspec.structs.replace(PLAIN, **changes)
    order = Order("enroll.0.a.b.c.0", approved, "00" * 32)
    return LocalConnector(CA).prepare(order)


def test_the_local_ca_does_not_sign_what_has_an_error() -> None:
    empty = TemplateExtension(oid="2.5.29.15", critical=True, value=b"\x03\x01\0")
    refused = prepared(extensions=(empty, EKU, SAN))

    assert isinstance(prepared(), Prepared)
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.UNREADABLE
    assert refused.detail == (
        "the certificate would be invalid: the key usage is empty (RFC 5280 4.2.1.3)"
    )


def test_a_certificate_that_a_ca_made_with_an_error_is_not_accepted() -> None:
    critical = TemplateExtension(oid="2.5.29.14", critical=True, value=tlv(4, b"12345678"))
    approved = template(CA.certificate, extensions=(KEY_USAGE, EKU, critical, SAN))
    returned = CA.sign(CA.draft(approved, "enroll.0.a.b.c.0"))
    found = misissued(approved, CA.ceilings, CA.chain[0], returned, NOW)

    assert found == "the certificate is invalid: extension 2.5.29.14 must not be critical"


@given(st.binary(max_size=64), st.integers(0, 400), st.booleans())
def test_any_bytes_get_an_answer(data: bytes, place: int, replaced: bool) -> None:  # noqa: FBT001
    der = made()
    mutated = der[:place] + data + der[place + (len(data) if replaced else 0) :]

    assert all(len(each.text) < 300 for each in (*lint(data), *lint(mutated)))
