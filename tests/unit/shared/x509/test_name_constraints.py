"""Names that a CA's certificate excludes (RFC 5280 4.2.1.10); OpenSSL has the same opinion."""

import datetime as dt
import ipaddress
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from shared.x509.name_constraints import (
    excluded_sans,
    excluded_subject,
    name_constraints,
)
from tests.support import pki
from tests.support.messages import SEQ, tlv

KEY = ec.derive_private_key(21, ec.SECP256R1())
CA = pki.name("Narrow CA")
START, END = dt.datetime(2024, 1, 1, tzinfo=dt.UTC), dt.datetime(2044, 1, 1, tzinfo=dt.UTC)


def dn(*pairs: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(*pair) for pair in pairs])


CORP = dn((NameOID.COUNTRY_NAME, "DE"), (NameOID.ORGANIZATION_NAME, "Corp"))
IN_CORP = dn(
    (NameOID.COUNTRY_NAME, "DE"),
    (NameOID.ORGANIZATION_NAME, "CORP "),
    (NameOID.COMMON_NAME, "a"),
)
BESIDE_CORP = dn((NameOID.COUNTRY_NAME, "DE"), (NameOID.COMMON_NAME, "a"))
DNS, MAIL, URI = x509.DNSName, x509.RFC822Name, x509.UniformResourceIdentifier
DIRECTORY, OTHER = x509.DirectoryName, x509.OtherName


def ip(text: str) -> x509.IPAddress:
    return x509.IPAddress(ipaddress.ip_address(text))


def net(text: str) -> x509.IPAddress:
    return x509.IPAddress(ipaddress.ip_network(text))


def make_ca(
    permitted: list[Any] | None = None, excluded: list[Any] | None = None, name: x509.Name = CA
) -> x509.Certificate:
    builder = x509.CertificateBuilder(name, name, KEY.public_key(), 1, START, END).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    )
    if permitted or excluded:
        constraints = x509.NameConstraints(permitted, excluded)
        builder = builder.add_extension(constraints, critical=True)
    return builder.sign(KEY, hashes.SHA256())


def leaf(subject: x509.Name, sans: list[Any], issuer: x509.Name = CA) -> x509.Certificate:
    builder = x509.CertificateBuilder(issuer, subject, KEY.public_key(), 2, START, END)
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
    return builder.sign(KEY, hashes.SHA256())


def problems(cas: list[x509.Certificate], subject: x509.Name, sans: list[Any]) -> str:
    constraints = name_constraints(tuple(map(pki.der, cas)))
    value = x509.SubjectAlternativeName(sans).public_bytes() if sans else None
    found = excluded_subject(subject.public_bytes(), constraints, has_sans=bool(sans))
    return found or (excluded_sans(value, constraints) if value else "")


ME = dn((NameOID.COMMON_NAME, "device-1"))
EMAIL = dn((NameOID.EMAIL_ADDRESS, "ann@evil.example"))
CASES: list[tuple[str, list[Any] | None, list[Any] | None, x509.Name, list[Any], bool]] = [
    ("the host itself", [DNS("corp.example")], None, ME, [DNS("corp.example")], True),
    ("a host below", [DNS("corp.example")], None, ME, [DNS("a.b.CORP.example")], True),
    ("a wildcard below", [DNS("corp.example")], None, ME, [DNS("*.corp.example")], True),
    ("a similar host", [DNS("corp.example")], None, ME, [DNS("acorp.example")], False),
    ("one of two hosts", [DNS("corp.example")], None, ME, [DNS("corp.example"), DNS("b")], False),
    ("either of two trees", [DNS("a.example"), DNS("b.example")], None, ME,
     [DNS("x.b.example")], True),
    ("another kind is free", [DNS("corp.example")], None, ME, [ip("192.0.2.1")], True),
    ("only below a dot", [DNS(".corp.example")], None, ME, [DNS("corp.example")], False),
    ("below a dot", [DNS(".corp.example")], None, ME, [DNS("a.corp.example")], True),
    ("an excluded host", None, [DNS("corp.example")], ME, [DNS("a.corp.example")], False),
    ("excluded wins", [DNS("corp.example")], [DNS("a.corp.example")], ME,
     [DNS("a.corp.example")], False),
    ("beside the excluded", None, [DNS("corp.example")], ME, [DNS("a.example")], True),
    ("every host is excluded", None, [DNS("")], ME, [DNS("a.example")], False),
    ("a mailbox", [MAIL("ann@corp.example")], None, ME, [MAIL("ann@CORP.example")], True),
    ("another mailbox", [MAIL("ann@corp.example")], None, ME, [MAIL("bob@corp.example")], False),
    ("the mailbox in capitals", [MAIL("ann@corp.example")], None, ME,
     [MAIL("Ann@corp.example")], False),
    ("mail of a host", [MAIL("corp.example")], None, ME, [MAIL("bob@Corp.example")], True),
    ("mail of a host below", [MAIL("corp.example")], None, ME, [MAIL("b@a.corp.example")], False),
    ("mail below a domain", [MAIL(".corp.example")], None, ME, [MAIL("b@a.corp.example")], True),
    ("mail of the domain", [MAIL(".corp.example")], None, ME, [MAIL("b@corp.example")], False),
    ("mail in the subject", [MAIL("corp.example")], None, EMAIL, [], False),
    ("a URI's host", [URI("corp.example")], None, ME, [URI("https://CORP.example:1/x")], True),
    ("a URI's host below", [URI("corp.example")], None, ME, [URI("https://a.corp.example")], False),
    ("a URI below", [URI(".corp.example")], None, ME, [URI("https://a.corp.example/")], True),
    ("a URI of the domain", [URI(".corp.example")], None, ME, [URI("https://corp.example")], False),
    ("a URI without a host", [URI("corp.example")], None, ME, [URI("urn:x:corp.example")], False),
    ("an excluded URI", None, [URI(".corp.example")], ME, [URI("https://a.corp.example")], False),
    ("an address", [net("192.0.2.0/24")], None, ME, [ip("192.0.2.9")], True),
    ("an address outside", [net("192.0.2.0/24")], None, ME, [ip("192.0.3.9")], False),
    ("an address of the other family", [net("192.0.2.0/24")], None, ME, [ip("2001:db8::1")], False),
    ("every address is excluded", None, [net("0.0.0.0/0")], ME, [ip("192.0.2.9")], False),
    ("an excluded network", None, [net("2001:db8::/32")], ME, [ip("2001:db8::1")], False),
    ("a subject below", [DIRECTORY(CORP)], None, IN_CORP, [], True),
    ("a subject beside", [DIRECTORY(CORP)], None, BESIDE_CORP, [], False),
    ("an excluded subject", None, [DIRECTORY(CORP)], IN_CORP, [], False),
    ("an empty subject", [DIRECTORY(CORP)], None, x509.Name([]), [DNS("a.example")], True),
    ("a directoryName", [DIRECTORY(CORP)], None, IN_CORP, [DIRECTORY(BESIDE_CORP)], False),
    ("a directoryName below", [DIRECTORY(CORP)], None, IN_CORP, [DIRECTORY(IN_CORP)], True),
]  # fmt: skip


@pytest.mark.parametrize(
    ("permitted", "excluded", "subject", "sans", "allowed"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_names_are_held_against_the_constraints_of_their_kind(
    permitted: Any,
    excluded: Any,
    subject: x509.Name,
    sans: list[Any],
    allowed: bool,  # noqa: FBT001 - a case
    tmp_path: Path,
) -> None:
    ca = make_ca(permitted, excluded)

    assert (problems([ca], subject, sans) == "") is allowed
    assert openssl_verifies(tmp_path, ca, leaf(subject, sans)) is allowed


def openssl_verifies(path: Path, ca: x509.Certificate, certificate: x509.Certificate) -> bool:
    for name, each in (("ca.pem", ca), ("leaf.pem", certificate)):
        (path / name).write_bytes(each.public_bytes(Encoding.PEM))
    command = ["openssl", "verify", "-CAfile", path / "ca.pem", path / "leaf.pem"]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == 0 or "subtree violation" in said or "name syntax" in said
    return done.returncode == 0


def test_the_constraints_of_every_ca_in_the_chain_hold() -> None:
    root = make_ca([DNS("corp.example")], name=pki.name("Root"))
    middle = make_ca(None, [DNS("lab.corp.example")])
    chain = [middle, root]

    assert problems(chain, ME, [DNS("a.corp.example")]) == ""
    assert problems(chain, ME, [DNS("a.lab.corp.example")]) == (
        'dNSName "a.lab.corp.example" is excluded by the name constraints of CN=Narrow CA'
    )
    assert problems(chain, ME, [DNS("a.example")]) == (
        'dNSName "a.example" is outside the name constraints of CN=Root'
    )


def test_a_subject_is_named() -> None:
    assert problems([make_ca([DIRECTORY(CORP)])], BESIDE_CORP, []) == (
        'subject "C=DE, CN=a" is outside the name constraints of CN=Narrow CA'
    )


def test_a_mail_address_in_a_subject_counts_only_without_subject_alt_names() -> None:
    """As RFC 5280 has it; OpenSSL is stricter."""
    ca = make_ca([MAIL("corp.example")])

    assert "emailAddress" in problems([ca], EMAIL, [])
    assert problems([ca], EMAIL, [DNS("a.example")]) == ""


@pytest.mark.parametrize(
    ("uri", "allowed"),
    [
        ("https://user@corp.example/", True),
        ("https://corp.example@evil.example/", False),
        ("https://192.0.2.1/", False),
        ("https://[2001:db8::1]/", False),
        ("corp.example", False),
    ],
)
def test_the_host_of_a_uri_is_the_one_that_is_contacted(uri: str, allowed: bool) -> None:  # noqa: FBT001 - a case
    assert (problems([make_ca([URI("corp.example")])], ME, [URI(uri)]) == "") is allowed


def test_a_ca_without_constraints_has_none() -> None:
    assert name_constraints((pki.der(make_ca()),)) == ()


def test_kinds_that_verifiers_treat_differently_are_left_to_them() -> None:
    principal = OTHER(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), tlv(12, b"a@b"))
    ca = make_ca([principal], [x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))])

    assert problems([ca], ME, [principal]) == ""
    assert problems([ca], ME, [x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))]) == ""


@pytest.mark.parametrize("value", [b"", tlv(SEQ), tlv(SEQ, tlv(0xA0)), b"\x30\x05\x00", bytes(9)])
def test_constraints_that_do_not_parse_are_left_to_verifiers(value: bytes) -> None:
    oid = x509.ObjectIdentifier("2.5.29.30")
    ca = (
        x509.CertificateBuilder(CA, CA, KEY.public_key(), 1, START, END)
        .add_extension(x509.UnrecognizedExtension(oid, value), critical=True)
        .sign(KEY, hashes.SHA256())
    )

    assert problems([ca], ME, [DNS("a.example")]) == ""


CONSTRAINTS = name_constraints(
    (pki.der(make_ca([DNS("a"), MAIL("a"), URI("a"), net("::/0"), DIRECTORY(CORP)])),)
)


@given(st.lists(st.tuples(st.sampled_from([0x81, 0x82, 0x86, 0x87, 0xA4, 0xA0]), st.binary())))
def test_any_names_have_an_answer(names: list[tuple[int, bytes]]) -> None:
    value = tlv(SEQ, *(tlv(tag, contents) for tag, contents in names))

    assert len(excluded_sans(value, CONSTRAINTS)) <= 500
