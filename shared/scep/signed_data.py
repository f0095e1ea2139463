"""SignedData: who signed what, checked over the bytes as received (RFC 5652 s5)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shared.scep.algorithms import DIGESTS, Digest
from shared.scep.asn1 import (
    CONSTRUCTED_0,
    CONTEXT_0,
    INTEGER,
    OCTET_STRING,
    OID,
    SEQUENCE,
    SET,
    Der,
    integer,
    object_identifier,
    set_of,
    tlv,
)
from shared.scep.certificate import Certificate, read_certificate
from shared.scep.cms import (
    DATA,
    SIGNED_DATA,
    content_info,
    octets,
    write_content_info,
)
from shared.scep.errors import FailInfo, ScepError
from shared.scep.schemes import (
    PKCS1V15_SIGNATURE,
    Scheme,
    SigningKey,
    public_key,
    read_scheme,
    sign,
    verifies,
)

CONTENT_TYPE: Final = object_identifier("1.2.840.113549.1.9.3")
MESSAGE_DIGEST: Final = object_identifier("1.2.840.113549.1.9.4")
_CRLS: Final = CONSTRUCTED_0 | 1
_MAX_CERTIFICATES: Final = 16


@dataclass(frozen=True, slots=True)
class SignedData:
    """A SignedData with one signer whose certificate came along (`signer`).

    `attributes` maps each signed attribute's OID (as DER) to the (tag, contents) of its one
    value; `signed_attrs` is the contents of the SET exactly as received, `signature_algorithm` the
    whole AlgorithmIdentifier. `digest` is None where it is none of ours, so that the refusal can
    still name the transaction.
    """

    content_type: bytes
    content: bytes
    certificates: tuple[bytes, ...]
    signer: Certificate
    digest: Digest | None
    signature_algorithm: bytes
    signature: bytes
    signed_attrs: bytes
    attributes: dict[bytes, tuple[int, bytes]]


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that signs CMS messages, the certificate that names it, and how it signs."""

    key: SigningKey
    certificate: Certificate
    scheme: Scheme = PKCS1V15_SIGNATURE


def read_signed_data(der: Der, known: Sequence[bytes] = ()) -> SignedData:
    """The SignedData of a ContentInfo, nothing verified yet.

    `known` are certificates (DER) among which the signer's is looked for where it did not come
    along (RFC 5652 s5.1 leaves that open).
    """
    body = content_info(der, SIGNED_DATA).enter(SEQUENCE)
    body.value(INTEGER)
    body.enter(SET)
    content_type, content = _encapsulated(body.enter(SEQUENCE))
    certificates = _certificates(body.enter(CONSTRUCTED_0)) if body.next_is(CONSTRUCTED_0) else ()
    body.skip_if(_CRLS)
    signers = body.enter(SET)
    info = signers.enter(SEQUENCE)
    signers.finish()
    return _signer_info(info, content_type, content, certificates, known)


def _signer_info(
    info: Der,
    content_type: bytes,
    content: bytes,
    certificates: tuple[bytes, ...],
    known: Sequence[bytes],
) -> SignedData:
    """SignerInfo (RFC 5652 s5.3) and what it signs."""
    info.value(INTEGER)
    signer = _find_signer(info, (*certificates, *known))
    digest = DIGESTS.get(info.enter(SEQUENCE).element(OID))
    signed_attrs = info.value(CONSTRUCTED_0)
    signature_algorithm = info.element(SEQUENCE)
    signature = info.value(OCTET_STRING)
    return SignedData(
        content_type,
        content,
        certificates,
        signer,
        digest,
        signature_algorithm,
        signature,
        signed_attrs,
        _attributes(Der(signed_attrs)),
    )


def _encapsulated(info: Der) -> tuple[bytes, bytes]:
    """(contentType, content) of an EncapsulatedContentInfo; a missing content is empty."""
    content_type = info.element(OID)
    if not info.more():
        return content_type, b""
    return content_type, octets(info.enter(CONSTRUCTED_0))


def _certificates(der: Der) -> tuple[bytes, ...]:
    """The certificates of a CertificateSet; other choices are passed over (RFC 5652 s10.2.2)."""
    found = []
    while der.more():
        if der.next_is(SEQUENCE):
            found.append(der.element())
        else:
            der.element()
    if len(found) > _MAX_CERTIFICATES:
        raise ScepError("too many certificates")
    return tuple(found)


def _find_signer(info: Der, certificates: tuple[bytes, ...]) -> Certificate:
    """The certificate that the SignerIdentifier names, wherever it stands in the set."""
    if info.next_is(CONTEXT_0):
        key_id = info.value(CONTEXT_0)
        named = [c for c in _readable(certificates) if c.key_id == key_id]
    else:
        sid = info.enter(SEQUENCE)
        name = sid.element(SEQUENCE), sid.value(INTEGER)
        named = [c for c in _readable(certificates) if (c.issuer, c.serial) == name]
    if not named:
        raise ScepError("signer certificate missing")
    return named[0]


def _readable(certificates: tuple[bytes, ...]) -> list[Certificate]:
    """The certificates that can be walked; one that cannot must not hide the signer's."""
    found = []
    for der in certificates:
        try:
            found.append(read_certificate(der))
        except ScepError:
            continue
    return found


def _attributes(der: Der) -> dict[bytes, tuple[int, bytes]]:
    """Signed attributes by OID; each must stand once and hold one value (RFC 5652 s11)."""
    attributes: dict[bytes, tuple[int, bytes]] = {}
    while der.more():
        attribute = der.enter(SEQUENCE)
        oid = attribute.element(OID)
        values = attribute.enter(SET)
        if oid in attributes:
            raise ScepError("attribute twice")
        attributes[oid] = values.any()
        values.finish()
    return attributes


def verify(signed: SignedData) -> None:
    """Check contentType, messageDigest and the signature (RFC 5652 s5.4, s5.6, s11.1, s11.2).

    The signature is checked over the attributes as received, then over their sorted form.
    """
    if signed.digest is None:
        raise ScepError("unsupported digest", FailInfo.BAD_ALG)
    # RFC 5652 s11.1 wants the attribute; libscep 0.08 leaves it out, and eContentType is known.
    expected = (OID, _contents(signed.content_type))
    if signed.attributes.get(CONTENT_TYPE, expected) != expected:
        raise ScepError("contentType attribute is not eContentType")
    if signed.attributes.get(MESSAGE_DIGEST) != (OCTET_STRING, signed.digest.of(signed.content)):
        raise ScepError("messageDigest missing or different")
    scheme = read_scheme(signed.signature_algorithm, signed.digest)
    key = public_key(signed.signer.spki)
    received = tlv(SET, signed.signed_attrs)
    if not (
        verifies(key, scheme, signed.digest, signed.signature, received)
        or verifies(key, scheme, signed.digest, signed.signature, _sorted(received))
    ):
        raise ScepError("signature does not verify")


def _contents(element: bytes) -> bytes:
    return Der(element).any()[1]


def _sorted(attributes: bytes) -> bytes:
    """The same SET OF in DER order."""
    der, elements = Der(attributes).enter(SET), []
    while der.more():
        elements.append(der.element())
    return set_of(*elements)


def attribute(oid: bytes, value: bytes) -> bytes:
    """An Attribute with one value."""
    return tlv(SEQUENCE, oid, tlv(SET, value))


def write_signed_data(
    content: bytes | None,
    attributes: Sequence[bytes],
    digest: Digest,
    signer: Signer,
    beside: Sequence[bytes] = (),
) -> bytes:
    """A SignedData over `content` with the signer's certificate, as strict DER.

    `beside` are certificates (DER) that come along with the signer's. Content None leaves eContent
    out, which is not the same as an empty one to every client.
    """
    attributes = (
        *attributes,
        attribute(CONTENT_TYPE, DATA),
        attribute(MESSAGE_DIGEST, tlv(OCTET_STRING, digest.of(content or b""))),
    )
    body = b"".join(sorted(attributes))
    signature = sign(signer.key, signer.scheme, digest, tlv(SET, body))
    signer_info = tlv(
        SEQUENCE,
        integer(1),
        signer.certificate.issuer_and_serial(),
        digest.identifier(),
        tlv(CONSTRUCTED_0, body),
        signer.scheme.identifier(digest),
        tlv(OCTET_STRING, signature),
    )
    encapsulated = [] if content is None else [tlv(CONSTRUCTED_0, tlv(OCTET_STRING, content))]
    signed = tlv(
        SEQUENCE,
        integer(1),
        tlv(SET, digest.identifier()),
        tlv(SEQUENCE, DATA, *encapsulated),
        tlv(CONSTRUCTED_0, signer.certificate.der, *beside),
        tlv(SET, signer_info),
    )
    return write_content_info(SIGNED_DATA, signed)


def write_certs_only(certificates: Sequence[bytes]) -> bytes:
    """A degenerate SignedData that holds certificates, in the order given (RFC 8894 s3.4)."""
    return _degenerate(tlv(CONSTRUCTED_0, *certificates))


def write_crl_only(crl: bytes) -> bytes:
    """A degenerate SignedData that holds a CRL: the answer to GetCRL (RFC 8894 s3.4, s4.6)."""
    return _degenerate(tlv(_CRLS, crl))


def _degenerate(holds: bytes) -> bytes:
    parts = (integer(1), tlv(SET), tlv(SEQUENCE, DATA), holds, tlv(SET))
    return write_content_info(SIGNED_DATA, tlv(SEQUENCE, *parts))


def read_certs_only(der: Der) -> tuple[bytes, ...]:
    """The certificates of a degenerate SignedData."""
    body = _open_degenerate(der)
    return _certificates(body.enter(CONSTRUCTED_0)) if body.next_is(CONSTRUCTED_0) else ()


def read_crl_only(der: Der) -> tuple[bytes, ...]:
    """The CRLs of a degenerate SignedData."""
    body = _open_degenerate(der)
    body.skip_if(CONSTRUCTED_0)
    return _certificates(body.enter(_CRLS)) if body.next_is(_CRLS) else ()


def _open_degenerate(der: Der) -> Der:
    """A cursor before `certificates`."""
    body = content_info(der, SIGNED_DATA).enter(SEQUENCE)
    body.value(INTEGER)
    body.enter(SET)
    body.enter(SEQUENCE)
    return body
