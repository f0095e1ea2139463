import hashlib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from shared.scep import algorithms, cms, signed_data
from shared.scep.asn1 import OCTET_STRING, PRINTABLE_STRING, Der, tlv
from shared.scep.errors import FailInfo, ScepError
from shared.scep.signed_data import SignedData
from tests.support import messages
from tests.support.messages import (
    DATA,
    NULL,
    SEQ,
    SET,
    Identity,
    attribute,
    certificate,
    certs_only,
    cms_attributes,
    integer,
    oid,
    scep_attributes,
    signed,
    spki,
)
from tests.unit.shared.scep import oracles

CONTENT = b"what is signed"
CONTENT_TYPE = "1.2.840.113549.1.9.3"
MESSAGE_DIGEST = "1.2.840.113549.1.9.4"
DIGEST = hashlib.sha256(CONTENT).digest()
SIGNATURES = {"md5": 4, "sha1": 5, "sha256": 11, "sha384": 12, "sha512": 13}


def read(message: bytes) -> SignedData:
    return cms.read_der_or_ber(message, signed_data.read_signed_data)


def verified(message: bytes) -> SignedData:
    found = read(message)
    signed_data.verify(found)
    return found


def refusal(message: bytes) -> FailInfo:
    """The failInfo of a message that reads but does not verify."""
    found = read(message)
    with pytest.raises(ScepError) as caught:
        signed_data.verify(found)
    return caught.value.fail_info


def key_id_sid(of: Identity) -> bytes:
    return messages.tlv(0x80, of.key_id)


@pytest.mark.parametrize("digest", SIGNATURES)
@pytest.mark.parametrize("ber", [False, True], ids=["DER", "BER"])
def test_signed_message_verifies(device: Identity, digest: str, ber: bool) -> None:  # noqa: FBT001
    found = verified(signed(CONTENT, device, digest=digest, ber=ber))
    assert found.content_type == DATA
    assert found.content == CONTENT
    assert found.certificates == (device.der,)
    assert found.signer == device.certificate
    assert found.digest is algorithms.DIGESTS[oid(messages.HASHES[digest][0])]


@pytest.mark.parametrize("digest", SIGNATURES)
def test_signature_algorithm_may_name_the_digest_too(device: Identity, digest: str) -> None:
    named = messages.tlv(SEQ, oid(f"1.2.840.113549.1.1.{SIGNATURES[digest]}"), NULL)
    verified(signed(CONTENT, device, digest=digest, signature_algorithm=named))


@pytest.mark.parametrize("last", [4, 5, 12, 13])
def test_signature_algorithm_that_names_another_digest_is_refused(
    device: Identity, last: int
) -> None:
    named = messages.tlv(SEQ, oid(f"1.2.840.113549.1.1.{last}"), NULL)
    refused = refusal(signed(CONTENT, device, signature_algorithm=named))
    assert refused is FailInfo.BAD_MESSAGE_CHECK


def test_parameters_of_digest_and_signature_may_be_absent(device: Identity) -> None:
    without = messages.tlv(SEQ, oid(messages.HASHES["sha256"][0]))
    rsa_without = messages.tlv(SEQ, oid("1.2.840.113549.1.1.1"))
    verified(signed(CONTENT, device, digest_algorithm=without, signature_algorithm=rsa_without))


@pytest.mark.parametrize(
    ("digest", "streaming"),
    [
        ("md5", True),
        ("sha1", False),
        ("sha256", False),
        ("sha256", True),
        ("sha384", True),
        ("sha512", False),
    ],
)
@pytest.mark.parametrize("sid", [(), ("-keyid",)], ids=["issuer and serial", "key id"])
def test_what_openssl_signs_verifies(
    device: Identity,
    tmp_path: Path,
    digest: str,
    streaming: bool,  # noqa: FBT001
    sid: tuple[str, ...],
) -> None:
    pem, key = oracles.write_pem(device, tmp_path)
    message = oracles.openssl(
        *("cms", "-sign", "-nodetach", "-binary", "-outform", "DER", "-md", digest, *sid),
        *(("-stream",) if streaming else ("-noindef",)),
        *("-signer", pem, "-inkey", key),
        stdin=CONTENT * 1000,
    )
    assert (message[1] == 0x80) is streaming
    found = verified(message)
    assert found.content == CONTENT * 1000
    assert found.signer == device.certificate


def test_content_other_than_the_digested_is_refused(device: Identity) -> None:
    """The signature over the attributes holds; the content was put under it."""
    attributes = [*scep_attributes(), *cms_attributes(b"another content")]
    refused = refusal(signed(CONTENT, device, attributes))
    assert refused is FailInfo.BAD_MESSAGE_CHECK


@pytest.mark.parametrize(
    "value",
    [
        messages.tlv(4, DIGEST[:-1]),
        messages.tlv(4, DIGEST + b"\0"),
        messages.tlv(4),
        messages.tlv(0x0C, DIGEST),
        messages.tlv(4, hashlib.sha1(CONTENT).digest()),
    ],
    ids=["shorter", "longer", "empty", "another type", "another digest"],
)
def test_message_digest_must_be_the_digest_exactly(device: Identity, value: bytes) -> None:
    attributes = [attribute(CONTENT_TYPE, DATA), attribute(MESSAGE_DIGEST, value)]
    assert refusal(signed(CONTENT, device, attributes)) is FailInfo.BAD_MESSAGE_CHECK


def test_missing_message_digest_is_refused(device: Identity) -> None:
    attributes = [*scep_attributes(), attribute(CONTENT_TYPE, DATA)]
    assert refusal(signed(CONTENT, device, attributes)) is FailInfo.BAD_MESSAGE_CHECK


def test_missing_content_type_is_tolerated(device: Identity) -> None:
    """Old libscep leaves it out; what is signed names the content's type anyway."""
    attributes = [*scep_attributes(), attribute(MESSAGE_DIGEST, messages.tlv(4, DIGEST))]
    signed_data.verify(read(signed(CONTENT, device, attributes)))


@pytest.mark.parametrize(
    "value", [messages.SIGNED, messages.tlv(4, DATA[2:])], ids=["another", "another tag"]
)
def test_content_type_that_differs_is_refused(device: Identity, value: bytes) -> None:
    attributes = [
        attribute(CONTENT_TYPE, value),
        attribute(MESSAGE_DIGEST, messages.tlv(4, DIGEST)),
    ]
    assert refusal(signed(CONTENT, device, attributes)) is FailInfo.BAD_MESSAGE_CHECK


def test_tampered_signature_is_refused(device: Identity) -> None:
    sign = messages.rsa_sign(device.key)

    def flipped(data: bytes) -> bytes:
        signature = sign(data)
        return signature[:-1] + bytes([signature[-1] ^ 1])

    assert refusal(signed(CONTENT, device, sign=flipped)) is FailInfo.BAD_MESSAGE_CHECK


@pytest.mark.parametrize("size", [0, 1, 255, 257, 512])
def test_signature_of_another_size_is_refused(device: Identity, size: int) -> None:
    message = signed(CONTENT, device, sign=lambda _: b"\x01" * size)
    assert refusal(message) is FailInfo.BAD_MESSAGE_CHECK


def test_signature_of_another_key_is_refused(device: Identity, old_ra: Identity) -> None:
    message = signed(CONTENT, device, sign=messages.rsa_sign(old_ra.key))
    assert refusal(message) is FailInfo.BAD_MESSAGE_CHECK


def test_signature_over_the_content_itself_is_refused(device: Identity) -> None:
    """With signed attributes present only they are signed (RFC 5652 s5.4)."""
    sign = messages.rsa_sign(device.key)
    message = signed(CONTENT, device, sign=lambda _: sign(CONTENT))
    assert refusal(message) is FailInfo.BAD_MESSAGE_CHECK


def test_signature_over_the_implicit_tag_is_refused(device: Identity) -> None:
    """What is signed is the SET OF, not the `[0]` that stands in the message."""
    sign = messages.rsa_sign(device.key)
    message = signed(CONTENT, device, sign=lambda data: sign(b"\xa0" + data[1:]))
    assert refusal(message) is FailInfo.BAD_MESSAGE_CHECK


def test_swapped_content_under_a_valid_signature_is_refused(device: Identity) -> None:
    message = signed(CONTENT, device)
    swapped = message.replace(messages.tlv(4, CONTENT), messages.tlv(4, CONTENT[::-1]))
    assert swapped != message
    assert refusal(swapped) is FailInfo.BAD_MESSAGE_CHECK


def test_changed_attribute_under_a_valid_signature_is_refused(device: Identity) -> None:
    message = signed(CONTENT, device)
    changed = message.replace(messages.TRANSACTION, messages.TRANSACTION[::-1])
    assert changed != message
    assert refusal(changed) is FailInfo.BAD_MESSAGE_CHECK


def test_attributes_signed_and_sent_unsorted_verify(device: Identity) -> None:
    attributes = sorted([*scep_attributes(), *cms_attributes(CONTENT)], reverse=True)
    verified(signed(CONTENT, device, attributes, sort=False))


def test_attributes_signed_sorted_and_sent_unsorted_verify(device: Identity) -> None:
    attributes = sorted([*scep_attributes(), *cms_attributes(CONTENT)], reverse=True)
    verified(signed(CONTENT, device, attributes, sort=False, sign_sorted=True))


def test_attributes_signed_in_a_third_order_are_refused(device: Identity) -> None:
    attributes = sorted([*scep_attributes(), *cms_attributes(CONTENT)])
    sign = messages.rsa_sign(device.key)
    message = signed(
        CONTENT, device, attributes, sign=lambda _: sign(messages.tlv(SET, *attributes[::-1]))
    )
    assert refusal(message) is FailInfo.BAD_MESSAGE_CHECK


def test_signed_attributes_are_kept_as_received(device: Identity) -> None:
    attributes = sorted([*scep_attributes(), *cms_attributes(CONTENT)], reverse=True)
    found = read(signed(CONTENT, device, attributes, sort=False))
    assert found.signed_attrs == b"".join(attributes)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_signer_is_found_by_issuer_and_serial_wherever_it_stands(
    device: Identity, ra: Identity, old_ra: Identity, position: int
) -> None:
    certificates = [ra.der, old_ra.der]
    certificates.insert(position, device.der)
    found = verified(signed(CONTENT, device, certificates=certificates))
    assert found.signer == device.certificate
    assert found.certificates == tuple(certificates)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_signer_is_found_by_key_id_wherever_it_stands(
    device: Identity, ra: Identity, old_ra: Identity, position: int
) -> None:
    certificates = [ra.der, old_ra.der]
    certificates.insert(position, device.der)
    message = signed(CONTENT, device, sid=key_id_sid(device), certificates=certificates)
    assert verified(message).signer == device.certificate


def test_certificate_of_the_same_name_and_another_serial_is_not_the_signer(
    device: Identity, ra: Identity
) -> None:
    """As after a renewal: one key and one name, two certificates."""
    twin = Identity(
        device.key,
        certificate("device", device.key.public_key(), None, 0x7002).sign(
            device.key, hashes.SHA256()
        ),
    )
    message = signed(CONTENT, device, certificates=[twin.der, ra.der, device.der])
    assert verified(message).signer == device.certificate


@pytest.mark.parametrize("by_key_id", [False, True])
def test_signer_without_its_certificate_is_refused(
    device: Identity,
    ra: Identity,
    by_key_id: bool,  # noqa: FBT001
) -> None:
    sid = key_id_sid(device) if by_key_id else None
    for certificates in ([], [ra.der]):
        with pytest.raises(ScepError):
            read(signed(CONTENT, device, sid=sid, certificates=certificates))


def test_certificates_of_other_kinds_are_passed_over(device: Identity) -> None:
    """An attribute certificate and an `other` (RFC 5652 s10.2.2)."""
    others = [messages.tlv(0xA2, messages.tlv(SEQ)), messages.tlv(0xA3, oid("1.2.3"))]
    message = signed(CONTENT, device, certificates=[*others, device.der])
    assert verified(message).certificates == (device.der,)


def test_hundreds_of_certificates_are_refused(device: Identity, ra: Identity) -> None:
    with pytest.raises(ScepError):
        read(signed(CONTENT, device, certificates=[*[ra.der] * 200, device.der]))


def test_crls_are_passed_over(device: Identity) -> None:
    message = signed(CONTENT, device)
    body = Der(message).enter(SEQ)
    body.element()
    inner = body.enter(0xA0).enter(SEQ)
    parts = [inner.element() for _ in range(5)]
    with_crls = messages.tlv(SEQ, *parts[:4], messages.tlv(0xA1, messages.tlv(SEQ)), parts[4])
    verified(messages.tlv(SEQ, messages.SIGNED, messages.tlv(0xA0, with_crls)))


@pytest.mark.parametrize("dotted", ["1.2.840.113549.2.2", "2.16.840.1.101.3.4.2.9", "1.2.3"])
def test_unknown_digest_is_bad_alg_and_read_first(device: Identity, dotted: str) -> None:
    """It can be answered: reading does not fail, only verification does."""
    algorithm = messages.tlv(SEQ, oid(dotted), NULL)
    message = signed(CONTENT, device, digest_algorithm=algorithm)
    assert read(message).digest is None
    assert refusal(message) is FailInfo.BAD_ALG


@pytest.mark.parametrize("dotted", ["1.2.840.113549.1.1.2", "1.3.101.112", "1.2.840.10040.4.3"])
def test_unknown_signature_algorithm_is_bad_alg(device: Identity, dotted: str) -> None:
    """MD2 with RSA, Ed25519, DSA."""
    algorithm = messages.tlv(SEQ, oid(dotted), NULL)
    refused = refusal(signed(CONTENT, device, signature_algorithm=algorithm))
    assert refused is FailInfo.BAD_ALG


def with_public_key(device: Identity, public: bytes) -> bytes:
    """The device's message with another key in its certificate."""
    walk = Der(device.der).enter(SEQ)
    parts = Der(walk.element(SEQ)).enter(SEQ)
    fields = []
    while parts.more():
        field = parts.element()
        fields.append(public if field == spki(device.key.public_key()) else field)
    made = messages.tlv(SEQ, messages.tlv(SEQ, *fields), walk.rest())
    return signed(CONTENT, device, certificates=[made])


@pytest.mark.parametrize(
    "public",
    [
        messages.tlv(SEQ),
        messages.tlv(SEQ, messages.RSA, messages.tlv(3, b"\0")),
        messages.tlv(SEQ, messages.RSA, messages.tlv(3, b"\0", messages.tlv(SEQ, integer(0)))),
        messages.tlv(SEQ, messages.tlv(SEQ, oid("1.2.3")), messages.tlv(3, b"\0abc")),
        messages.tlv(
            SEQ,
            messages.RSA,
            messages.tlv(3, b"\0", messages.tlv(SEQ, integer((1 << 8200) + 1), integer(65537))),
        ),
    ],
    ids=["empty", "no key", "half a key", "another algorithm", "8201 bits"],
)
def test_signer_key_that_is_no_usable_rsa_key_is_bad_alg(device: Identity, public: bytes) -> None:
    assert refusal(with_public_key(device, public)) is FailInfo.BAD_ALG


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, (1 << 64) + 1, (1 << 4000) + 1])
@pytest.mark.parametrize("modulus", [0, 1, 15, (1 << 2047) + 1, 1 << 2047, (1 << 4095) + 1])
def test_odd_rsa_keys_are_refused_in_words(device: Identity, modulus: int, exponent: int) -> None:
    numbers = messages.tlv(SEQ, integer(modulus), integer(exponent))
    public = messages.tlv(SEQ, messages.RSA, messages.tlv(3, b"\0", numbers))
    refused = refusal(with_public_key(device, public))
    assert refused in (FailInfo.BAD_ALG, FailInfo.BAD_MESSAGE_CHECK)


def test_attribute_twice_is_refused(device: Identity) -> None:
    attributes = [
        *scep_attributes(),
        attribute(messages.SCEP + "7", tlv(PRINTABLE_STRING, b"another")),
        *cms_attributes(CONTENT),
    ]
    with pytest.raises(ScepError):
        read(signed(CONTENT, device, attributes))


@pytest.mark.parametrize("values", [(), (b"\x13\x01a", b"\x13\x01b")], ids=["none", "two"])
def test_attribute_without_exactly_one_value_is_refused(
    device: Identity, values: tuple[bytes, ...]
) -> None:
    attributes = [attribute("1.2.3", *values), *scep_attributes(), *cms_attributes(CONTENT)]
    with pytest.raises(ScepError):
        read(signed(CONTENT, device, attributes))


def test_absent_content_is_empty_content(device: Identity) -> None:
    """As the RFC wants a FAILURE, and some servers send it."""
    assert verified(signed(b"", device, econtent=b"")).content == b""


def test_content_in_segments_with_definite_lengths_is_joined(device: Identity) -> None:
    """DER but for the constructed OCTET STRING."""
    halves = messages.tlv(4, CONTENT[:5]) + messages.tlv(4, CONTENT[5:])
    econtent = messages.tlv(0xA0, messages.tlv(0x24, halves))
    assert verified(signed(CONTENT, device, econtent=econtent)).content == CONTENT


def test_two_signers_are_refused(device: Identity) -> None:
    message = signed(CONTENT, device)
    outer = Der(message).enter(SEQ)
    outer.element()
    inner = outer.enter(0xA0).enter(SEQ)
    *parts, infos = [inner.element() for _ in range(5)]
    info = Der(infos).value(SET)
    twice = messages.tlv(SEQ, *parts, messages.tlv(SET, info, info))
    none = messages.tlv(SEQ, *parts, messages.tlv(SET))
    for body in (twice, none):
        with pytest.raises(ScepError):
            read(messages.tlv(SEQ, messages.SIGNED, messages.tlv(0xA0, body)))


@pytest.mark.parametrize("kind", ["1.2.840.113549.1.7.1", "1.2.840.113549.1.7.3", "1.2.3"])
def test_another_content_info_is_refused(kind: str) -> None:
    with pytest.raises(ScepError):
        read(messages.tlv(SEQ, oid(kind), messages.tlv(0xA0, messages.tlv(SEQ))))


@pytest.mark.parametrize("digest", algorithms.DIGESTS.values(), ids=lambda d: d.name)
@pytest.mark.parametrize("content", [b"", CONTENT, bytes(70_000)], ids=["empty", "short", "long"])
def test_openssl_verifies_what_is_written(
    device: Identity, digest: algorithms.Digest, content: bytes
) -> None:
    extra = signed_data.attribute(oid("1.2.3.4"), tlv(OCTET_STRING, b"x"))
    written = signed_data.write_signed_data(content, [extra], digest, device.signer)
    assert oracles.openssl_verified(written) == content
    assert verified(written).content == content


@pytest.mark.parametrize("digest", algorithms.DIGESTS.values(), ids=lambda d: d.name)
def test_written_fields_are_what_clients_expect(
    device: Identity, digest: algorithms.Digest
) -> None:
    """Signed with rsaEncryption (strongSwan), NULL parameters, sorted attributes."""
    extra = [
        signed_data.attribute(oid(messages.SCEP + last), tlv(PRINTABLE_STRING, b"z" * size))
        for last, size in (("7", 40), ("2", 2), ("3", 1))
    ]
    written = signed_data.write_signed_data(CONTENT, extra, digest, device.signer)
    data = oracles.signed_data(written)
    assert data["version"].native == "v1"
    (listed,) = data["digest_algorithms"]
    (info,) = data["signer_infos"]
    for algorithm in (listed, info["digest_algorithm"]):
        assert algorithm["algorithm"].native == digest.name
        assert algorithm["parameters"].dump() == NULL
    assert info["version"].native == "v1"
    assert info["sid"].name == "issuer_and_serial_number"
    assert info["sid"].chosen.dump() == device.issuer_and_serial
    assert info["signature_algorithm"].dump() == messages.RSA
    assert info["unsigned_attrs"].native is None
    encoded = [each.dump() for each in info["signed_attrs"]]
    assert encoded == sorted(encoded)
    assert len(encoded) == len(extra) + 2
    attributes = oracles.attributes(info)
    assert attributes[CONTENT_TYPE] == (0x06, DATA[2:])
    assert attributes[MESSAGE_DIGEST] == (0x04, digest.of(CONTENT))
    assert data["encap_content_info"]["content_type"].native == "data"
    assert data["encap_content_info"]["content"].native == CONTENT
    assert oracles.certificates(data) == [device.der]
    assert data["crls"].native is None


def test_empty_content_is_written_as_present(device: Identity) -> None:
    """Absent content breaks certmonger."""
    written = signed_data.write_signed_data(b"", [], algorithms.SHA256, device.signer)
    encapsulated = oracles.signed_data(written)["encap_content_info"]
    assert encapsulated.dump() == messages.tlv(SEQ, DATA, messages.tlv(0xA0, b"\x04\x00"))


def test_written_message_is_strict_der(device: Identity) -> None:
    """Re-encoded by asn1crypto, SET OF sorted and all, not a byte changes."""
    extra = [signed_data.attribute(oid("1.2.3.4"), tlv(OCTET_STRING, bytes(300)))]
    written = signed_data.write_signed_data(CONTENT, extra, algorithms.SHA256, device.signer)
    data = oracles.signed_data(written)
    assert messages.tlv(SEQ, messages.SIGNED, data.dump(force=True)) == written


def issued(key: rsa.RSAPrivateKey, serial: int) -> bytes:
    made = certificate(f"c{serial}", key.public_key(), None, serial).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.DER)


def test_certificates_are_written_in_the_order_given(device: Identity) -> None:
    """Leaf first; a DER SET OF would be sorted, and devices take the first."""
    ordered = sorted(issued(device.key, serial) for serial in (1, 2, 3))
    for given in (ordered, ordered[::-1]):
        written = signed_data.write_certs_only(given)
        data = oracles.signed_data(written)
        assert oracles.certificates(data) == given
        assert data["version"].native == "v1"
        assert len(data["digest_algorithms"]) == 0
        assert len(data["signer_infos"]) == 0
        assert data["encap_content_info"]["content"].native is None
        assert signed_data.read_certs_only(Der(written)) == tuple(given)


def test_openssl_reads_the_written_certificates_in_order(device: Identity) -> None:
    given = sorted((issued(device.key, serial) for serial in (1, 2, 3)), reverse=True)
    pem = oracles.openssl(
        *("pkcs7", "-inform", "DER", "-print_certs"), stdin=signed_data.write_certs_only(given)
    )
    found = [
        made.public_bytes(serialization.Encoding.DER)
        for made in x509.load_pem_x509_certificates(pem)
    ]
    assert found == given


def test_certs_only_of_openssl_is_read(device: Identity, ra: Identity, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(device.pem + ra.pem)
    message = oracles.openssl(
        "crl2pkcs7", "-nocrl", "-certfile", both, "-outform", "DER", stdin=b""
    )
    assert signed_data.read_certs_only(Der(message)) == (device.der, ra.der)


def test_certs_only_of_any_form_is_read(device: Identity) -> None:
    assert signed_data.read_certs_only(Der(certs_only())) == ()
    body = messages.tlv(
        SEQ, integer(1), messages.tlv(SET), messages.tlv(SEQ, DATA), messages.tlv(SET)
    )
    without = messages.tlv(SEQ, messages.SIGNED, messages.tlv(0xA0, body))
    assert signed_data.read_certs_only(Der(without)) == ()
    many = [device.der] * 17
    with pytest.raises(ScepError):
        signed_data.read_certs_only(Der(certs_only(*many)))
