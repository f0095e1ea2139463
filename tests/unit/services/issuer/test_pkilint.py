"""Certificates of several profiles, as validator and local CA make them, under pkilint."""

import dataclasses
import datetime as dt
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pkilint import loader
from pkilint.pkix import certificate, extension, name
from pkilint.validation import ValidationFindingSeverity

from services.issuer.ceilings import beyond_ceilings
from services.issuer.connectors.connector import Order, Prepared, Refused
from services.issuer.connectors.local import LocalConnector
from services.issuer.lints import lint
from services.validator.template import build_template
from shared.x509.certificate_names import CertificateNames
from shared.x509.csr import read_csr
from shared.x509.name_templates import (
    read_san_template,
    read_subject_template,
    write_sans,
    write_subject,
)
from shared.x509.policies import CertificatePolicy
from shared.x509.usages import EXTENDED_KEY_USAGES
from tests.support import pki
from tests.support.messages import (
    DEVICE_NAME,
    PRINTABLE,
    SEQ,
    UTF8,
    challenge,
    csr,
    extension_request,
    oid,
    san,
    tlv,
)
from tests.support.messages import name as dn
from tests.support.world import NOW, policy

VALIDATOR = certificate.create_pkix_certificate_validator_container(
    certificate.create_decoding_validators(
        name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS
    ),
    [
        certificate.create_issuer_validator_container([]),
        certificate.create_validity_validator_container(),
        certificate.create_subject_validator_container([]),
        certificate.create_extensions_validator_container([]),
        certificate.create_spki_validator_container([]),
    ],
)
ACCOUNT = "S-1-5-21-1004336348-1177238915-682003330-1104"
EC_KEY = ec.derive_private_key(41, ec.SECP256R1())
UPN = tlv(0xA0, oid("1.3.6.1.4.1.311.20.2.3"), tlv(0xA0, tlv(UTF8, b"ann@corp.example")))
SANS = (
    tlv(0x82, b"device.example"),
    tlv(0x81, b"ann@corp.example"),
    tlv(0x86, b"https://corp.example/device"),
    tlv(0x87, bytes((192, 0, 2, 1))),
)
EVERYTHING: dict[str, Any] = {
    "crl_distribution_points": ("http://crl.example/a.crl", "http://crl.example/b.crl"),
    "ca_issuers": ("http://ca.example/a.cer",),
    "ocsp": ("http://ocsp.example/",),
    "must_staple": True,
    "certificate_policies": (
        CertificatePolicy("1.3.6.1.4.1.99999.1", ""),
        CertificatePolicy("1.3.6.1.4.1.99999.2", "https://cps.example/"),
    ),
    "extended_key_usages": ("serverAuth", "clientAuth"),
}
PROFILES: dict[str, tuple[dict[str, Any], bytes, tuple[bytes, ...]]] = {
    "plain": ({}, DEVICE_NAME, ()),
    "every kind of name": ({}, DEVICE_NAME, SANS),
    "a user principal name": ({}, DEVICE_NAME, (UPN,)),
    "an empty subject": ({}, tlv(SEQ), SANS[:1]),
    "everything stamped": (EVERYTHING, DEVICE_NAME, SANS[:1]),
    "a purpose by OID": ({"extended_key_usages": ("1.3.6.1.5.5.7.3.17",)}, DEVICE_NAME, ()),
    "all key usages": (
        {
            "key_usages": (
                "digitalSignature",
                "nonRepudiation",
                "keyEncipherment",
                "dataEncipherment",
            )
        },
        DEVICE_NAME,
        (),
    ),
    "beyond 2050": ({"max_ttl": 30 * 365 * 86400}, DEVICE_NAME, ()),
    "a long name": ({}, dn(("2.5.4.3", PRINTABLE, b"d" * 64), ("2.5.4.5", PRINTABLE, b"7")), ()),
}


@pytest.fixture(scope="module", params=["rsa", "ec"])
def key(request: pytest.FixtureRequest, rsa_key: rsa.RSAPrivateKey) -> Any:
    return rsa_key if request.param == "rsa" else EC_KEY


@pytest.fixture(scope="module", params=["rsa CA", "ec CA"])
def ca(request: pytest.FixtureRequest) -> Any:
    if request.param == "ec CA":
        signing: Any = ec.derive_private_key(42, ec.SECP256R1())
    else:
        signing = rsa.generate_private_key(65537, 2048)
    made = pki.local_ca(signing, end=dt.datetime(2070, 1, 1, tzinfo=dt.UTC))
    oids = frozenset(policy.oid for policy in EVERYTHING["certificate_policies"])
    usages = frozenset({*EXTENDED_KEY_USAGES.values(), "1.3.6.1.5.5.7.3.17"})
    wider = {"certificate_policies": oids, "extended_key_usages": usages, "max_ttl": 2**31} | {
        "allow_sid": True
    }
    return dataclasses.replace(made, ceilings=dataclasses.replace(made.ceilings, **wider))


@pytest.mark.parametrize("profile", PROFILES)
def test_no_certificate_has_a_finding(key: Any, ca: Any, profile: str) -> None:
    changes, subject, sans = PROFILES[profile]
    der = issued(ca, requested(key, subject, sans), **changes)

    assert findings(der) == []
    assert lint(der) == ()


def test_a_certificate_with_built_names_and_a_sid_has_no_finding(key: Any, ca: Any) -> None:
    claims = {"device_name": ("laptop 7",), "san_dns": ("a.example",), "sid": (ACCOUNT,)}
    kinds = ("C=DE", "O=Corp", "serialNumber=4711", "CN={device_name}")
    uri = "uri:https://corp.example/d/{device_name}"
    names = CertificateNames(
        write_subject(map(read_subject_template, kinds), claims),
        write_sans(map(read_san_template, ("dns:{san_dns}", uri)), claims),
    )
    der = issued(ca, requested(key, DEVICE_NAME, ()), names, ACCOUNT)

    assert findings(der) == []
    assert lint(der) == ()


def test_an_ec_key_whose_profile_only_enciphers_gets_no_certificate() -> None:
    """None of the profile's key usages is left for it, and an empty key usage is invalid."""
    ca = pki.local_ca(EC_KEY)
    found = requested(EC_KEY, DEVICE_NAME, ())
    allowed = policy(ca_spki_sha256=(ca.pin,), key_usages=("keyEncipherment",))
    made = build_template(found, allowed, ca.certificate, NOW)
    refused = LocalConnector(ca).prepare(Order("enroll.0.a.b.c.0", made, "00" * 32))

    assert isinstance(refused, Refused)
    assert "the key usage is empty" in refused.detail


def requested(key: Any, subject: bytes, sans: tuple[bytes, ...]) -> Any:
    attributes = [challenge(PRINTABLE, b"s3cret")]
    if sans:
        attributes.append(extension_request(san(*sans)))
    options: dict[str, Any] = {"subject": subject}
    if isinstance(key, ec.EllipticCurvePrivateKey):
        options["algorithm"] = tlv(SEQ, oid("1.2.840.10045.4.3.2"))
        options["sign"] = lambda data: key.sign(data, ec.ECDSA(hashes.SHA256()))
    return read_csr(csr(key, *attributes, **options))


def issued(
    ca: Any, found: Any, names: CertificateNames | None = None, sid: str = "", **changes: Any
) -> bytes:
    """What the whole path makes of a request, as DER."""
    allowed = policy(ca_spki_sha256=(ca.pin,), **changes)
    made = build_template(found, allowed, ca.certificate, NOW, names, sid)
    assert beyond_ceilings(made, ca.ceilings) == ""
    prepared = LocalConnector(ca).prepare(Order("enroll.0.a.b.c.0", made, "00" * 32))
    assert isinstance(prepared, Prepared)
    return ca.sign(prepared.content)


def findings(der: bytes) -> list[str]:
    """The codes of pkilint's findings, warnings and worse."""
    parsed = loader.load_der_certificate(der, "made here")
    return [
        f"{each.finding.code}: {each.message}"
        for result in VALIDATOR.validate(parsed.root)
        for each in result.finding_descriptions
        if each.finding.severity <= ValidationFindingSeverity.WARNING
    ]


def test_pkilint_finds_what_is_wrong() -> None:
    """Else the test above means nothing."""
    der = pki.der(pki.make_certificate(EC_KEY.public_key(), EC_KEY, usage=()))

    assert findings(der) != []
