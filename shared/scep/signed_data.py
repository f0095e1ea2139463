"""SignedData: parse, verify over the bytes as received, and write (RFC 5652 s5)."""

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
    """A SignedData with exactly one signer; `signer` is its certificate.

    `attributes` maps each signed attribute's OID (as DER) to the (tag, contents) of its single
    value. `signed_attrs` is the contents of the SET exactly as received, `signature_algorithm` the
    whole AlgorithmIdentifier. `digest` is None for an unsupported algorithm, so that the refusal
    can still name the transaction.
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
    """A key that signs CMS messages, its certificate and its signature scheme."""

    key: SigningKey
    certificate: Certificate
    scheme: Scheme = PKCS1V15_SIGNATURE


def read_signed_data(der: Der, known: Sequence[bytes] = ()) -> SignedData:
    """Parse the SignedData of a ContentInfo, without verifying it.

    `known` are certificates (DER) to search for the signer's if the message does not include it
    (RFC 5652 s5.1 leaves that open).
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
    """Parse a SignerInfo (RFC 5652 s5.3) and combine it with what it signs."""
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
    """Return (contentType, content) of an EncapsulatedContentInfo; absent content is empty."""
    content_type = info.element(OID)
    if not info.more():
        return content_type, b""
    return content_type, octets(info.enter(CONSTRUCTED_0))


def _certificates(der: Der) -> tuple[bytes, ...]:
    """Return the certificates of a CertificateSet; other choices are skipped (RFC 5652 s10.2.2)."""
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
    """Return the certificate that the SignerIdentifier names, in any position of the set."""
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
    """Parse the certificates and skip malformed ones, which must not hide the signer's."""
    found = []
    for der in certificates:
        try:
            found.append(read_certificate(der))
        except ScepError:
            continue
    return found


def _attributes(der: Der) -> dict[bytes, tuple[int, bytes]]:
    """Return signed attributes by OID; each must occur once with one value (RFC 5652 s11)."""
    attributes: dict[bytes, tuple[int, bytes]] = {}
    while der.more():
        attribute = der.enter(SEQUENCE)
        oid = attribute.element(OID)
        values = attribute.enter(SET)
        if oid in attributes:
            raise ScepError("duplicate attribute")
        attributes[oid] = values.any()
        values.finish()
    return attributes


def verify(signed: SignedData) -> None:
    """Check contentType, messageDigest and the signature (RFC 5652 s5.4, s5.6, s11.1, s11.2).

    The signature is checked over the attributes as received, then in DER order. Raises `ScepError`.
    """
    if signed.digest is None:
        raise ScepError("unsupported digest", FailInfo.BAD_ALG)
    # RFC 5652 s11.1 requires the attribute; libscep 0.08 omits it, and eContentType is known.
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
    """Return the same SET OF in DER order."""
    der, elements = Der(attributes).enter(SET), []
    while der.more():
        elements.append(der.element())
    return set_of(*elements)


def attribute(oid: bytes, value: bytes) -> bytes:
    """Encode an Attribute with one value."""
    return tlv(SEQUENCE, oid, tlv(SET, value))


def write_signed_data(
    content: bytes | None,
    attributes: Sequence[bytes],
    digest: Digest,
    signer: Signer,
    beside: Sequence[bytes] = (),
    unsigned: Sequence[bytes] = (),
) -> bytes:
    """Write a SignedData over `content` with the signer's certificate, as strict DER.

    `beside` are certificates (DER) to include after the signer's, `unsigned` are attributes that
    the signature does not cover. If `content` is None, eContent is
    omitted, which some clients do not treat like an empty one.
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
        *([tlv(CONSTRUCTED_0 | 1, *sorted(unsigned))] if unsigned else []),
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
    """Write a degenerate SignedData with certificates, in the order given (RFC 8894 s3.4)."""
    return _degenerate(tlv(CONSTRUCTED_0, *certificates))


def write_crl_only(crl: bytes) -> bytes:
    """Write a degenerate SignedData with a CRL, for GetCRL (RFC 8894 s3.4, s4.6)."""
    return _degenerate(tlv(_CRLS, crl))


def _degenerate(holds: bytes) -> bytes:
    parts = (integer(1), tlv(SET), tlv(SEQUENCE, DATA), holds, tlv(SET))
    return write_content_info(SIGNED_DATA, tlv(SEQUENCE, *parts))


def read_certs_only(der: Der) -> tuple[bytes, ...]:
    """Return the certificates of a degenerate SignedData."""
    body = _open_degenerate(der)
    return _certificates(body.enter(CONSTRUCTED_0)) if body.next_is(CONSTRUCTED_0) else ()


def read_crl_only(der: Der) -> tuple[bytes, ...]:
    """Return the CRLs of a degenerate SignedData."""
    body = _open_degenerate(der)
    body.skip_if(CONSTRUCTED_0)
    return _certificates(body.enter(_CRLS)) if body.next_is(_CRLS) else ()


def _open_degenerate(der: Der) -> Der:
    """Return a cursor positioned before `certificates`."""
    body = content_info(der, SIGNED_DATA).enter(SEQUENCE)
    body.value(INTEGER)
    body.enter(SET)
    body.enter(SEQUENCE)
    return body
