import hashlib

import pytest
from asn1crypto import algos, cms

from shared.scep import algorithms
from shared.scep.algorithms import (
    AES128,
    AES192,
    AES256,
    CIPHERS,
    DES,
    DES3,
    DIGESTS,
    MD5,
    PKCS1V15,
    SHA1,
    SHA256,
    SHA384,
    SHA512,
    AlgorithmPolicy,
    ContentCipher,
    Digest,
    KeyTransport,
)
from shared.scep.asn1 import Der
from shared.scep.errors import FailInfo, ScepError
from tests.support.messages import (
    CIPHERS as ENCRYPTED_BY,
)
from tests.support.messages import (
    CONTENT_KEY,
    HASHES,
    IV,
    NULL,
    OAEP_DIGEST,
    SEQ,
    TRANSPORTS,
    encrypt,
    oid,
    tlv,
)
from tests.unit.shared.scep.oracles import LEGACY, openssl

MODERN = [SHA256, SHA384, SHA512, AES128, AES192, AES256]
LEGACY_ONLY = [MD5, SHA1, DES, DES3]
OPENSSL_NAMES = {"aes128": "aes-128-cbc", "aes192": "aes-192-cbc", "aes256": "aes-256-cbc"}
OPENSSL_NAMES |= {"des3": "des-ede3-cbc", "des": "des-cbc"}
OAEP = oid("1.2.840.113549.1.1.7")
MGF1 = oid("1.2.840.113549.1.1.8")
P_SPECIFIED = oid("1.2.840.113549.1.1.9")
SHA512_ID = tlv(SEQ, oid("2.16.840.1.101.3.4.2.3"))
ALL_CIPHERS = pytest.mark.parametrize("cipher", CIPHERS.values(), ids=lambda c: c.name)


def name(algorithm: Digest | ContentCipher) -> str:
    return algorithm.name


@pytest.mark.parametrize("digest", DIGESTS.values(), ids=name)
def test_digests_are_those_of_hashlib(digest: Digest) -> None:
    assert digest.of(b"abc") == hashlib.new(digest.name, b"abc").digest()
    assert digest.oid == oid(HASHES[digest.name][0])


@pytest.mark.parametrize("digest", DIGESTS.values(), ids=name)
def test_digest_identifier_carries_null_parameters(digest: Digest) -> None:
    parsed = algos.DigestAlgorithm.load(digest.identifier(), strict=True)
    assert parsed["algorithm"].native == digest.name
    assert parsed["parameters"].dump() == NULL


@pytest.mark.parametrize("parameters", [NULL, b""])
@pytest.mark.parametrize("digest", [SHA1, SHA256, SHA384, SHA512], ids=name)
def test_digest_is_read_with_null_or_absent_parameters(digest: Digest, parameters: bytes) -> None:
    der = tlv(SEQ, oid(HASHES[digest.name][0]), parameters)
    assert algorithms.read_digest(Der(der)) is digest


@pytest.mark.parametrize("dotted", ["1.2.840.113549.2.5", "2.16.840.1.101.3.4.2.8", "1.3.36.3.2.1"])
def test_unknown_digest_of_a_padding_is_bad_alg(dotted: str) -> None:
    """MD5 among them: it is for old signatures, never for a padding."""
    with pytest.raises(ScepError) as caught:
        algorithms.read_digest(Der(tlv(SEQ, oid(dotted), NULL)))
    assert caught.value.fail_info is FailInfo.BAD_ALG


@ALL_CIPHERS
@pytest.mark.parametrize("size", [0, 1, 7, 8, 15, 16, 17, 1000])
def test_ciphers_agree_with_hand_made_padding(cipher: ContentCipher, size: int) -> None:
    plaintext = bytes(range(256)) * 4
    plaintext = plaintext[:size]
    key, iv = CONTENT_KEY[: cipher.key_size], IV[: cipher.block_size]
    ciphertext = encrypt(cipher.name, plaintext)
    assert cipher.encrypt(key, iv, plaintext) == ciphertext
    assert cipher.decrypt(key, iv, ciphertext) == plaintext


@ALL_CIPHERS
def test_ciphers_are_those_of_openssl(cipher: ContentCipher) -> None:
    key, iv = CONTENT_KEY[: cipher.key_size], IV[: cipher.block_size]
    command = ("enc", f"-{OPENSSL_NAMES[cipher.name]}", "-K", key.hex(), "-iv", iv.hex(), *LEGACY)
    assert cipher.encrypt(key, iv, b"attack at dawn") == openssl(*command, stdin=b"attack at dawn")


@ALL_CIPHERS
def test_every_decryption_failure_has_the_same_words(cipher: ContentCipher) -> None:
    """Nothing tells wrong padding from a wrong length."""
    key, iv = CONTENT_KEY[: cipher.key_size], IV[: cipher.block_size]
    good = encrypt(cipher.name, b"x" * 40)
    failing = [
        b"",
        good[:-1],
        good[: cipher.block_size],
        good[: -cipher.block_size],
        good + b"\0",
        good[:-1] + bytes([good[-1] ^ 1]),
    ]
    seen = set()
    for ciphertext in failing:
        with pytest.raises(ScepError) as caught:
            cipher.decrypt(key, iv, ciphertext)
        seen.add((str(caught.value), caught.value.detail, caught.value.fail_info))
    assert len(seen) == 1
    assert seen.pop()[2] is FailInfo.BAD_MESSAGE_CHECK


@ALL_CIPHERS
def test_cipher_identifier_carries_the_iv(cipher: ContentCipher) -> None:
    iv = IV[: cipher.block_size]
    written = cipher.identifier(iv)
    parsed = cms.EncryptionAlgorithm.load(written, strict=True)
    assert parsed["algorithm"].dotted == ENCRYPTED_BY[cipher.name][0]
    assert parsed.encryption_iv == iv
    assert algorithms.read_cipher(Der(written)) == (cipher, iv)


@pytest.mark.parametrize(
    "dotted",
    [
        "2.16.840.1.101.3.4.1.1",
        "2.16.840.1.101.3.4.1.6",
        "1.2.840.113549.3.2",
        "1.2.840.113549.3.4",
        "1.2.3",
    ],
)
def test_unknown_cipher_is_bad_alg_whatever_its_parameters(dotted: str) -> None:
    for parameters in (tlv(4, IV), NULL, b"", tlv(SEQ, tlv(4, IV[:12]))):
        with pytest.raises(ScepError) as caught:
            algorithms.read_cipher(Der(tlv(SEQ, oid(dotted), parameters)))
        assert caught.value.fail_info is FailInfo.BAD_ALG


@ALL_CIPHERS
@pytest.mark.parametrize("change", [-1, 1, 100])
def test_iv_of_another_size_is_refused(cipher: ContentCipher, change: int) -> None:
    iv = bytes(cipher.block_size + change)
    with pytest.raises(ScepError):
        algorithms.read_cipher(Der(tlv(SEQ, oid(ENCRYPTED_BY[cipher.name][0]), tlv(4, iv))))


@pytest.mark.parametrize("parameters", [b"", NULL, tlv(SEQ, b"\x02\x01\x3a", tlv(4, IV))])
def test_missing_iv_is_refused(parameters: bytes) -> None:
    with pytest.raises(ScepError):
        algorithms.read_cipher(Der(tlv(SEQ, oid(ENCRYPTED_BY["aes128"][0]), parameters)))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("pkcs1v15", PKCS1V15),
        ("pkcs1v15 without NULL", PKCS1V15),
        ("oaep", KeyTransport("oaep", SHA1, SHA1)),
        ("oaep without parameters", KeyTransport("oaep", SHA1, SHA1)),
        ("oaep-sha256", KeyTransport("oaep", SHA256, SHA256)),
    ],
)
def test_key_transports_are_read(written: str, expected: KeyTransport) -> None:
    assert algorithms.read_key_transport(Der(TRANSPORTS[written][0])) == expected


@pytest.mark.parametrize("empty_label", [b"", tlv(0xA2, tlv(SEQ, P_SPECIFIED, tlv(4)))])
def test_oaep_parts_stand_alone_and_the_empty_label_is_none(empty_label: bytes) -> None:
    mgf = tlv(0xA1, tlv(SEQ, MGF1, SHA512_ID))
    for parts, expected in (
        ((tlv(0xA0, OAEP_DIGEST),), KeyTransport("oaep", SHA256, SHA1)),
        ((mgf,), KeyTransport("oaep", SHA1, SHA512)),
        ((tlv(0xA0, OAEP_DIGEST), mgf), KeyTransport("oaep", SHA256, SHA512)),
    ):
        der = tlv(SEQ, OAEP, tlv(SEQ, *parts, empty_label))
        assert algorithms.read_key_transport(Der(der)) == expected


@pytest.mark.parametrize(
    "algorithm",
    [
        tlv(SEQ, oid("1.2.840.113549.1.1.10"), NULL),
        tlv(SEQ, oid("1.2.840.10045.2.1")),
        tlv(SEQ, OAEP, tlv(SEQ, tlv(0xA0, tlv(SEQ, oid("1.2.840.113549.2.5"), NULL)))),
        tlv(SEQ, OAEP, tlv(SEQ, tlv(0xA1, tlv(SEQ, oid("1.2.3.4"), OAEP_DIGEST)))),
        tlv(SEQ, OAEP, tlv(SEQ, tlv(0xA1, tlv(SEQ, MGF1, tlv(SEQ, oid("1.2.3")))))),
        tlv(SEQ, OAEP, tlv(SEQ, tlv(0xA2, tlv(SEQ, P_SPECIFIED, tlv(4, b"label"))))),
    ],
    ids=["other", "EC", "digest", "mask generation", "mask digest", "label"],
)
def test_unknown_key_transport_is_bad_alg(algorithm: bytes) -> None:
    with pytest.raises(ScepError) as caught:
        algorithms.read_key_transport(Der(algorithm))
    assert caught.value.fail_info is FailInfo.BAD_ALG


@pytest.mark.parametrize(
    "transport",
    [
        PKCS1V15,
        KeyTransport("oaep"),
        KeyTransport("oaep", SHA256, SHA256),
        KeyTransport("oaep", SHA512, SHA1),
        KeyTransport("oaep", SHA1, SHA384),
    ],
    ids=lambda t: f"{t.scheme}-{t.digest.name}-{t.mgf_digest.name}",
)
def test_key_transport_identifier_is_strict_der(transport: KeyTransport) -> None:
    written = transport.identifier()
    parsed = cms.KeyEncryptionAlgorithm.load(written, strict=True)
    assert algorithms.read_key_transport(Der(written)) == transport
    if transport.scheme == "pkcs1v15":
        assert parsed["algorithm"].native == "rsaes_pkcs1v15"
        assert parsed["parameters"].dump() == NULL
        return
    assert parsed["algorithm"].native == "rsaes_oaep"
    parameters = parsed["parameters"]
    assert parameters["hash_algorithm"]["algorithm"].native == transport.digest.name
    mgf = parameters["mask_gen_algorithm"]
    assert mgf["algorithm"].native == "mgf1"
    assert mgf["parameters"]["algorithm"].native == transport.mgf_digest.name
    # DER leaves DEFAULT values out.
    assert (SHA1.oid in written) is False


@pytest.mark.parametrize("algorithm", MODERN, ids=name)
@pytest.mark.parametrize("legacy", [False, True])
def test_modern_algorithms_pass_every_policy(
    algorithm: Digest | ContentCipher,
    legacy: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    AlgorithmPolicy(legacy=legacy).check(algorithm)


@pytest.mark.parametrize("algorithm", LEGACY_ONLY, ids=name)
def test_legacy_algorithms_need_the_switch(algorithm: Digest | ContentCipher) -> None:
    AlgorithmPolicy(legacy=True).check(algorithm)
    with pytest.raises(ScepError) as caught:
        AlgorithmPolicy().check(algorithm)
    assert caught.value.fail_info is FailInfo.BAD_ALG
