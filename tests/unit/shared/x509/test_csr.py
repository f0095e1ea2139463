from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.x509.oid import AttributeOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from shared.limits import (
    CHALLENGE_BYTES,
    CSR_ATTRIBUTES,
    CSR_EXTENSIONS,
    NAME_BYTES,
    SAN_BYTES,
    SAN_ENTRIES,
)
from shared.scep.algorithms import AlgorithmPolicy
from shared.scep.asn1 import Der
from shared.scep.errors import FailInfo, ScepError
from shared.x509.csr import (
    CertificationRequest,
    Extension,
    read_csr,
    read_request,
    verify_self_signature,
)
from shared.x509.names import GeneralName, name_text
from tests.support.messages import (
    BMP,
    CHALLENGE_PASSWORD,
    COMMON_NAME,
    DEVICE_NAME,
    EXTENSION_REQUEST,
    HASHES,
    IA5,
    NULL,
    PRINTABLE,
    SEQ,
    SET,
    SHA256_RSA,
    T61,
    UNIVERSAL,
    UTF8,
    Identity,
    attribute,
    challenge,
    csr,
    device_csr,
    extension,
    extension_request,
    integer,
    name,
    oid,
    rsa_sign,
    san,
    spki,
    tlv,
)
from tests.support.signing import RSASSA_PSS, digest_id, pss_id, pss_sign
from tests.unit.shared.scep.oracles import openssl, write_pem

MICROSOFT_EXTENSIONS = "1.3.6.1.4.1.311.2.1.14"
UPN = "1.3.6.1.4.1.311.20.2.3"
FRIENDLY_NAME = attribute("1.2.840.113549.1.9.20", tlv(BMP, "Ü".encode("utf-16-be")))
RSA_SIGNATURES = {"md5": 4, "sha1": 5, "sha256": 11, "sha384": 12, "sha512": 13}
EC_SIGNATURES = {"sha1": "1", "sha256": "3.2", "sha384": "3.3", "sha512": "3.4"}


def verified(der: bytes) -> CertificationRequest:
    found = read_csr(der)
    verify_self_signature(found)
    return found


def refusal(der: bytes) -> FailInfo:
    found = read_csr(der)
    with pytest.raises(ScepError) as caught:
        verify_self_signature(found)
    return caught.value.fail_info


def unreadable(der: bytes, *, legacy: bool = False) -> FailInfo:
    """What is wrong with a CSR whose signature verifies."""
    found = verified(der)
    with pytest.raises(ScepError) as caught:
        read_request(found, AlgorithmPolicy(legacy))
    return caught.value.fail_info


def challenged(device: Identity, *attributes: bytes) -> str | None:
    return verified(csr(device.key, *attributes)).challenge


def test_csr_of_cryptography_is_read(device: Identity) -> None:
    names = [x509.NameAttribute(NameOID.COMMON_NAME, "device")]
    usage = x509.KeyUsage(
        *(True, False, True, False, False, False, False), encipher_only=False, decipher_only=False
    )
    made = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name(names))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("d.example")]), critical=False)
        .add_extension(usage, critical=True)
        .add_attribute(AttributeOID.CHALLENGE_PASSWORD, b"s3cret")
        .sign(device.key, hashes.SHA256())
    )
    found = verified(made.public_bytes(serialization.Encoding.DER))
    assert found.info == made.tbs_certrequest_bytes
    assert found.subject == made.subject.public_bytes()
    assert found.spki == spki(device.key.public_key())
    assert found.signature == made.signature
    assert found.signature_algorithm == SHA256_RSA
    assert found.challenge == "s3cret"
    assert found.sans == (GeneralName("dns", "d.example"),)
    expected = {e.oid.dotted_string: e.value.public_bytes() for e in made.extensions}
    assert {e.oid: e.value for e in found.extensions} == expected
    assert found.public_key == device.key.public_key()


def test_csr_of_openssl_is_read(device: Identity) -> None:
    config = b"""
[req]
distinguished_name = dn
attributes = attrs
prompt = no
[dn]
CN = device
unstructuredName = router
[attrs]
challengePassword = sekret
"""
    der = openssl(
        *("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "/dev/null"),
        *("-config", "/dev/stdin", "-outform", "DER"),
        stdin=config,
    )
    found = verified(der)
    assert found.challenge == "sekret"
    assert name_text(found.subject) == "CN=device, unstructuredName=router"
    assert found.public_key != device.key.public_key()


@pytest.mark.parametrize("version", [0, 1, 2, 255, 2**40])
def test_version_is_not_looked_at(device: Identity, version: int) -> None:
    """Apple sends 2."""
    verified(csr(device.key, version=version))


def test_attributes_need_no_order(device: Identity) -> None:
    attributes = [challenge(PRINTABLE, b"s3cret"), extension_request(san()), FRIENDLY_NAME]
    for order in (sorted(attributes), sorted(attributes, reverse=True)):
        found = verified(csr(device.key, *order))
        assert found.challenge == "s3cret"
        assert [e.oid for e in found.extensions] == ["2.5.29.17"]


def test_what_is_signed_keeps_its_bytes(device: Identity) -> None:
    der = csr(device.key, FRIENDLY_NAME, challenge(UTF8, b"s3cret"), version=2)
    assert read_csr(der).info == Der(Der(der).value(SEQ)).element(SEQ)


def test_attributes_may_be_absent(device: Identity) -> None:
    info = tlv(SEQ, integer(0), DEVICE_NAME, spki(device.key.public_key()))
    algorithm = tlv(SEQ, oid("1.2.840.113549.1.1.11"), NULL)
    signature = tlv(3, b"\0", rsa_sign(device.key)(info))
    found = verified(tlv(SEQ, info, algorithm, signature))
    assert (found.challenge, found.extensions, found.sans) == (None, (), ())


@pytest.mark.parametrize(
    ("tag", "contents"),
    [
        (PRINTABLE, b"s3cret"),
        (PRINTABLE, b"s3_cret*@"),
        (UTF8, "pässwörd ☃".encode()),
        (T61, "pässwörd".encode("latin-1")),
        (IA5, b"s3cret@*"),
        (BMP, "pässwörd".encode("utf-16-be")),
        (UNIVERSAL, "pässwörd".encode("utf-32-be")),
    ],
)
def test_challenge_of_any_string_type_is_read(device: Identity, tag: int, contents: bytes) -> None:
    codec = {T61: "latin-1", BMP: "utf-16-be", UNIVERSAL: "utf-32-be"}.get(tag, "utf-8")
    assert challenged(device, challenge(tag, contents)) == contents.decode(codec)


@pytest.mark.parametrize(
    ("tag", "contents"),
    [(PRINTABLE, b""), (UTF8, b" "), (PRINTABLE, b" \t\r\n"), (BMP, b""), (BMP, b"\0 \0 ")],
)
def test_blank_challenge_is_none(device: Identity, tag: int, contents: bytes) -> None:
    assert challenged(device, challenge(tag, contents)) is None


def test_challenge_of_32_kib_is_read_and_a_longer_one_refused(device: Identity) -> None:
    """Signed challenges are tokens of some length."""
    longest = b"x" * 32 * 1024
    assert len(longest) == CHALLENGE_BYTES
    assert challenged(device, challenge(UTF8, longest)) == longest.decode()
    too_long = csr(device.key, challenge(UTF8, longest + b"x"))
    assert unreadable(too_long) is FailInfo.BAD_REQUEST


def test_the_bound_of_a_challenge_is_the_same_in_a_bmpstring(device: Identity) -> None:
    """It writes every character in two bytes, of which the bound counts one."""
    longest = "x" * CHALLENGE_BYTES
    assert challenged(device, challenge(BMP, longest.encode("utf-16-be"))) == longest
    too_long = csr(device.key, challenge(BMP, f"{longest}x".encode("utf-16-be")))
    assert unreadable(too_long) is FailInfo.BAD_REQUEST


@pytest.mark.parametrize("value", [tlv(4, b"s3cret"), integer(5), tlv(SEQ), NULL])
def test_challenge_that_is_no_string_is_refused(device: Identity, value: bytes) -> None:
    der = csr(device.key, attribute(CHALLENGE_PASSWORD, value))
    assert unreadable(der) is FailInfo.BAD_REQUEST


def test_a_challenge_twice_is_refused(device: Identity) -> None:
    der = csr(device.key, challenge(UTF8, b"a"), challenge(UTF8, b"b"))
    assert unreadable(der) is FailInfo.BAD_REQUEST


def test_extensions_may_come_in_several_requests(device: Identity) -> None:
    """Scepreq sends one for the SAN and one for the rest."""
    assert read_csr(csr(device.key, extension_request(), extension_request())).extensions == ()


@pytest.mark.parametrize("kind", [CHALLENGE_PASSWORD, EXTENSION_REQUEST])
def test_attribute_without_a_value_is_refused(device: Identity, kind: str) -> None:
    assert unreadable(csr(device.key, attribute(kind))) is FailInfo.BAD_REQUEST


@pytest.mark.parametrize(
    ("subject", "shown"),
    [
        (name((COMMON_NAME, PRINTABLE, b"DESKTOP_1!@*")), "CN=DESKTOP_1!@*"),
        (name(("1.2.840.113549.1.9.2", IA5, b"router.example")), "unstructuredName=router.example"),
        (name((COMMON_NAME, UTF8, b"x" * 200)), "CN=" + "x" * 200),
        (name((COMMON_NAME, T61, b"Zo\xeb")), "CN=Zoë"),
        (name((COMMON_NAME, PRINTABLE, b"\xff")), "CN=\ufffd"),
        (name((COMMON_NAME, UTF8, b"")), "CN="),
        (tlv(SEQ), ""),
    ],
    ids=["Windows 11", "Cisco", "200 characters", "T61", "no text", "empty CN", "empty"],
)
def test_subject_keeps_its_bytes(device: Identity, subject: bytes, shown: str) -> None:
    found = verified(csr(device.key, subject=subject))
    assert found.subject == subject
    assert name_text(found.subject) == shown


def test_requested_extensions_are_kept(device: Identity) -> None:
    request = extension_request(
        extension("2.5.29.15", tlv(3, b"\x05\xa0"), critical=b"\x01\x01\xff"),
        extension("2.5.29.19", tlv(SEQ), critical=b"\x01\x01\x00"),
        extension("1.3.6.1.4.1.311.20.2", tlv(BMP, b"\0W")),
    )
    assert verified(csr(device.key, request)).extensions == (
        Extension("2.5.29.15", value=tlv(3, b"\x05\xa0")),
        Extension("2.5.29.19", value=tlv(SEQ)),
        Extension("1.3.6.1.4.1.311.20.2", value=tlv(BMP, b"\0W")),
    )


def test_sans_of_every_kind_are_read(device: Identity) -> None:
    request = extension_request(
        san(
            tlv(0x82, b"d.example"),
            tlv(0x81, b"r@example"),
            tlv(0x86, b"https://u.example"),
            tlv(0x87, bytes((192, 0, 2, 1))),
            tlv(0x87, bytes(15) + b"\x01"),
            tlv(0xA0, oid(UPN), tlv(0xA0, tlv(UTF8, b"u@example"))),
            tlv(0x88, b"\x2a\x03"),
        )
    )
    assert [(n.kind, n.value) for n in verified(csr(device.key, request)).sans] == [
        ("dns", "d.example"),
        ("rfc822", "r@example"),
        ("uri", "https://u.example"),
        ("ip", "192.0.2.1"),
        ("ip", "::1"),
        ("upn", "u@example"),
        ("other", "2a03"),
    ]


def test_different_names_in_two_san_extensions_are_a_bad_request(device: Identity) -> None:
    both = extension_request(san(tlv(0x82, b"a.example")), san(tlv(0x82, b"b.example")))
    assert unreadable(csr(device.key, both)) is FailInfo.BAD_REQUEST


def test_the_same_extension_twice_is_one(device: Identity) -> None:
    once = extension_request(san(tlv(0x82, b"a.example")))
    found = verified(csr(device.key, once, once))
    read_request(found, AlgorithmPolicy())
    assert [e.oid for e in found.extensions] == ["2.5.29.17"]
    assert found.sans == (GeneralName("dns", "a.example"),)


def test_extensions_under_the_attribute_of_windows_are_read(device: Identity) -> None:
    """A SAN that is dropped in silence is a certificate without it."""
    asked = tlv(SEQ, san(tlv(0x82, b"a.example")))
    found = verified(csr(device.key, attribute(MICROSOFT_EXTENSIONS, asked)))
    read_request(found, AlgorithmPolicy())
    assert found.sans == (GeneralName("dns", "a.example"),)


# Bounds


def many_attributes(number: int) -> list[bytes]:
    return [attribute(f"1.2.3.{index}", NULL) for index in range(number)]


def many_extensions(number: int) -> bytes:
    return extension_request(*(extension(f"1.2.3.{index}", NULL) for index in range(number)))


@pytest.mark.parametrize("character", [b"\x01", b"x", "\u00fc".encode()])
def test_a_subject_of_any_characters_has_an_end(device: Identity, character: bytes) -> None:
    """JSON writes some of them in six bytes: a verdict would outgrow what the bus takes."""
    header = len(name((COMMON_NAME, UTF8, b"x" * 3000))) - 3000
    value = character * ((NAME_BYTES - header) // len(character))
    fits = verified(csr(device.key, subject=name((COMMON_NAME, UTF8, value))))
    read_request(fits, AlgorithmPolicy())

    over = csr(device.key, subject=name((COMMON_NAME, UTF8, value + 2 * character)))
    assert unreadable(over) is FailInfo.BAD_REQUEST


@pytest.mark.parametrize(
    "entries",
    [
        [tlv(0x81, b"")] * 110_000,
        [tlv(0x81, b"")] * (SAN_ENTRIES + 1),
        [tlv(0x86, b"\x01" * 190_000)],
        [tlv(0x86, b"a:" + b"x" * SAN_BYTES)],
    ],
    ids=["many empty ones", "too many", "one of control characters", "a long one"],
)
def test_names_have_an_end_in_number_and_size(device: Identity, entries: list[bytes]) -> None:
    der = csr(device.key, extension_request(san(*entries)))
    assert unreadable(der) is FailInfo.BAD_REQUEST


def test_attributes_and_extensions_have_an_end_in_number(device: Identity) -> None:
    allowed = verified(csr(device.key, *many_attributes(CSR_ATTRIBUTES)))
    read_request(allowed, AlgorithmPolicy())
    assert len(verified(csr(device.key, many_extensions(CSR_EXTENSIONS))).extensions) == 64

    for der in (
        csr(device.key, *many_attributes(CSR_ATTRIBUTES + 1)),
        csr(device.key, *[extension_request()] * 9846),
        csr(device.key, many_extensions(CSR_EXTENSIONS + 1)),
        csr(device.key, many_extensions(20_000)),
    ):
        assert unreadable(der) is FailInfo.BAD_REQUEST


@pytest.mark.parametrize("digest", ["md5", "sha1"])
def test_an_old_signature_on_the_csr_needs_a_legacy_profile(device: Identity, digest: str) -> None:
    algorithm = tlv(SEQ, oid(f"1.2.840.113549.1.1.{RSA_SIGNATURES[digest]}"), NULL)
    der = csr(device.key, algorithm=algorithm, sign=rsa_sign(device.key, digest))
    assert unreadable(der) is FailInfo.BAD_ALG
    read_request(verified(der), AlgorithmPolicy(legacy=True))


def test_broken_san_extension_is_refused_when_it_is_read(device: Identity) -> None:
    found = read_csr(csr(device.key, extension_request(extension("2.5.29.17", b"\x30\x05"))))
    with pytest.raises(ScepError):
        _ = found.sans


@pytest.mark.parametrize("digest", RSA_SIGNATURES)
def test_rsa_signature_with_every_digest_verifies(device: Identity, digest: str) -> None:
    dotted = f"1.2.840.113549.1.1.{RSA_SIGNATURES[digest]}"
    for parameters in (NULL, b""):
        algorithm = tlv(SEQ, oid(dotted), parameters)
        der = csr(device.key, algorithm=algorithm, sign=rsa_sign(device.key, digest))
        assert verified(der).signature_algorithm == algorithm


@pytest.mark.parametrize("digest", EC_SIGNATURES)
@pytest.mark.parametrize("mgf", ["", "sha1"], ids=["one digest", "MGF1 sha1"])
def test_pss_signature_with_every_digest_verifies(device: Identity, digest: str, mgf: str) -> None:
    for salt in (None, 0, 20):
        algorithm = pss_id(digest, mgf, salt, plain=True)
        sign = pss_sign(device.key, digest, mgf, salt)
        assert verified(csr(device.key, algorithm=algorithm, sign=sign)).signature


def test_pss_parameters_other_than_those_signed_with_are_refused(device: Identity) -> None:
    sign = pss_sign(device.key, "sha256")
    for said in (pss_id("sha256", "sha1"), pss_id("sha256", salt=20), pss_id("sha512")):
        der = csr(device.key, algorithm=said, sign=sign)
        assert refusal(der) is FailInfo.BAD_MESSAGE_CHECK
    der = csr(device.key, algorithm=pss_id("sha256"))
    assert refusal(der) is FailInfo.BAD_MESSAGE_CHECK


@pytest.mark.parametrize(
    "parameters",
    [tlv(SEQ, tlv(0xA0, digest_id("md5"))), tlv(SEQ, tlv(0xA2, integer(513)))],
    ids=["MD5", "salt 513"],
)
def test_pss_parameters_out_of_bounds_are_bad_alg(device: Identity, parameters: bytes) -> None:
    der = csr(device.key, algorithm=tlv(SEQ, RSASSA_PSS, parameters))
    assert refusal(der) is FailInfo.BAD_ALG


@pytest.mark.parametrize("options", [("digest",), ("auto",), ("20", "rsa_mgf1_md:sha1")])
def test_pss_csr_of_openssl_verifies(
    device: Identity, tmp_path: Path, options: tuple[str, ...]
) -> None:
    _, key = write_pem(device, tmp_path)
    salt, *others = options
    given = ("rsa_padding_mode:pss", f"rsa_pss_saltlen:{salt}", *others)
    der = openssl(
        *("req", "-new", "-sha256", "-subj", "/CN=device", "-outform", "DER", "-key", key),
        *(part for option in given for part in ("-sigopt", option)),
        stdin=b"",
    )
    assert RSASSA_PSS in verified(der).signature_algorithm


def test_openssl_verifies_the_pss_that_the_tests_sign(device: Identity) -> None:
    sign = pss_sign(device.key, "sha384")
    der = csr(device.key, algorithm=pss_id("sha384"), sign=sign)
    openssl("req", "-verify", "-noout", "-inform", "DER", stdin=der)


def test_key_that_the_certificate_says_is_for_pss_is_an_rsa_key(device: Identity) -> None:
    """Keys may carry the OID of PSS instead of rsaEncryption (RFC 4055 s1.2)."""
    rsa_spki = Der(spki(device.key.public_key())).enter(SEQ)
    rsa_spki.element()
    public = tlv(SEQ, tlv(SEQ, RSASSA_PSS), rsa_spki.element())
    algorithm, sign = pss_id("sha256"), pss_sign(device.key, "sha256")
    found = read_csr(csr(device.key, public=public, algorithm=algorithm, sign=sign))
    verify_self_signature(found)
    assert found.public_key == device.key.public_key()


@pytest.mark.parametrize("algorithm", [pss_id("sha256"), SHA256_RSA], ids=["PSS", "PKCS#1"])
def test_rsa_algorithm_with_an_ec_key_is_bad_alg(
    ec_key: ec.EllipticCurvePrivateKey, algorithm: bytes
) -> None:
    der = csr(ec_key, algorithm=algorithm, sign=lambda _: b"x")
    assert refusal(der) is FailInfo.BAD_ALG


@pytest.mark.parametrize("digest", EC_SIGNATURES)
@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1, ec.SECP521R1])
def test_ec_key_is_read_and_its_signature_verifies(
    curve: Callable[[], ec.EllipticCurve], digest: str
) -> None:
    key = ec.generate_private_key(curve())
    algorithm = tlv(SEQ, oid("1.2.840.10045.4." + EC_SIGNATURES[digest]))
    der = csr(
        key,
        challenge(UTF8, b"s3cret"),
        algorithm=algorithm,
        sign=lambda data: key.sign(data, ec.ECDSA(HASHES[digest][1])),
    )
    assert verified(der).public_key == key.public_key()


def test_signature_of_another_key_is_refused(device: Identity, ra: Identity) -> None:
    """No proof of possession."""
    der = csr(device.key, sign=rsa_sign(ra.key))
    assert refusal(der) is FailInfo.BAD_MESSAGE_CHECK


def test_changed_request_is_refused(device: Identity) -> None:
    der = device_csr(device)
    changed = der.replace(b"device.example", b"master.example")
    assert changed != der
    assert refusal(changed) is FailInfo.BAD_MESSAGE_CHECK


@pytest.mark.parametrize("size", [0, 1, 255, 257])
def test_signature_of_another_size_is_refused(device: Identity, size: int) -> None:
    der = csr(device.key, sign=lambda _: b"\x01" * size)
    assert refusal(der) is FailInfo.BAD_MESSAGE_CHECK


def test_rsa_signature_that_claims_to_be_ecdsa_on_an_ec_key_is_refused(
    device: Identity, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    public = spki(ec_key.public_key())
    der = csr(device.key, public=public, algorithm=tlv(SEQ, oid("1.2.840.10045.4.3.2")))
    assert refusal(der) is FailInfo.BAD_MESSAGE_CHECK


@pytest.mark.parametrize("dotted", ["1.2.840.113549.1.1.2", "1.2.840.113549.1.1.1", "2.999.1"])
def test_unknown_signature_algorithm_is_bad_alg(device: Identity, dotted: str) -> None:
    der = csr(device.key, algorithm=tlv(SEQ, oid(dotted), NULL))
    assert refusal(der) is FailInfo.BAD_ALG


@pytest.mark.parametrize(
    "public",
    [
        spki(ed25519.Ed25519PrivateKey.generate().public_key()),
        spki(x25519.X25519PrivateKey.generate().public_key()),
        tlv(SEQ),
        tlv(SEQ, tlv(SEQ, oid("1.2.3")), tlv(3, b"\0abc")),
        tlv(SEQ, tlv(SEQ, oid("1.2.840.10045.2.1"), oid("1.2.3")), tlv(3, b"\0\x04abc")),
        tlv(SEQ, tlv(SEQ, oid("1.2.840.10045.2.1")), tlv(3, b"\0\x04abc")),
    ],
    ids=["Ed25519", "X25519", "empty", "unknown", "unknown curve", "no curve"],
)
def test_other_keys_are_bad_alg(device: Identity, public: bytes) -> None:
    der = csr(device.key, public=public)
    with pytest.raises(ScepError) as caught:
        _ = read_csr(der).public_key
    assert caught.value.fail_info is FailInfo.BAD_ALG
    assert refusal(der) is FailInfo.BAD_ALG


@pytest.mark.parametrize("exponent", [0, 1, 2, (1 << 64) + 1, (1 << 4000) + 1])
@pytest.mark.parametrize("modulus", [0, 15, (1 << 2047) + 1, (1 << 20_000) + 1], ids=int.bit_length)
def test_odd_rsa_keys_are_refused_in_words(device: Identity, modulus: int, exponent: int) -> None:
    numbers = tlv(SEQ, integer(modulus), integer(exponent))
    public = tlv(SEQ, tlv(SEQ, oid("1.2.840.113549.1.1.1"), NULL), tlv(3, b"\0", numbers))
    assert refusal(csr(device.key, public=public)) in (FailInfo.BAD_ALG, FailInfo.BAD_MESSAGE_CHECK)


def test_oversized_object_identifiers_are_refused(device: Identity) -> None:
    """Thousands of bytes in one arc: more digits than Python converts to text."""
    huge = tlv(6, b"\x2a" + b"\x81" * 3000 + b"\x01")
    assert refusal(csr(device.key, algorithm=tlv(SEQ, huge))) is FailInfo.BAD_ALG
    der = csr(device.key, extension_request(tlv(SEQ, huge, tlv(4))))
    assert unreadable(der) is FailInfo.BAD_REQUEST


def test_line_ends_after_the_csr_are_ignored_and_other_bytes_refused(device: Identity) -> None:
    der = device_csr(device)
    assert read_csr(der + b"\r\n") == read_csr(der)
    for tail in (b"\0", b" ", b"\r\n\0"):
        with pytest.raises(ScepError):
            read_csr(der + tail)


def test_csr_cut_anywhere_is_refused(device: Identity) -> None:
    der = device_csr(device)
    for end in range(len(der)):
        with pytest.raises(ScepError):
            read_csr(der[:end])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30\x00",
        b"\x30\x80",
        tlv(SEQ, tlv(SEQ), tlv(SEQ), tlv(3, b"\0")),
        tlv(SEQ, tlv(SEQ), tlv(SEQ, oid("1.2.3")), tlv(3)),
        tlv(SEQ, tlv(SEQ), tlv(SEQ, oid("1.2.3")), tlv(3, b"\x01a")),
        tlv(SEQ, tlv(SEQ), tlv(SEQ, oid("1.2.3")), tlv(3, b"\0a"), NULL),
        tlv(SEQ, tlv(SET), tlv(SEQ, oid("1.2.3")), tlv(3, b"\0a")),
    ],
)
def test_what_is_no_csr_is_refused(data: bytes) -> None:
    with pytest.raises(ScepError):
        read_csr(data)


def test_key_of_1024_bits_is_read() -> None:
    """Whether it is long enough is for the profile."""
    key = rsa.generate_private_key(65537, 1024)
    assert verified(csr(key)).public_key == key.public_key()


EKU = "2.5.29.37"
PAIR = "1.3.6.1.4.1.311.13.2.1"


def usages(device: Identity, *values: bytes) -> CertificationRequest:
    return read_csr(csr(device.key, extension_request(*(extension(EKU, each) for each in values))))


def test_extended_key_usages_are_read_in_order(device: Identity) -> None:
    found = usages(device, tlv(SEQ, oid("1.3.6.1.5.5.7.3.2"), oid("1.2.3.4")))

    assert found.extended_key_usages == ("1.3.6.1.5.5.7.3.2", "1.2.3.4")
    assert read_csr(device_csr(device)).extended_key_usages == ()


@pytest.mark.parametrize(
    "value",
    [
        tlv(SEQ),
        b"",
        tlv(SET, oid("1.2.3.4")),
        tlv(SEQ, tlv(UTF8, b"clientAuth")),
        tlv(SEQ, oid("1.2.3.4")) + b"\0",
        tlv(SEQ, *[oid("1.2.3.4")] * (CSR_EXTENSIONS + 1)),
    ],
    ids=["none", "empty", "a set", "text", "more after it", "too many"],
)
def test_malformed_extended_key_usages_are_a_bad_request(device: Identity, value: bytes) -> None:
    with pytest.raises(ScepError, match="extendedKeyUsage") as caught:
        read_request(usages(device, value), AlgorithmPolicy())
    assert caught.value.fail_info is FailInfo.BAD_REQUEST


def test_two_different_extended_key_usages_are_a_bad_request(device: Identity) -> None:
    one, other = tlv(SEQ, oid("1.2.3.4")), tlv(SEQ, oid("1.2.3.5"))

    assert usages(device, one, one).extended_key_usages == ("1.2.3.4",)
    with pytest.raises(ScepError, match="conflicting extendedKeyUsage"):
        read_request(usages(device, one, other), AlgorithmPolicy())


def asking(device: Identity, pairs: dict[str, str], tag: int = BMP) -> CertificationRequest:
    coding = "utf-16-be" if tag == BMP else "utf-8"
    values = [tlv(SEQ, *(tlv(tag, text.encode(coding)) for text in pair)) for pair in pairs.items()]
    return read_csr(csr(device.key, *(attribute(PAIR, value) for value in values)))


@pytest.mark.parametrize("tag", [BMP, UTF8, PRINTABLE])
@pytest.mark.parametrize(
    ("period", "units", "seconds"),
    [
        ("Seconds", "90", 90),
        ("Minutes", "5", 300),
        ("Hours", "12", 12 * 3600),
        ("Days", "1", 86400),
        ("weeks", "2", 14 * 86400),
        ("Months", "3", 90 * 86400),
        ("YEARS", " 2 ", 730 * 86400),
    ],
)
def test_a_validity_is_read_as_windows_asks_for_it(
    device: Identity, tag: int, period: str, units: str, seconds: int
) -> None:
    pairs = {"ValidityPeriod": period, "ValidityPeriodUnits": units, "Cryptographer": "x"}

    assert asking(device, pairs, tag).validity == seconds
    assert asking(device, {"SomethingElse": units}, tag).validity is None
    assert read_csr(device_csr(device)).validity is None


def test_a_validity_is_read_as_android_asks_for_it(device: Identity) -> None:
    """Intune on Android puts the unit into ValidityPeriodUnits and the number into the other."""
    pairs = {"ValidityPeriod": "2", "ValidityPeriodUnits": "Years"}

    assert asking(device, pairs).validity == 730 * 86400


def test_both_pairs_may_be_values_of_one_attribute(device: Identity) -> None:
    pairs = (("ValidityPeriod", "Days"), ("ValidityPeriodUnits", "7"))
    values = [tlv(SEQ, *(tlv(UTF8, text.encode()) for text in pair)) for pair in pairs]

    assert read_csr(csr(device.key, attribute(PAIR, *values))).validity == 7 * 86400


def test_two_validities_are_a_bad_request(device: Identity) -> None:
    pairs = [("ValidityPeriod", "Days"), ("ValidityPeriodUnits", "7"), ("ValidityPeriodUnits", "8")]
    values = [tlv(SEQ, *(tlv(UTF8, text.encode()) for text in pair)) for pair in pairs]
    found = read_csr(csr(device.key, *(attribute(PAIR, value) for value in values)))

    with pytest.raises(ScepError, match="conflicting values of ValidityPeriod"):
        read_request(found, AlgorithmPolicy())


def test_pairs_that_do_not_parse_ask_for_nothing(device: Identity) -> None:
    found = read_csr(csr(device.key, attribute(PAIR, tlv(SEQ, tlv(UTF8, b"ValidityPeriod")))))

    read_request(found, AlgorithmPolicy())
    assert found.validity is None


@pytest.mark.parametrize(
    "pairs",
    [
        {"ValidityPeriod": "Days"},
        {"ValidityPeriodUnits": "3"},
        {"ValidityPeriod": "Fortnights", "ValidityPeriodUnits": "3"},
        {"ValidityPeriod": "Days", "ValidityPeriodUnits": "0"},
        {"ValidityPeriod": "Days", "ValidityPeriodUnits": "-1"},
        {"ValidityPeriod": "Days", "ValidityPeriodUnits": "\u0661"},
        {"ValidityPeriod": "Days", "ValidityPeriodUnits": "1" * 7},
        {"ValidityPeriod": "Days", "ValidityPeriodUnits": ""},
    ],
)
def test_a_validity_that_makes_no_sense_is_a_bad_request(
    device: Identity, pairs: dict[str, str]
) -> None:
    with pytest.raises(ScepError, match="ValidityPeriod is not a number") as caught:
        read_request(asking(device, pairs), AlgorithmPolicy())
    assert caught.value.fail_info is FailInfo.BAD_REQUEST


@given(st.binary(max_size=60))
def test_any_bytes_as_usages_or_pairs_are_read_or_refused(value: bytes) -> None:
    info = tlv(0xA0, extension_request(extension(EKU, value)), tlv(SEQ, oid(PAIR), tlv(SET, value)))
    found = CertificationRequest(b"", DEVICE_NAME, b"", Der(info).value(0xA0), b"", b"")
    for name_ in ("extended_key_usages", "validity"):
        with suppress(ScepError):
            getattr(found, name_)
