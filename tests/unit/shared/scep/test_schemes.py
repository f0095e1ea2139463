"""Every signature scheme that messages, certificates and CSRs may use."""

from collections.abc import Callable
from pathlib import Path

import pytest
from asn1crypto.algos import SignedDigestAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import example, given
from hypothesis import strategies as st

from shared.scep import cms, schemes, signed_data
from shared.scep.algorithms import DIGESTS, MD5, SHA1, SHA256, SHA384, SHA512, Digest
from shared.scep.asn1 import OCTET_STRING
from shared.scep.errors import FailInfo, ScepError
from shared.scep.schemes import ECDSA_SIGNATURE, PKCS1V15_SIGNATURE, Scheme, pss, verifies
from shared.scep.signed_data import SignedData, Signer
from tests.support import messages, signing
from tests.support.messages import NULL, RSA, SEQ, Identity, identity, integer, oid, tlv
from tests.support.signing import (
    CURVES,
    ECDSA_OIDS,
    MGF1,
    RSASSA_PSS,
    Way,
    digest_id,
    ec_device,
    every_way,
    pss_id,
    signed_so,
)
from tests.unit.shared.scep import oracles

CONTENT = b"what is signed"
DEVICE = identity("device", 0x7001)
WAYS = every_way(DEVICE)
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
PADDED = [SHA1, SHA256, SHA384, SHA512]
EMPTY_PSS = tlv(SEQ, RSASSA_PSS, tlv(SEQ))
ECDSA_SHA256 = tlv(SEQ, oid(ECDSA_OIDS["sha256"]))


def name(digest: Digest) -> str:
    return digest.name


def verified(message: bytes) -> SignedData:
    found = cms.read_der_or_ber(message, signed_data.read_signed_data)
    signed_data.verify(found)
    return found


def refusal(step: Callable[[], object]) -> FailInfo:
    with pytest.raises(ScepError) as caught:
        step()
    return caught.value.fail_info


def changed(data: bytes, at: int, bit: int = 0) -> bytes:
    return data[:at] + bytes((data[at] ^ 1 << bit,)) + data[at + 1 :]


# Messages


@each_way
@pytest.mark.parametrize("ber", [False, True], ids=["DER", "BER"])
def test_message_signed_in_any_way_verifies(way: Way, ber: bool) -> None:  # noqa: FBT001
    found = verified(signed_so(CONTENT, way, ber=ber))
    assert found.content == CONTENT
    assert found.signer == way.by.certificate
    assert found.digest is not None
    assert found.digest.name == way.digest
    assert found.signature_algorithm == way.algorithm


@each_way
def test_openssl_verifies_what_the_tests_sign(way: Way) -> None:
    """Else the test above would prove the encoder of the tests against itself."""
    assert oracles.openssl_verified(signed_so(CONTENT, way)) == CONTENT


@each_way
def test_not_one_octet_of_the_signature_may_change(way: Way) -> None:
    found = verified(signed_so(CONTENT, way))
    key = schemes.public_key(found.signer.spki)
    assert found.digest is not None
    scheme = schemes.read_scheme(found.signature_algorithm, found.digest)
    data = tlv(messages.SET, found.signed_attrs)
    assert schemes.verifies(key, scheme, found.digest, found.signature, data)
    for at in range(len(found.signature)):
        forged = changed(found.signature, at, at % 8)
        assert not schemes.verifies(key, scheme, found.digest, forged, data)
    for forged in (b"", found.signature[:-1], found.signature + b"\0", b"\0" + found.signature):
        assert not schemes.verifies(key, scheme, found.digest, forged, data)


@each_way
def test_not_one_octet_of_what_is_signed_may_change(way: Way) -> None:
    message = signed_so(CONTENT, way)
    body = verified(message).signed_attrs
    start = message.index(body)
    for at in range(start, start + len(body)):
        with pytest.raises(ScepError):
            verified(changed(message, at, at % 8))


@each_way
def test_signature_of_another_key_is_refused(way: Way) -> None:
    other = ec.derive_private_key(0xBAD, way.by.key.curve) if way.by is not DEVICE else None
    by = messages.ec_identity("EC device", 0x7100, other) if other else identity("device", 0x7001)
    message = signed_so(CONTENT, way)
    forged = message.replace(way.by.der, by.der)
    assert forged != message
    assert refusal(lambda: verified(forged)) is FailInfo.BAD_MESSAGE_CHECK


@each_way
@pytest.mark.parametrize("digest", signing.PKCS1_OIDS)
def test_digest_of_the_message_is_the_one_that_is_signed_with(way: Way, digest: str) -> None:
    """The content's digest is another's than the signature's."""
    if digest == way.digest:
        return
    message = messages.signed(
        CONTENT, way.by, digest=digest, signature_algorithm=way.algorithm, sign=way.sign
    )
    assert refusal(lambda: verified(message)) is FailInfo.BAD_MESSAGE_CHECK


@pytest.mark.parametrize("algorithm", [RSA, pss_id("sha256")])
def test_rsa_algorithm_with_an_ec_key_is_bad_alg(algorithm: bytes) -> None:
    way = signing.ecdsa(ec_device(), "sha256", algorithm)
    assert refusal(lambda: verified(signed_so(CONTENT, way))) is FailInfo.BAD_ALG


@pytest.mark.parametrize("algorithm", [ECDSA_SHA256, signing.EC_PUBLIC_KEY])
def test_ec_algorithm_with_an_rsa_key_is_bad_alg(algorithm: bytes) -> None:
    way = signing.pkcs1(DEVICE, "sha256", algorithm)
    assert refusal(lambda: verified(signed_so(CONTENT, way))) is FailInfo.BAD_ALG


@pytest.mark.parametrize(
    "said",
    [
        RSA,
        pss_id("sha256", "sha1"),
        pss_id("sha256", salt=20),
        pss_id("sha256", salt=31),
        pss_id("sha256", salt=0),
        pss_id("sha256", salt=512),
        pss_id("sha512"),
        EMPTY_PSS,
    ],
    ids=["PKCS#1", "mask", "salt 20", "salt 31", "no salt", "salt 512", "digest", "defaults"],
)
def test_pss_parameters_other_than_those_signed_with_are_refused(said: bytes) -> None:
    way = Way(DEVICE, "sha256", said, signing.pss_sign(DEVICE.key, "sha256"))
    assert refusal(lambda: verified(signed_so(CONTENT, way))) is FailInfo.BAD_MESSAGE_CHECK


@pytest.mark.parametrize("salt", [0, 1, 20, 64, 190, 222])
@pytest.mark.parametrize("mgf", ["sha1", "sha512"])
def test_pss_with_any_salt_that_the_key_has_room_for_verifies(salt: int, mgf: str) -> None:
    verified(signed_so(CONTENT, signing.pss(DEVICE, "sha256", mgf, salt)))


def test_pss_salt_that_the_key_has_no_room_for_is_refused() -> None:
    way = Way(DEVICE, "sha256", pss_id("sha256", salt=223), lambda _: bytes(256))
    assert refusal(lambda: verified(signed_so(CONTENT, way))) is FailInfo.BAD_MESSAGE_CHECK


# openssl, both ways

OPENSSL_SCHEMES: dict[str, tuple[str, ...]] = {
    "PSS": ("rsa_padding_mode:pss",),
    "PSS, salt of the digest's size": ("rsa_padding_mode:pss", "rsa_pss_saltlen:digest"),
    "PSS, MGF1 sha1": ("rsa_padding_mode:pss", "rsa_mgf1_md:sha1"),
    "PSS, no salt": ("rsa_padding_mode:pss", "rsa_pss_saltlen:0"),
}


def signed_by_openssl(by: messages.Named, folder: Path, digest: str, *options: str) -> bytes:
    pem, key = oracles.write_pem(by, folder)
    return oracles.openssl(
        *("cms", "-sign", "-nodetach", "-binary", "-outform", "DER", "-md", digest),
        *("-signer", pem, "-inkey", key),
        *(part for option in options for part in ("-keyopt", option)),
        stdin=CONTENT,
    )


@pytest.mark.parametrize("options", OPENSSL_SCHEMES.values(), ids=OPENSSL_SCHEMES)
@pytest.mark.parametrize("digest", ["sha1", "sha256", "sha384", "sha512"])
def test_what_openssl_signs_by_pss_verifies(
    tmp_path: Path, digest: str, options: tuple[str, ...]
) -> None:
    found = verified(signed_by_openssl(DEVICE, tmp_path, digest, *options))
    assert found.content == CONTENT
    assert RSASSA_PSS in found.signature_algorithm


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("digest", ECDSA_OIDS)
def test_what_openssl_signs_by_ecdsa_verifies(tmp_path: Path, digest: str, curve: str) -> None:
    found = verified(signed_by_openssl(ec_device(curve), tmp_path, digest))
    assert found.content == CONTENT
    assert found.signature_algorithm == tlv(SEQ, oid(ECDSA_OIDS[digest]))


WRITTEN = {
    **{f"PSS {d.name}": (pss(d), d) for d in PADDED},
    "PSS sha256, MGF1 sha1": (Scheme("pss", SHA1, 20), SHA256),
    **{f"ECDSA {d.name}": (ECDSA_SIGNATURE, d) for d in PADDED},
    **{f"PKCS#1 {d.name}": (PKCS1V15_SIGNATURE, d) for d in DIGESTS.values()},
}


def written(scheme: Scheme, digest: Digest, curve: str = "P-256") -> bytes:
    by = ec_device(curve) if scheme.kind == "ecdsa" else DEVICE
    extra = signed_data.attribute(oid("1.2.3.4"), tlv(OCTET_STRING, b"x"))
    signer = Signer(by.key, by.certificate, scheme)
    return signed_data.write_signed_data(CONTENT, [extra], digest, signer)


@pytest.mark.parametrize(("scheme", "digest"), WRITTEN.values(), ids=WRITTEN)
def test_openssl_verifies_what_is_written(scheme: Scheme, digest: Digest) -> None:
    message = written(scheme, digest)
    assert oracles.openssl_verified(message) == CONTENT
    assert verified(message).content == CONTENT


@pytest.mark.parametrize("curve", CURVES)
def test_openssl_verifies_what_a_key_on_any_curve_writes(curve: str) -> None:
    message = written(ECDSA_SIGNATURE, SHA384, curve)
    assert oracles.openssl_verified(message) == CONTENT
    assert verified(message).signer == ec_device(curve).certificate


@pytest.mark.parametrize(("scheme", "digest"), WRITTEN.values(), ids=WRITTEN)
def test_written_message_is_strict_der(scheme: Scheme, digest: Digest) -> None:
    message = written(scheme, digest)
    data = oracles.signed_data(message)
    assert tlv(SEQ, messages.SIGNED, data.dump(force=True)) == message


# AlgorithmIdentifiers


@pytest.mark.parametrize("digest", PADDED, ids=name)
def test_pss_identifier_says_all_that_asn1crypto_reads(digest: Digest) -> None:
    read = SignedDigestAlgorithm.load(pss(digest).identifier(digest), strict=True)
    assert read["algorithm"].native == "rsassa_pss"
    parameters = read["parameters"]
    assert parameters["hash_algorithm"]["algorithm"].native == digest.name
    assert parameters["mask_gen_algorithm"]["algorithm"].native == "mgf1"
    assert parameters["mask_gen_algorithm"]["parameters"]["algorithm"].native == digest.name
    assert parameters["salt_length"].native == digest.hash.digest_size
    assert parameters["trailer_field"].native == "trailer_field_bc"


@pytest.mark.parametrize("digest", PADDED, ids=name)
def test_ecdsa_identifier_has_no_parameters(digest: Digest) -> None:
    """RFC 5754 s3.3."""
    assert ECDSA_SIGNATURE.identifier(digest) == tlv(SEQ, oid(ECDSA_OIDS[digest.name]))
    assert schemes.signature_identifier(ECDSA_SIGNATURE, digest) == tlv(
        SEQ, oid(ECDSA_OIDS[digest.name])
    )


@pytest.mark.parametrize("digest", DIGESTS.values(), ids=name)
def test_pkcs1_identifier_names_its_digest_on_certificates_only(digest: Digest) -> None:
    """StrongSwan refuses the longer one in a message."""
    assert PKCS1V15_SIGNATURE.identifier(digest) == RSA
    named = tlv(SEQ, oid(signing.PKCS1_OIDS[digest.name]), NULL)
    assert schemes.signature_identifier(PKCS1V15_SIGNATURE, digest) == named


@pytest.mark.parametrize(("scheme", "digest"), WRITTEN.values(), ids=WRITTEN)
def test_identifier_is_read_back(scheme: Scheme, digest: Digest) -> None:
    assert schemes.read_scheme(scheme.identifier(digest), digest) == scheme
    alone = schemes.signature_identifier(scheme, digest)
    assert schemes.read_signature_algorithm(alone) == (scheme, digest)


@pytest.mark.parametrize("scheme", [ECDSA_SIGNATURE, pss(SHA256)], ids=lambda s: s.kind)
def test_scheme_that_cannot_name_md5_says_so(scheme: Scheme) -> None:
    """No OID of ECDSA has MD5, and as a PSS digest it is refused on reading."""
    assert refusal(lambda: scheme.identifier(MD5)) is FailInfo.BAD_ALG


@pytest.mark.parametrize("mgf", ["sha1", "sha256"])
@pytest.mark.parametrize("salt", [20, 32])
@pytest.mark.parametrize("digest", ["sha1", "sha256"])
@pytest.mark.parametrize("plain", [False, True], ids=["all said", "defaults left out"])
def test_pss_defaults_may_be_said_or_left_out(
    digest: str,
    mgf: str,
    salt: int,
    plain: bool,  # noqa: FBT001
) -> None:
    """Old encoders write DEFAULT values, DER leaves them out."""
    found, named = schemes.read_signature_algorithm(pss_id(digest, mgf, salt, plain=plain))
    assert (found.kind, found.mgf_digest.name, found.salt) == ("pss", mgf, salt)
    assert named.name == digest


def test_pss_parameters_of_digests_may_be_absent() -> None:
    bare = digest_id("sha256", b"")
    parts = tlv(0xA0, bare), tlv(0xA1, tlv(SEQ, MGF1, bare)), tlv(0xA2, integer(32))
    identifier = tlv(SEQ, RSASSA_PSS, tlv(SEQ, *parts, tlv(0xA3, integer(1))))
    assert schemes.read_signature_algorithm(identifier) == (pss(SHA256), SHA256)


@pytest.mark.parametrize(
    "parameters",
    [
        tlv(SEQ, tlv(0xA0, digest_id("md5"))),
        tlv(SEQ, tlv(0xA0, tlv(SEQ, oid("1.2.3")))),
        tlv(SEQ, tlv(0xA1, tlv(SEQ, oid("1.2.3"), digest_id("sha256")))),
        tlv(SEQ, tlv(0xA1, tlv(SEQ, MGF1, digest_id("md5")))),
        tlv(SEQ, tlv(0xA1, tlv(SEQ, MGF1, tlv(SEQ, oid("1.2.3"))))),
        tlv(SEQ, tlv(0xA2, integer(513))),
        tlv(SEQ, tlv(0xA2, integer(1 << 16))),
        tlv(SEQ, tlv(0xA2, integer(1 << 23))),
        tlv(SEQ, tlv(0xA2, integer(1 << 4000))),
        tlv(SEQ, tlv(0xA2, tlv(2, b"\xec"))),
    ],
    ids=[
        *("MD5", "digest", "mask", "MD5 mask", "mask digest"),
        *("salt 513", "salt 2^16", "salt 2^23", "salt 2^4000", "salt -20"),
    ],
)
def test_pss_parameters_out_of_bounds_are_bad_alg(parameters: bytes) -> None:
    read = lambda: schemes.read_signature_algorithm(tlv(SEQ, RSASSA_PSS, parameters))  # noqa: E731
    assert refusal(read) is FailInfo.BAD_ALG


@pytest.mark.parametrize(
    "parameters",
    [
        b"",
        NULL,
        tlv(SEQ, NULL),
        tlv(SEQ, tlv(0xA2, integer(20)), tlv(0xA0, digest_id("sha256"))),
        tlv(SEQ, tlv(0xA0)),
        tlv(SEQ, tlv(0xA2)),
        tlv(SEQ, tlv(0xA1, tlv(SEQ, MGF1))),
    ],
    ids=["absent", "NULL", "other", "order", "no digest", "no salt", "no mask digest"],
)
def test_pss_parameters_that_are_none_are_refused(parameters: bytes) -> None:
    with pytest.raises(ScepError):
        schemes.read_signature_algorithm(tlv(SEQ, RSASSA_PSS, parameters))


@pytest.mark.parametrize("algorithm", [RSA, signing.EC_PUBLIC_KEY, tlv(SEQ, oid("1.3.101.112"))])
def test_algorithm_that_stands_alone_must_name_its_digest(algorithm: bytes) -> None:
    """Of a certificate or CSR: nothing else says which it is."""
    read = lambda: schemes.read_signature_algorithm(algorithm)  # noqa: E731
    assert refusal(read) is FailInfo.BAD_ALG


# Keys


@pytest.mark.parametrize("curve", [ec.SECP256K1, ec.SECP224R1, ec.BrainpoolP256R1])
def test_other_curves_are_bad_alg(curve: type[ec.EllipticCurve]) -> None:
    public = messages.spki(ec.derive_private_key(7, curve()).public_key())
    assert refusal(lambda: schemes.public_key(public)) is FailInfo.BAD_ALG


@pytest.mark.parametrize("bits", [512, 1023, 8193, 16384])
def test_rsa_keys_too_short_or_too_long_are_bad_alg(bits: int) -> None:
    numbers = tlv(SEQ, integer((1 << bits - 1) + 1), integer(65537))
    public = tlv(SEQ, RSA, tlv(3, b"\0", numbers))
    assert refusal(lambda: schemes.public_key(public)) is FailInfo.BAD_ALG


@pytest.mark.parametrize("bits", [1024, 8192])
def test_rsa_keys_at_the_bounds_are_read(bits: int) -> None:
    numbers = tlv(SEQ, integer((1 << bits - 1) + 1), integer(65537))
    found = schemes.public_key(tlv(SEQ, RSA, tlv(3, b"\0", numbers)))
    assert isinstance(found, rsa.RSAPublicKey)
    assert found.key_size == bits


def test_other_kinds_of_keys_are_bad_alg() -> None:
    public = messages.spki(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key())
    assert refusal(lambda: schemes.public_key(public)) is FailInfo.BAD_ALG


def test_nothing_is_encrypted_to_an_ec_key() -> None:
    public = messages.spki(ec_device().key.public_key())
    assert schemes.public_key(public) == ec_device().key.public_key()
    assert refusal(lambda: schemes.rsa_public_key(public)) is FailInfo.BAD_ALG


def test_scheme_of_a_key_is_the_plain_one(device: Identity) -> None:
    assert schemes.scheme_of(messages.spki(device.key.public_key())) is PKCS1V15_SIGNATURE
    for curve in CURVES:
        public = messages.spki(ec_device(curve).key.public_key())
        assert schemes.scheme_of(public) is ECDSA_SIGNATURE


# Any bytes


@given(data=st.binary(max_size=200), digest=st.sampled_from(list(DIGESTS.values())))
@example(data=b"", digest=SHA256)
@example(data=tlv(SEQ), digest=SHA256)
@example(data=EMPTY_PSS[:-1], digest=SHA1)
def test_any_bytes_are_a_scheme_or_the_one_error(data: bytes, digest: Digest) -> None:
    for read in (
        lambda: schemes.read_scheme(data, digest),
        lambda: schemes.read_signature_algorithm(data),
        lambda: schemes.public_key(data),
    ):
        try:
            read()
        except ScepError:
            continue


@given(at=st.integers(0, len(pss_id("sha384")) - 1), octet=st.integers(0, 255))
def test_any_changed_octet_of_pss_is_a_scheme_or_the_one_error(at: int, octet: int) -> None:
    good = pss_id("sha384")
    data = good[:at] + bytes((octet,)) + good[at + 1 :]
    try:
        scheme, digest = schemes.read_signature_algorithm(data)
    except ScepError:
        return
    assert scheme.salt <= 512
    assert schemes.read_scheme(data, digest) == scheme


@given(signature=st.binary(max_size=300))
@example(signature=b"")
@example(signature=tlv(SEQ, integer(0), integer(0)))
@example(signature=tlv(SEQ, integer(1 << 4000), integer(1)))
def test_no_bytes_verify_as_a_signature(signature: bytes) -> None:
    ec_key = ec_device().key.public_key()
    assert not schemes.verifies(ec_key, ECDSA_SIGNATURE, SHA256, signature, CONTENT)
    for scheme in (PKCS1V15_SIGNATURE, pss(SHA256), Scheme("pss", SHA1, 512)):
        assert not schemes.verifies(DEVICE.key.public_key(), scheme, SHA256, signature, CONTENT)


def test_a_digest_that_openssl_refuses_verifies_nothing(rsa_key: rsa.RSAPrivateKey) -> None:
    refused = Digest("blake2s", b"", hashes.BLAKE2s(32))

    assert not verifies(rsa_key.public_key(), PKCS1V15_SIGNATURE, refused, bytes(256), b"data")
