import datetime as dt
import hashlib
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from services.validator.template import build_template
from shared.ca.partitions import Partitioning
from shared.log.events.enrollment import CertificateTemplate
from shared.x509.csr import read_csr
from shared.x509.policies import CertificatePolicy
from tests.support import pki
from tests.support.messages import (
    BMP,
    DEVICE_NAME,
    NULL,
    PRINTABLE,
    SEQ,
    Identity,
    attribute,
    challenge,
    csr,
    extension,
    extension_request,
    name,
    oid,
    san,
    spki,
    tlv,
)
from tests.support.world import ISSUER, NOW, policy

DAY = 86400
START, END = pki.START, pki.END
KEY = ec.derive_private_key(6, ec.SECP256R1())
SAN = "2.5.29.17"
KEY_USAGE = "2.5.29.15"
EKU = "2.5.29.37"
ORDER = [KEY_USAGE, EKU, "2.5.29.14", "2.5.29.35"]
DNS = tlv(0x82, b"device.example")
ASKED_FOR = {
    "BasicConstraints CA": extension(
        "2.5.29.19", tlv(SEQ, b"\x01\x01\xff"), critical=b"\x01\x01\xff"
    ),
    "CA key usages": extension(KEY_USAGE, b"\x03\x02\x01\x06", critical=b"\x01\x01\xff"),
    "a SID": extension("1.3.6.1.4.1.311.25.2", tlv(SEQ, b"S-1-5-21-1-2-3-500")),
    "name constraints": extension("2.5.29.30", tlv(SEQ)),
    "its own key identifier": extension("2.5.29.14", tlv(4, b"mine")),
    "something unheard of": extension("1.2.3.4.5", NULL),
}


@pytest.fixture(scope="module")
def ca(ec_key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    return pki.make_root(ec_key)


def template(
    device: Identity,
    ca: x509.Certificate,
    *extensions: bytes,
    subject: bytes = DEVICE_NAME,
    **changes: Any,
) -> CertificateTemplate:
    attributes = [challenge(PRINTABLE, b"s3cret")]
    if extensions:
        attributes.append(extension_request(*extensions))
    found = read_csr(csr(device.key, *attributes, subject=subject))
    return build_template(found, policy(**changes), ca, NOW)


def test_a_certificate_begins_and_ends_within_the_life_of_its_ca(
    device: Identity, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    begin, end = (dt.datetime.fromtimestamp(NOW + s, dt.UTC) for s in (-60, 3600))
    made = template(device, pki.make_root(ec_key, start=begin, end=end))

    assert (made.not_before, made.not_after) == (NOW - 60, NOW + 3600)


def asking(*usages: str) -> bytes:
    """An extendedKeyUsage extension as a CSR requests it."""
    return extension(EKU, tlv(SEQ, *map(oid, usages)))


CLIENT, SERVER, EMAIL = (f"1.3.6.1.5.5.7.3.{number}" for number in (2, 1, 4))


@pytest.mark.parametrize(
    ("asked", "stamped"),
    [
        ((), (CLIENT, SERVER, EMAIL)),
        ((SERVER,), (SERVER,)),
        ((EMAIL, CLIENT), (CLIENT, EMAIL)),
        ((EMAIL, SERVER, CLIENT), (CLIENT, SERVER, EMAIL)),
    ],
)
def test_a_csr_may_ask_for_some_of_the_profiles_usages(
    device: Identity, ca: x509.Certificate, asked: tuple[str, ...], stamped: tuple[str, ...]
) -> None:
    allowed = ("clientAuth", "serverAuth", EMAIL)
    made = template(device, ca, *([asking(*asked)] if asked else []), extended_key_usages=allowed)

    assert values(made)[EKU] == tlv(SEQ, *map(oid, stamped))


def validity(units: bytes, period: str = "Days", tag: int = BMP) -> bytes:
    """The attributes by which Windows asks for a validity."""
    pairs = {"ValidityPeriod": period, "ValidityPeriodUnits": units.decode()}
    return b"".join(
        attribute(
            "1.3.6.1.4.1.311.13.2.1",
            tlv(SEQ, *(tlv(tag, text.encode("utf-16-be" if tag == BMP else "utf-8"))
                       for text in pair)),
        )
        for pair in pairs.items()
    )  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "days"), [(b"1", 1), (b"364", 364), (b"365", 365), (b"366", 365), (b"999999", 365)]
)
def test_a_csr_may_ask_for_a_shorter_validity_but_not_for_a_longer_one(
    device: Identity, ca: x509.Certificate, asked: bytes, days: int
) -> None:
    found = read_csr(csr(device.key, validity(asked)))
    made = build_template(found, policy(max_ttl=365 * DAY), ca, NOW)

    assert (made.not_before, made.not_after) == (NOW - 600, NOW + days * DAY)


def values(made: CertificateTemplate) -> dict[str, bytes]:
    return {extension.oid: extension.value for extension in made.extensions}


def usage(made: CertificateTemplate) -> list[str]:
    """The names of the KeyUsage bits that are set."""
    names = (
        "digitalSignature", "nonRepudiation", "keyEncipherment", "dataEncipherment",
        "keyAgreement", "keyCertSign", "cRLSign", "encipherOnly", "decipherOnly",
    )  # fmt: skip
    value = values(made)[KEY_USAGE]
    bits = "".join(f"{octet:08b}" for octet in value[3:])
    return [each for each, bit in zip(names, bits, strict=False) if bit == "1"]


def test_subject_and_key_are_the_csrs_byte_for_byte(device: Identity, ca: x509.Certificate) -> None:
    odd = name(("2.5.4.3", PRINTABLE, b"dev_ice!@*"), ("2.5.4.3", 0x14, b"T61 \xe4"))
    made = template(device, ca, subject=odd)

    assert made.subject == odd
    assert made.spki == spki(device.key.public_key())
    assert (made.issuer, made.ca_spki_sha256) == (ISSUER, pki.pin(ca))


@pytest.mark.parametrize("asked", sorted(ASKED_FOR))
def test_what_a_csr_asks_for_beyond_names_never_appears(
    device: Identity, ca: x509.Certificate, asked: str
) -> None:
    plain = template(device, ca, san(DNS))

    assert template(device, ca, ASKED_FOR[asked], san(DNS)) == plain
    assert template(device, ca, san(DNS), ASKED_FOR[asked]) == plain


def test_the_extensions_are_the_profiles_in_one_order(
    device: Identity, ca: x509.Certificate
) -> None:
    made = template(device, ca, *ASKED_FOR.values(), san(DNS))

    assert [e.oid for e in made.extensions] == [*ORDER, SAN]
    assert [e.critical for e in made.extensions] == [True, False, False, False, False]


def test_sans_are_copied_byte_for_byte_in_their_order(
    device: Identity, ca: x509.Certificate
) -> None:
    names = (
        tlv(0x82, b"z.example"),
        tlv(0x82, b"a.example"),
        tlv(0x87, bytes(4)),
        tlv(0xA0, oid("1.2.3.4"), tlv(0xA0, NULL)),
        tlv(0x82, b"z.example"),
    )
    made = template(device, ca, san(*names))

    assert values(made)[SAN] == tlv(SEQ, *names)


@pytest.mark.parametrize("critical", [b"", b"\x01\x01\xff"])
def test_the_san_is_critical_exactly_where_the_subject_is_empty(
    device: Identity, ca: x509.Certificate, critical: bytes
) -> None:
    """Whatever the CSR said of it."""
    asked = extension(SAN, tlv(SEQ, DNS), critical=critical)

    assert not template(device, ca, asked).extensions[-1].critical
    assert template(device, ca, asked, subject=tlv(SEQ)).extensions[-1].critical


def test_without_a_san_there_is_none(device: Identity, ca: x509.Certificate) -> None:
    assert SAN not in values(template(device, ca))
    assert SAN not in values(template(device, ca, san()))


def test_an_rsa_key_gets_all_usages_of_the_profile(device: Identity, ca: x509.Certificate) -> None:
    every = ("dataEncipherment", "keyEncipherment", "nonRepudiation", "digitalSignature")

    assert usage(template(device, ca)) == ["digitalSignature", "keyEncipherment"]
    assert usage(template(device, ca, key_usages=every)) == [
        "digitalSignature", "nonRepudiation", "keyEncipherment", "dataEncipherment",
    ]  # fmt: skip


def test_an_ec_key_gets_no_usage_that_only_rsa_has(
    ec_key: ec.EllipticCurvePrivateKey, ca: x509.Certificate
) -> None:
    algorithm = tlv(SEQ, oid("1.2.840.10045.4.3.2"))
    found = read_csr(
        csr(ec_key, algorithm=algorithm, sign=lambda d: ec_key.sign(d, ec.ECDSA(hashes.SHA256())))
    )

    assert usage(build_template(found, policy(), ca, NOW)) == ["digitalSignature"]


def test_extended_key_usages_are_the_profiles_by_name_or_oid(
    device: Identity, ca: x509.Certificate
) -> None:
    made = template(device, ca, extended_key_usages=("serverAuth", "1.2.3.4"))

    assert values(made)[EKU] == tlv(SEQ, oid("1.3.6.1.5.5.7.3.1"), oid("1.2.3.4"))


def test_validity_is_counted_from_the_request(device: Identity, ca: x509.Certificate) -> None:
    made = template(device, ca, max_ttl=30 * DAY, backdate=600)

    assert (made.not_before, made.not_after) == (NOW - 600, NOW + 30 * DAY)


@pytest.mark.parametrize(("days", "expected"), [(9, 9), (10, 10), (11, 10), (365, 10)])
def test_a_certificate_never_outlives_its_ca(
    device: Identity, ec_key: ec.EllipticCurvePrivateKey, days: int, expected: int
) -> None:
    end = pki.dt.datetime.fromtimestamp(NOW + 10 * DAY, pki.dt.UTC)
    made = template(device, pki.make_root(ec_key, end=end), max_ttl=days * DAY)

    assert made.not_after == NOW + expected * DAY


def test_key_identifiers_are_the_ones_other_software_computes(
    device: Identity, ca: x509.Certificate
) -> None:
    own = x509.SubjectKeyIdentifier.from_public_key(device.key.public_key())
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.public_key())
    made = values(template(device, ca))

    assert made["2.5.29.14"] == own.public_bytes()
    assert made["2.5.29.35"] == authority.public_bytes()


def test_the_authority_key_identifier_repeats_what_the_ca_calls_itself(
    device: Identity, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    subject = pki.name("Odd CA")
    odd = (
        x509.CertificateBuilder(subject, subject, ec_key.public_key(), 1, pki.START, pki.END)
        .add_extension(x509.SubjectKeyIdentifier(b"\x01\x02\x03"), critical=False)
        .sign(ec_key, hashes.SHA256())
    )
    nameless = x509.CertificateBuilder(
        subject, subject, ec_key.public_key(), 1, pki.START, pki.END
    ).sign(ec_key, hashes.SHA256())
    computed = x509.AuthorityKeyIdentifier.from_issuer_public_key(ec_key.public_key())

    assert values(template(device, odd))["2.5.29.35"] == tlv(SEQ, tlv(0x80, b"\x01\x02\x03"))
    assert values(template(device, nameless))["2.5.29.35"] == computed.public_bytes()


# What relying parties are told beside names and usages


def stamped(made: CertificateTemplate, kind: type[x509.ExtensionType]) -> Any:
    """The value of an extension as another parser reads it, and whether it is critical."""
    oid = kind.oid.dotted_string  # type: ignore[attr-defined]
    (found,) = (e for e in made.extensions if e.oid == oid)
    draft = (
        x509.CertificateBuilder(pki.name("CA"), pki.name("a"), KEY.public_key(), 1, START, END)
        .add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), found.value), found.critical
        )
        .sign(KEY, hashes.SHA256())
    )
    read = draft.extensions.get_extension_for_class(kind)
    assert not read.critical
    return read.value


def test_a_profile_says_where_its_ca_and_ocsp_are_found(
    device: Identity, ca: x509.Certificate
) -> None:
    made = template(
        device, ca, ca_issuers=("http://ca.example/a.cer",), ocsp=("http://o.example", "http://p")
    )
    found = [
        (each.access_method._name, each.access_location.value)
        for each in stamped(made, x509.AuthorityInformationAccess)
    ]

    assert found == [
        ("OCSP", "http://o.example"),
        ("OCSP", "http://p"),
        ("caIssuers", "http://ca.example/a.cer"),
    ]


def test_a_profile_demands_stapling(device: Identity, ca: x509.Certificate) -> None:
    made = template(device, ca, must_staple=True)

    assert list(stamped(made, x509.TLSFeature)) == [x509.TLSFeatureType.status_request]


def test_a_profile_has_policies_with_or_without_a_practice_statement(
    device: Identity, ca: x509.Certificate
) -> None:
    policies = (CertificatePolicy("1.2.3.4", ""), CertificatePolicy("1.2.3.5", "https://c.example"))
    found = stamped(template(device, ca, certificate_policies=policies), x509.CertificatePolicies)

    assert [(e.policy_identifier.dotted_string, e.policy_qualifiers) for e in found] == [
        ("1.2.3.4", None),
        ("1.2.3.5", ["https://c.example"]),
    ]


def test_a_plain_profile_has_none_of_these(device: Identity, ca: x509.Certificate) -> None:
    assert list(values(template(device, ca))) == ORDER


def test_the_same_request_at_the_same_time_gives_the_same_template(
    device: Identity, ca: x509.Certificate
) -> None:
    assert template(device, ca, san(DNS)) == template(device, ca, san(DNS))


def test_a_certificate_names_the_partition_that_its_key_selects(
    device: Identity, ca: x509.Certificate
) -> None:
    partitioning = Partitioning((8, 4), ("http://crl.example/crl/local",))
    made = template(device, ca, crl_partitioning=partitioning, ocsp=("http://ocsp.example",))
    number = int(hashlib.sha256(made.spki).hexdigest()[:16], 16) % 8
    url = f"http://crl.example/crl/local/{pki.pin(ca)}/8-{number}.crl"
    (point,) = [e for e in made.extensions if e.oid == "2.5.29.31"]
    names = [x509.UniformResourceIdentifier(url)]
    wanted = x509.CRLDistributionPoints([x509.DistributionPoint(names, None, None, None)])

    assert point.value == wanted.public_bytes()
    assert not point.critical
    assert [e.oid for e in made.extensions] == [*ORDER, "2.5.29.31", "1.3.6.1.5.5.7.1.1"]
