from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from services.validator import gates
from services.validator.facts import DecryptedRequest, History, key_kind
from services.validator.gates import Decision, Policy, PolicyInput, Refusal
from shared.log.events.enrollment import Facts, GateResult
from shared.log.reasons import Reason
from shared.x509.csr import CertificationRequest, read_csr
from shared.x509.name_constraints import name_constraints
from shared.x509.name_patterns import read_san_pattern, read_subject_pattern
from shared.x509.sid import SID, write_sid
from tests.support import pki
from tests.support.messages import (
    DEVICE_NAME,
    SEQ,
    UTF8,
    Identity,
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
from tests.support.weak_keys import close_modulus, roca_modulus
from tests.support.world import NOW, PROFILE, facts, policy

EMPTY_NAME = tlv(SEQ)
DNS = tlv(0x82, b"device.example")
SANS = {
    "dns": DNS,
    "rfc822": tlv(0x81, b"a@b.example"),
    "uri": tlv(0x86, b"urn:device:1"),
    "ip": tlv(0x87, bytes((192, 0, 2, 1))),
    "upn": tlv(0xA0, oid("1.3.6.1.4.1.311.20.2.3"), tlv(0xA0, tlv(UTF8, b"a@b"))),
    "other": tlv(0xA0, oid("1.2.3.4"), tlv(0xA0, tlv(UTF8, b"x"))),
}


def request(
    device: Identity, *sans: bytes, password: bytes | None = b"s3cret", **options: Any
) -> Any:
    attributes = [challenge(options.pop("tag", UTF8), password)] if password is not None else []
    if sans:
        attributes.append(extension_request(san(*sans)))
    return read_csr(csr(device.key, *attributes, **options))


def decide(found: CertificationRequest, told: Facts, allowed: Policy) -> Decision:
    """The decision on a first enrollment of which the log knows nothing."""
    return gates.decide(
        PolicyInput(DecryptedRequest(found, told), History(), PROFILE, allowed, NOW, NOW)
    )


def refusal(found: Any, allowed: Policy | None = None, **told: Any) -> Refusal:
    """The one refusal of a request; the gates end with it."""
    decision = decide(found, facts(**told), allowed or policy())
    assert decision.refusal is not None
    assert [gate.passed for gate in decision.gates] == [True] * (len(decision.gates) - 1) + [False]
    assert decision.gates[-1].detail == decision.refusal.detail
    return decision.refusal


def test_a_request_within_policy_passes_every_gate(device: Identity) -> None:
    decision = decide(request(device, DNS), facts(), policy())

    assert decision.refusal is None
    assert decision.gates == tuple(
        GateResult(gate=name, passed=True) for name in ("key", "subject", "sans", "compromise")
    )


@pytest.mark.parametrize(
    ("key_type", "bits"), [("rsa", 1024), ("rsa", 3072), ("p384", 384), ("secp256k1", 256)]
)
def test_a_key_that_the_profile_does_not_list_is_refused(
    device: Identity, key_type: str, bits: int
) -> None:
    found = refusal(request(device), key_type=key_type, key_bits=bits)

    assert found.reason is Reason.KEY_NOT_ALLOWED
    assert key_type in found.detail


@pytest.mark.parametrize(("key_type", "bits"), [("rsa", 2048), ("p256", 256)])
def test_a_key_that_the_profile_lists_passes(device: Identity, key_type: str, bits: int) -> None:
    told = facts(key_type=key_type, key_bits=bits)

    assert decide(request(device), told, policy()).refusal is None


def weak(device: Identity, exponent: int = 65537, modulus: int = 0) -> Any:
    """A CSR for an RSA key of these numbers; the device's own modulus if none is given."""
    own = device.key.public_key().public_numbers().n
    key = rsa.RSAPublicNumbers(exponent, modulus or own).public_key()
    return read_csr(csr(device.key, challenge(UTF8, b"s3cret"), public=spki(key)))


def test_a_key_that_can_be_factored_is_refused(device: Identity) -> None:
    found = refusal(weak(device, modulus=roca_modulus(0)))

    assert found.reason is Reason.KEY_NOT_ALLOWED
    assert "ROCA" in found.detail
    assert "close" in refusal(weak(device, modulus=close_modulus(2))).detail


def test_a_small_exponent_is_refused_where_legacy_is_not_allowed(device: Identity) -> None:
    found = refusal(weak(device, 3))

    assert found.reason is Reason.KEY_NOT_ALLOWED
    assert "exponent 3 " in found.detail
    assert decide(weak(device, 3), facts(), policy(legacy=True)).refusal is None


def test_key_kinds_are_named_as_profiles_name_them(device: Identity, ec_key: Any) -> None:
    assert key_kind(device.key.public_key()) == ("rsa", 2048)
    assert key_kind(ec_key.public_key()) == ("p256", 256)


def test_a_request_that_names_nobody_is_refused(device: Identity) -> None:
    found = refusal(request(device, subject=EMPTY_NAME))

    assert found.reason is Reason.SUBJECT_NOT_ALLOWED


def test_an_empty_subject_is_allowed_where_a_san_names_the_device(device: Identity) -> None:
    assert decide(request(device, DNS, subject=EMPTY_NAME), facts(), policy()).refusal is None


def asking(device: Identity, *usages: str) -> Any:
    """A CSR that requests these extended key usages."""
    wanted = extension("2.5.29.37", tlv(SEQ, *map(oid, usages)))
    return read_csr(csr(device.key, challenge(UTF8, b"s3cret"), extension_request(wanted)))


CLIENT, CODE, ODD = "1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.3", "1.2.3.4"


@pytest.mark.parametrize(
    ("asked", "named"), [((CODE,), "codeSigning"), ((CLIENT, CODE), "codeSigning"), ((ODD,), ODD)]
)
def test_a_usage_that_the_profile_does_not_have_is_refused_by_name(
    device: Identity, asked: tuple[str, ...], named: str
) -> None:
    found = refusal(asking(device, *asked))

    assert found.reason is Reason.USAGE_NOT_ALLOWED
    assert found.detail == f"extended key usage {named} is not allowed"


def test_a_usage_that_the_profile_has_passes_and_is_told_as_checked(device: Identity) -> None:
    allowed = policy(extended_key_usages=("clientAuth", ODD))
    decision = decide(asking(device, ODD, CLIENT), facts(), allowed)

    assert decision.refusal is None
    assert GateResult(gate="usages", passed=True) in decision.gates
    assert "extensions" not in {gate.gate for gate in decision.gates}


@pytest.mark.parametrize("kind", sorted(SANS))
def test_a_san_passes_only_where_its_kind_is_allowed(device: Identity, kind: str) -> None:
    found = request(device, SANS[kind])
    others = frozenset(SANS) - {kind}

    assert decide(found, facts(), policy(sans=frozenset({kind}))).refusal is None
    assert refusal(found, policy(sans=others)).reason is Reason.SAN_NOT_ALLOWED


def test_one_forbidden_san_among_others_is_refused(device: Identity) -> None:
    found = request(device, SANS["dns"], SANS["ip"], SANS["dns"])

    assert refusal(found, policy(sans=frozenset({"dns"}))).reason is Reason.SAN_NOT_ALLOWED


@pytest.mark.parametrize(
    "subject",
    [name(("2.5.4.3", UTF8, b"")), name(("2.5.4.3", UTF8, b"a\xff")), tlv(SEQ, tlv(0x31))],
    ids=["empty value", "no UTF-8", "empty RDN"],
)
def test_a_subject_against_the_rules_is_refused_saying_which(
    device: Identity, subject: bytes
) -> None:
    found = refusal(request(device, DNS, subject=subject))

    assert found.reason is Reason.SUBJECT_NOT_ALLOWED
    assert found.detail.startswith("RDN 1 of the name, ")


def test_a_san_against_the_rules_is_refused_saying_which(device: Identity) -> None:
    """Also where its bytes hide of which kind it is."""
    for entry in (tlv(0x82, b"a\0b"), tlv(0x82, b"\xff"), tlv(0x82), tlv(0x87, bytes(3))):
        found = refusal(request(device, DNS, entry))

        assert found.reason is Reason.SAN_NOT_ALLOWED
        assert found.detail.startswith("subjectAltName entry 2, ")


CORP = tuple(map(read_subject_pattern, ("CN=device-*", "O=Corp", "2.5.4.12=*")))


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ((("2.5.4.3", b"device-1"),), ""),
        ((("2.5.4.10", b"Corp"), ("2.5.4.3", b"device-1"), ("2.5.4.12", b"x")), ""),
        ((("2.5.4.3", b"router-1"),), "CN=router-1 matches none of subject_patterns"),
        ((("2.5.4.3", b"device-1"), ("2.5.4.3", b"a, b")), r"CN=a\, b matches none"),
        ((("2.5.4.3", b"device-1"), ("2.5.4.11", b"Corp")), "OU=Corp matches none"),
    ],
)
def test_every_attribute_of_a_subject_matches_a_pattern(
    device: Identity, attributes: tuple[tuple[str, bytes], ...], said: str
) -> None:
    subject = name(*((kind, UTF8, value) for kind, value in attributes))
    found = decide(request(device, subject=subject), facts(), policy(subject_patterns=CORP))

    assert bool(found.refusal) is bool(said)
    if found.refusal:
        assert found.refusal.reason is Reason.SUBJECT_NOT_ALLOWED
        assert found.refusal.detail.startswith(said)


def test_an_empty_subject_has_nothing_that_must_match(device: Identity) -> None:
    found = request(device, DNS, subject=EMPTY_NAME)

    assert decide(found, facts(), policy(subject_patterns=CORP)).refusal is None


def test_every_san_matches_a_pattern_of_its_kind(device: Identity) -> None:
    patterns = tuple(map(read_san_pattern, ("dns:*.example", "ip:192.0.2.0/24")))
    allowed = policy(san_patterns=patterns)
    outside = tlv(0x87, bytes((198, 51, 100, 1)))

    assert decide(request(device, DNS, SANS["ip"]), facts(), allowed).refusal is None
    assert decide(request(device), facts(), allowed).refusal is None
    for sans, said in (
        ((DNS, outside), "ip 198.51.100.1 matches none of san_patterns"),
        ((SANS["rfc822"], DNS), "rfc822 a@b.example matches none of san_patterns"),
    ):
        found = refusal(request(device, *sans), allowed)
        assert found.reason is Reason.SAN_NOT_ALLOWED
        assert found.detail == said


def constrained(*permitted: x509.GeneralName) -> Any:
    """The constraints of a CA that certifies only these names."""
    key = ec.derive_private_key(3, ec.SECP256R1())
    ca = x509.CertificateBuilder(
        pki.name("CA"), pki.name("CA"), key.public_key(), 1, pki.START, pki.END
    ).add_extension(x509.NameConstraints(list(permitted), None), critical=True)
    return name_constraints((pki.der(ca.sign(key, hashes.SHA256())),))


@pytest.mark.parametrize(
    ("permitted", "reason"),
    [
        (x509.DNSName("example"), None),
        (x509.DNSName("corp.example"), Reason.SAN_NOT_ALLOWED),
        (x509.DirectoryName(pki.name("other")), Reason.SUBJECT_NOT_ALLOWED),
    ],
)
def test_names_that_the_ca_may_not_certify_are_refused(
    device: Identity, permitted: x509.GeneralName, reason: Reason | None
) -> None:
    opened = DecryptedRequest(request(device, DNS), facts())
    question = PolicyInput(
        opened, History(), PROFILE, policy(), NOW, NOW, constraints=constrained(permitted)
    )
    found = gates.decide(question).refusal

    assert (found.reason if found else None) is reason
    assert found is None or "outside the name constraints of CN=CA" in found.detail


def test_an_empty_san_is_none(device: Identity) -> None:
    found = read_csr(csr(device.key, challenge(UTF8, b"s3cret"), extension_request(san())))

    assert decide(found, facts(), policy()).refusal is None


@pytest.mark.parametrize(
    ("begin", "end", "said"),
    [
        (NOW - 1, NOW, "the CA expired at 2026-01-01 00:00:00 UTC"),
        (NOW - 9, NOW - 1, "the CA expired at 2025-12-31 23:59:59 UTC"),
        (NOW + 1, NOW + 9, "the CA is not valid before 2026-01-01 00:00:01 UTC"),
        (NOW, NOW + 1, ""),
    ],
)
def test_a_ca_certifies_while_it_is_valid(
    device: Identity, begin: int, end: int, said: str
) -> None:
    found, told = request(device, DNS), History()
    question = PolicyInput(
        DecryptedRequest(found, facts()), told, PROFILE, policy(), NOW, NOW, (begin, end)
    )
    decision = gates.decide(question)

    if not said:
        assert decision.refusal is None
        return
    assert decision.refusal is not None
    assert decision.refusal.reason is Reason.CA_NOT_VALID
    assert said in decision.refusal.detail
    assert [gate.gate for gate in decision.gates] == ["ca"]


@pytest.mark.parametrize("password", [None, b"", b"   "])
def test_a_missing_or_blank_challenge_is_refused(device: Identity, password: bytes | None) -> None:
    found = request(device, password=password)

    assert refusal(found).reason is Reason.CHALLENGE_MISSING


def test_the_first_refusal_ends_it(device: Identity) -> None:
    """Each gate in turn refuses a request that every later gate would refuse too."""
    nobody = request(device, password=b"wrong", subject=EMPTY_NAME)
    bad_san = request(device, SANS["other"], password=b"wrong", subject=DEVICE_NAME)
    strict = policy(sans=frozenset())

    assert refusal(nobody, strict, key_type="dsa").reason is Reason.KEY_NOT_ALLOWED
    assert refusal(nobody, strict).reason is Reason.SUBJECT_NOT_ALLOWED
    assert refusal(bad_san, strict).reason is Reason.SAN_NOT_ALLOWED
    assert len(decide(nobody, facts(key_type="dsa"), strict).gates) == 1
    assert len(decide(bad_san, facts(), strict).gates) == 3


@pytest.mark.parametrize(
    ("usages", "admitted"),
    [
        (("keyEncipherment", "dataEncipherment"), False),
        (("keyEncipherment", "digitalSignature"), True),
        (("nonRepudiation",), True),
    ],
)
def test_an_ec_key_needs_a_key_usage_that_it_can_serve(
    device: Identity,
    usages: tuple[str, ...],
    admitted: bool,  # noqa: FBT001 - a case
) -> None:
    """Otherwise the issuer would fail, after the challenge was used."""
    key = ec.derive_private_key(8, ec.SECP256R1()).public_key()
    found = read_csr(csr(device.key, challenge(UTF8, b"s3cret"), public=spki(key)))
    decision = decide(found, facts(key_type="p256", key_bits=256), policy(key_usages=usages))

    assert (decision.refusal is None) is admitted
    if decision.refusal is not None:
        assert decision.refusal.reason is Reason.KEY_NOT_ALLOWED
        assert "cannot encipher" in decision.refusal.detail


ACCOUNT, OTHER = "S-1-5-21-1-2-3-1104", "S-1-5-21-1-2-3-500"


def with_sids(device: Identity, uri: str, *values: bytes) -> Any:
    """A CSR with a SID URI ("": none) and SID extensions."""
    tag = f"tag:microsoft.com,2022-09-14:sid:{uri}".encode()
    names = [san(tlv(0x86, tag))] if uri else []
    asked = extension_request(*names, *(extension(SID, value) for value in values))
    return read_csr(csr(device.key, challenge(UTF8, b"s3cret"), asked))


@pytest.mark.parametrize(
    "values",
    [
        (write_sid(OTHER),),
        (write_sid(ACCOUNT), write_sid(OTHER)),
        (tlv(SEQ, ACCOUNT.encode()),),
    ],
)
def test_a_sid_extension_of_another_account_than_the_sid_uri_is_refused(
    device: Identity, values: tuple[bytes, ...]
) -> None:
    found = refusal(with_sids(device, ACCOUNT, *values), policy(sans=frozenset({"uri"})))

    assert found.reason is Reason.SAN_NOT_ALLOWED
    assert "SID extension" in found.detail


@pytest.mark.parametrize(
    ("uri", "values"),
    [
        (ACCOUNT, ()),
        (ACCOUNT, (write_sid(ACCOUNT),)),
        (ACCOUNT.lower(), (write_sid(ACCOUNT),)),
        ("", (write_sid(OTHER),)),
    ],
)
def test_a_sid_uri_and_an_extension_of_the_same_account_pass(
    device: Identity, uri: str, values: tuple[bytes, ...]
) -> None:
    allowed = policy(sans=frozenset({"uri"}))

    assert decide(with_sids(device, uri, *values), facts(), allowed).refusal is None
