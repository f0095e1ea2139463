"""What a CA returned, held against what was approved; whatever it is, there is an answer."""

import datetime as dt
from typing import Any, Final

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from services.issuer.received import misissued, undraftable
from shared.log.events.enrollment import CertificateTemplate, TemplateExtension
from shared.x509.sid import SID, write_sid
from tests.support import messages, pki
from tests.support.templates import DAY, DEVICE_KEY, template
from tests.support.world import NOW

KEY: Final = ec.derive_private_key(11, ec.SECP256R1())
OTHER: Final = ec.derive_private_key(12, ec.SECP256R1())
CA: Final = pki.local_ca(KEY)
USAGES: Final = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
    "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip
APPROVED: Final = template(CA.certificate)
DRAFTED: Final = CA.sign(CA.draft(APPROVED, "enroll.0.a.b.c.0"))
SUBJECT: Final = x509.load_der_x509_certificate(DRAFTED).subject


def judged(der: bytes, approved: CertificateTemplate = APPROVED) -> str:
    return misissued(approved, CA.ceilings, CA.chain[0], der, NOW)


def usage(*names: str) -> x509.KeyUsage:
    return x509.KeyUsage(**dict.fromkeys(USAGES, False) | dict.fromkeys(names, True))


def made(**changes: Any) -> bytes:
    """A certificate as a CA makes it of its own accord, within what was approved."""
    parts: dict[str, Any] = {
        "subject": SUBJECT,
        "issuer": CA.certificate.subject,
        "key": DEVICE_KEY,
        "begins": NOW - 600,
        "ends": NOW + 30 * DAY,
        "serial": 4711,
        "signer": KEY,
        "extensions": (
            usage("digital_signature"),
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]),
            x509.SubjectAlternativeName([x509.DNSName("device.example")]),
        ),
    } | changes
    builder = x509.CertificateBuilder(
        issuer_name=parts["issuer"],
        subject_name=parts["subject"],
        public_key=parts["key"],
        serial_number=parts["serial"],
        not_valid_before=dt.datetime.fromtimestamp(parts["begins"], dt.UTC),
        not_valid_after=dt.datetime.fromtimestamp(parts["ends"], dt.UTC),
    )
    for extension in parts["extensions"]:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(parts["signer"], hashes.SHA256()).public_bytes(Encoding.DER)


def odd(oid: str, value: bytes = b"\x05\x00") -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)


EKU: Final = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
SANS: Final = x509.SubjectAlternativeName([x509.DNSName("device.example")])


def test_what_was_drafted_here_fits() -> None:
    assert judged(DRAFTED) == ""


def test_a_ca_may_shorten_the_validity_and_leave_usages_away() -> None:
    assert judged(made()) == ""


def test_names_may_stand_in_another_order() -> None:
    names = [x509.DNSName("b.example"), x509.DNSName("a.example")]
    value = x509.SubjectAlternativeName(names).public_bytes()
    extensions = tuple(
        msgspec.structs.replace(e, value=value) if e.oid == "2.5.29.17" else e
        for e in APPROVED.extensions
    )
    approved = msgspec.structs.replace(APPROVED, extensions=extensions)
    reordered = x509.SubjectAlternativeName(reversed(names))

    assert judged(made(extensions=(usage("digital_signature"), EKU, reordered)), approved) == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"key": OTHER.public_key()}, "for another key"),
        ({"subject": x509.Name([])}, "another subject"),
        ({"subject": x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "device-2")])},
         "another subject"),
        ({"signer": OTHER}, "not signed by the CA"),
        ({"issuer": x509.Name([])}, "not signed by the CA"),
        ({"ends": NOW + 366 * DAY}, "expires later"),
        ({"begins": NOW - 600 - 3601}, "becomes valid earlier"),
        ({"begins": NOW + 3601}, "becomes valid too late"),
        ({"ends": NOW - 1}, "has already expired"),
        ({"serial": 2**159}, "longer than 20 octets"),
        ({"extensions": (usage("digital_signature"), EKU, SANS, odd("1.3.6.1.4.1.311.25.2"))},
         "an extension that was not approved: 1.3.6.1.4.1.311.25.2"),
        ({"extensions": (usage("digital_signature"), EKU, SANS, odd("2.16.840.1.113730.1.1"))},
         "an extension that was not approved"),
        ({"extensions": (usage("digital_signature"), EKU, SANS, x509.OCSPNoCheck())},
         "an extension that was not approved"),
        ({"extensions": (usage("digital_signature"), EKU, SANS, odd("1.2.3", b"x" * 70_000))},
         "longer than 65536 bytes"),
        ({"extensions": (EKU, SANS)}, "no key usage"),
        ({"extensions": (usage("digital_signature"), SANS)}, "or no extended key usage"),
        ({"extensions": (usage("digital_signature"), EKU)}, "other subjectAltNames"),
        ({"extensions": (usage("digital_signature", "key_cert_sign"), EKU, SANS)},
         "key usage that was not approved"),
        ({"extensions": (usage("digital_signature", "key_agreement"), EKU, SANS)},
         "key usage that was not approved"),
        ({"extensions": (usage("digital_signature"), SANS,
                         x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]))},
         "extended key usage"),
        ({"extensions": (usage("digital_signature"), EKU, x509.SubjectAlternativeName(
            [x509.DNSName("device.example"), x509.DNSName("more.example")]))},
         "other subjectAltNames"),
        ({"extensions": (usage("digital_signature"), EKU, SANS,
                         x509.BasicConstraints(ca=True, path_length=None))}, "a CA certificate"),
    ],
)  # fmt: skip
def test_what_differs_is_named(changes: dict[str, Any], said: str) -> None:
    assert said in judged(made(**changes))


def test_where_things_are_found_a_ca_may_say_itself() -> None:
    at = x509.UniformResourceIdentifier("http://ca.example/ca.der")
    added = (
        x509.AuthorityInformationAccess(
            [x509.AccessDescription(x509.AuthorityInformationAccessOID.CA_ISSUERS, at)]
        ),
        x509.CRLDistributionPoints([x509.DistributionPoint([at], None, None, None)]),
        x509.SubjectKeyIdentifier.from_public_key(DEVICE_KEY),
        x509.BasicConstraints(ca=False, path_length=None),
    )

    assert judged(made(extensions=(usage("digital_signature"), EKU, SANS, *added))) == ""


def test_host_names_and_rdns_are_compared_as_what_they_are() -> None:
    names = x509.SubjectAlternativeName([x509.DNSName("DEVICE.example")])
    two = messages.name(("2.5.4.3", 0x0C, b"device"), ("2.5.4.10", 0x0C, b"Lab"))
    approved = msgspec.structs.replace(APPROVED, subject=two)
    turned = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Lab"),
            x509.NameAttribute(NameOID.COMMON_NAME, "device"),
        ]
    )

    assert judged(made(extensions=(usage("digital_signature"), EKU, names))) == ""
    assert judged(made(subject=turned), approved) == ""


def test_characters_of_old_clients_are_no_reason_to_refuse() -> None:
    loose = messages.tlv(
        messages.SEQ,
        messages.tlv(
            0x31, messages.tlv(messages.SEQ, messages.oid("2.5.4.3"), messages.tlv(0x13, b"dev_1"))
        ),
    )
    approved = msgspec.structs.replace(APPROVED, subject=loose)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dev_1")])

    assert undraftable(approved, CA.chain[0]) == ""
    assert judged(made(subject=subject), approved) == ""


@given(st.binary(max_size=64))
def test_any_bytes_have_an_answer(data: bytes) -> None:
    assert judged(data)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_certificate_with_a_changed_byte_does_not_fit(place: int, change: int) -> None:
    der = bytearray(made())
    der[place % len(der)] ^= change

    assert judged(bytes(der))


# Microsoft's application policies: 1.3.6.1.4.1.311.21.10, a CertificatePolicies value


def policies(*oids: str) -> x509.UnrecognizedExtension:
    identifiers = [messages.tlv(messages.SEQ, messages.oid(each)) for each in oids]
    return odd("1.3.6.1.4.1.311.21.10", messages.tlv(messages.SEQ, *identifiers))


def test_application_policies_that_repeat_the_approved_usages_fit() -> None:
    """AD CS adds them to every certificate of a template of version 2 or later."""
    assert (
        judged(made(extensions=(usage("digital_signature"), EKU, SANS, policies(pki.CLIENT_AUTH))))
        == ""
    )


@pytest.mark.parametrize(
    "extension",
    [policies("1.3.6.1.4.1.311.20.2.2"), odd("1.3.6.1.4.1.311.21.10"), policies("2.5.29.37.0")],
)
def test_application_policies_beyond_the_approved_usages_do_not(
    extension: x509.UnrecognizedExtension,
) -> None:
    assert judged(made(extensions=(usage("digital_signature"), EKU, SANS, extension))) != ""


@pytest.mark.parametrize(
    ("returned", "fits"), [("1104", True), ("1105", False), ("", False), ("critical", False)]
)
def test_a_ca_returns_exactly_the_sid_that_was_approved(returned: str, fits: bool) -> None:  # noqa: FBT001 - a case
    sid = "S-1-5-21-1004336348-1177238915-682003330-"
    account = TemplateExtension(oid=SID, critical=False, value=write_sid(f"{sid}1104"))
    approved = msgspec.structs.replace(APPROVED, extensions=(*APPROVED.extensions, account))
    changed = approved
    if returned != "1104":
        value = write_sid(sid + (returned if returned.isdigit() else "1104"))
        other = TemplateExtension(oid=SID, critical=returned == "critical", value=value)
        extensions = (*APPROVED.extensions, *((other,) if returned else ()))
        changed = msgspec.structs.replace(APPROVED, extensions=extensions)
    der = CA.sign(CA.draft(changed, "enroll.0.a.b.c.0"))

    assert (judged(der, approved) == "") is fits
    assert fits or returned == "critical" or "SID that was approved" in judged(der, approved)
