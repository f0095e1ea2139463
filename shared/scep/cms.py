"""CMS as SCEP uses it: SignedData and EnvelopedData, read and written (RFC 5652)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from shared.scep import ber
from shared.scep.algorithms import (
    DIGESTS,
    RSA_ENCRYPTION,
    RSA_SIGNATURES,
    ContentCipher,
    Digest,
    KeyTransport,
    read_cipher,
    read_key_transport,
)
from shared.scep.asn1 import (
    CONSTRUCTED_0,
    CONTEXT_0,
    INTEGER,
    NULL,
    OCTET_STRING,
    OID,
    SEQUENCE,
    SET,
    Der,
    integer,
    object_identifier,
    tlv,
)
from shared.scep.certificate import Certificate, read_certificate
from shared.scep.errors import FailInfo, ScepError

DATA: Final = object_identifier("1.2.840.113549.1.7.1")
SIGNED_DATA: Final = object_identifier("1.2.840.113549.1.7.2")
ENVELOPED_DATA: Final = object_identifier("1.2.840.113549.1.7.3")
CONTENT_TYPE: Final = object_identifier("1.2.840.113549.1.9.3")
MESSAGE_DIGEST: Final = object_identifier("1.2.840.113549.1.9.4")
_EXTENDED_CERTIFICATE: Final = CONSTRUCTED_0
_CRLS: Final = CONSTRUCTED_0 | 1
_SEGMENTS: Final = 0x24
_MAX_RECIPIENTS: Final = 16
_MAX_CERTIFICATES: Final = 16
_MAX_RSA_BITS: Final = 8192
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class SignedData:
    """A SignedData with one signer whose certificate came along (`signer`).

    `attributes` maps each signed attribute's OID (as DER) to the (tag, contents) of its one
    value; `signed_attrs` is the contents of the SET exactly as received. `digest` is None where it
    is none of ours, so that the refusal can still name the transaction.
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
class Recipient:
    """One KeyTransRecipientInfo: `issuer` + `serial` or `key_id`, and the encrypted key."""

    issuer: bytes | None
    serial: bytes | None
    key_id: bytes | None
    transport: KeyTransport
    encrypted_key: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """An EnvelopedData: its recipients and the content, still encrypted."""

    recipients: tuple[Recipient, ...]
    cipher: ContentCipher
    iv: bytes
    ciphertext: bytes

    def decrypt(self, key: bytes) -> bytes:
        """The content; any failure is the same `ScepError`."""
        if len(key) != self.cipher.key_size:
            raise ScepError("content does not decrypt")
        return self.cipher.decrypt(key, self.iv, self.ciphertext)


def read_der_or_ber(data: bytes, read: Callable[[Der], _T]) -> _T:
    """What `read` makes of `data`; where strict DER is refused, of its BER made DER.

    CR and LF after the message are ignored: some clients append them.
    """
    try:
        return _read_all(data, read)
    except ScepError as refused:
        if refused.fail_info is FailInfo.BAD_ALG:
            raise
        return _read_all(ber.normalise(data), read)


def _read_all(data: bytes, read: Callable[[Der], _T]) -> _T:
    der = Der(data)
    value = read(der)
    if der.rest().strip(b"\r\n"):
        raise ScepError("bytes after the message")
    return value


def content_info(der: Der, content_type: bytes) -> Der:
    """Enter the content of a ContentInfo of this type."""
    info = der.enter(SEQUENCE)
    if info.element(OID) != content_type:
        raise ScepError("unexpected content type")
    return info.enter(CONSTRUCTED_0)


def read_signed_data(der: Der) -> SignedData:
    """The SignedData of a ContentInfo, nothing verified yet."""
    body = content_info(der, SIGNED_DATA).enter(SEQUENCE)
    body.value(INTEGER)
    body.enter(SET)
    content_type, content = _encapsulated(body.enter(SEQUENCE))
    certificates = _certificates(body.enter(CONSTRUCTED_0)) if body.next_is(CONSTRUCTED_0) else ()
    body.skip_if(_CRLS)
    signers = body.enter(SET)
    info = signers.enter(SEQUENCE)
    signers.finish()
    return _signer_info(info, content_type, content, certificates)


def _signer_info(
    info: Der, content_type: bytes, content: bytes, certificates: tuple[bytes, ...]
) -> SignedData:
    """SignerInfo (RFC 5652 s5.3) and what it signs."""
    info.value(INTEGER)
    signer = _find_signer(info, certificates)
    digest = DIGESTS.get(info.enter(SEQUENCE).element(OID))
    signed_attrs = info.value(CONSTRUCTED_0)
    signature_algorithm = info.enter(SEQUENCE).element(OID)
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


def octets(der: Der) -> bytes:
    """An OCTET STRING, also one in segments."""
    if der.next_is(_SEGMENTS):
        return _segments(der.enter(_SEGMENTS))
    return der.value(OCTET_STRING)


def _segments(der: Der) -> bytes:
    """The joined segments of a constructed OCTET STRING."""
    parts = []
    while der.more():
        parts.append(der.value(OCTET_STRING))
    return b"".join(parts)


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
        for der in certificates:
            if (found := read_certificate(der)).key_id == key_id:
                return found
        raise ScepError("signer certificate missing")
    sid = info.enter(SEQUENCE)
    issuer, serial = sid.element(SEQUENCE), sid.value(INTEGER)
    for der in certificates:
        found = read_certificate(der)
        if found.issuer == issuer and found.serial == serial:
            return found
    raise ScepError("signer certificate missing")


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
    if signed.attributes.get(CONTENT_TYPE) != (OID, _contents(signed.content_type)):
        raise ScepError("contentType attribute missing or different")
    if signed.attributes.get(MESSAGE_DIGEST) != (OCTET_STRING, signed.digest.of(signed.content)):
        raise ScepError("messageDigest missing or different")
    if signed.signature_algorithm not in RSA_SIGNATURES:
        raise ScepError("unsupported signature algorithm", FailInfo.BAD_ALG)
    if RSA_SIGNATURES[signed.signature_algorithm] not in (None, signed.digest):
        raise ScepError("signature algorithm names another digest")
    key = rsa_public_key(signed.signer.spki)
    received = tlv(SET, signed.signed_attrs)
    if not any(
        _verifies(key, signed.signature, form, signed.digest)
        for form in (received, _sorted(received))
    ):
        raise ScepError("signature does not verify")


def _contents(element: bytes) -> bytes:
    return Der(element).any()[1]


def _sorted(attributes: bytes) -> bytes:
    """The same SET OF in DER order."""
    der, elements = Der(attributes).enter(SET), []
    while der.more():
        elements.append(der.element())
    return tlv(SET, *sorted(elements))


def _verifies(key: rsa.RSAPublicKey, signature: bytes, data: bytes, digest: Digest) -> bool:
    try:
        key.verify(signature, data, padding.PKCS1v15(), digest.hash)
    except (InvalidSignature, ValueError):
        return False
    return True


def rsa_public_key(spki: bytes) -> rsa.RSAPublicKey:
    """The RSA key of a SubjectPublicKeyInfo; anything else is badAlg: no reply could reach it."""
    try:
        key = load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm):
        raise ScepError("unreadable public key", FailInfo.BAD_ALG) from None
    if not isinstance(key, rsa.RSAPublicKey):
        raise ScepError("key is not RSA", FailInfo.BAD_ALG)
    if key.key_size > _MAX_RSA_BITS:
        raise ScepError("RSA key is too large", FailInfo.BAD_ALG)
    return key


def read_envelope(data: bytes) -> Envelope:
    """The EnvelopedData of a ContentInfo, DER or BER."""
    return read_der_or_ber(data, _read_envelope)


def _read_envelope(der: Der) -> Envelope:
    body = content_info(der, ENVELOPED_DATA).enter(SEQUENCE)
    body.value(INTEGER)
    body.skip_if(CONSTRUCTED_0)  # originatorInfo
    infos, recipients = body.enter(SET), []
    while infos.more():
        if infos.next_is(SEQUENCE):
            recipients.append(_recipient(infos.enter(SEQUENCE)))
        else:
            infos.element()
        if len(recipients) > _MAX_RECIPIENTS:
            raise ScepError("too many recipients")
    content = body.enter(SEQUENCE)
    content.element(OID)
    cipher, iv = read_cipher(content)
    if content.next_is(CONTEXT_0):
        return Envelope(tuple(recipients), cipher, iv, content.value(CONTEXT_0))
    # Go's encoders write [0] constructed around an OCTET STRING; so does BER in segments.
    return Envelope(tuple(recipients), cipher, iv, _segments(content.enter(CONSTRUCTED_0)))


def _recipient(info: Der) -> Recipient:
    """KeyTransRecipientInfo (RFC 5652 s6.2.1)."""
    info.value(INTEGER)
    issuer = serial = key_id = None
    if info.next_is(CONTEXT_0):
        key_id = info.value(CONTEXT_0)
    else:
        sid = info.enter(SEQUENCE)
        issuer, serial = sid.element(SEQUENCE), sid.value(INTEGER)
    transport = read_key_transport(info)
    return Recipient(issuer, serial, key_id, transport, info.value(OCTET_STRING))


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that signs CMS messages and the certificate that names it."""

    key: rsa.RSAPrivateKey
    certificate: Certificate


def write_content_info(content_type: bytes, content: bytes) -> bytes:
    """A ContentInfo."""
    return tlv(SEQUENCE, content_type, tlv(CONSTRUCTED_0, content))


def attribute(oid: bytes, value: bytes) -> bytes:
    """An Attribute with one value."""
    return tlv(SEQUENCE, oid, tlv(SET, value))


def write_signed_data(
    content: bytes, attributes: Sequence[bytes], digest: Digest, signer: Signer
) -> bytes:
    """A SignedData over `content` with the signer's certificate, as strict DER.

    The content is always present, be it empty, and signatureAlgorithm is rsaEncryption: absent
    content breaks certmonger, sha256WithRSAEncryption breaks strongSwan.
    """
    attributes = (
        *attributes,
        attribute(CONTENT_TYPE, DATA),
        attribute(MESSAGE_DIGEST, tlv(OCTET_STRING, digest.of(content))),
    )
    body = b"".join(sorted(attributes))
    signature = signer.key.sign(tlv(SET, body), padding.PKCS1v15(), digest.hash)
    signer_info = tlv(
        SEQUENCE,
        integer(1),
        signer.certificate.issuer_and_serial(),
        digest.identifier(),
        tlv(CONSTRUCTED_0, body),
        tlv(SEQUENCE, RSA_ENCRYPTION, NULL),
        tlv(OCTET_STRING, signature),
    )
    signed = tlv(
        SEQUENCE,
        integer(1),
        tlv(SET, digest.identifier()),
        tlv(SEQUENCE, DATA, tlv(CONSTRUCTED_0, tlv(OCTET_STRING, content))),
        tlv(CONSTRUCTED_0, signer.certificate.der),
        tlv(SET, signer_info),
    )
    return write_content_info(SIGNED_DATA, signed)


def write_certs_only(certificates: Sequence[bytes]) -> bytes:
    """A degenerate SignedData that holds certificates, in the order given (RFC 8894 s3.4)."""
    signed = tlv(
        SEQUENCE,
        integer(1),
        tlv(SET),
        tlv(SEQUENCE, DATA),
        tlv(CONSTRUCTED_0, *certificates),
        tlv(SET),
    )
    return write_content_info(SIGNED_DATA, signed)


def read_certs_only(der: Der) -> tuple[bytes, ...]:
    """The certificates of a degenerate SignedData."""
    body = content_info(der, SIGNED_DATA).enter(SEQUENCE)
    body.value(INTEGER)
    body.enter(SET)
    body.enter(SEQUENCE)
    return _certificates(body.enter(CONSTRUCTED_0)) if body.next_is(CONSTRUCTED_0) else ()


@dataclass(frozen=True, slots=True)
class Sealing:
    """How to encrypt an envelope: algorithms, and the key and IV to use once."""

    cipher: ContentCipher
    transport: KeyTransport
    key: bytes
    iv: bytes


def write_envelope(content: bytes, recipient: Certificate, sealing: Sealing) -> bytes:
    """An EnvelopedData to one RSA recipient, as strict DER."""
    public_key = rsa_public_key(recipient.spki)
    try:
        encrypted_key = public_key.encrypt(sealing.key, sealing.transport.padding())
    except ValueError:
        raise ScepError("key is too short to encrypt to", FailInfo.BAD_ALG) from None
    recipient_info = tlv(
        SEQUENCE,
        integer(0),
        recipient.issuer_and_serial(),
        sealing.transport.identifier(),
        tlv(OCTET_STRING, encrypted_key),
    )
    ciphertext = sealing.cipher.encrypt(sealing.key, sealing.iv, content)
    encrypted = tlv(
        SEQUENCE, DATA, sealing.cipher.identifier(sealing.iv), tlv(CONTEXT_0, ciphertext)
    )
    enveloped = tlv(SEQUENCE, integer(0), tlv(SET, recipient_info), encrypted)
    return write_content_info(ENVELOPED_DATA, enveloped)
