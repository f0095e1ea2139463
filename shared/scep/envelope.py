"""EnvelopedData to RSA recipients: parsed, decrypted, written (RFC 5652 s6)."""

from dataclasses import dataclass
from typing import Final

from shared.scep.algorithms import (
    ContentCipher,
    KeyTransport,
    read_cipher,
    read_key_transport,
)
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
    tlv,
)
from shared.scep.certificate import Certificate
from shared.scep.cms import (
    DATA,
    ENVELOPED_DATA,
    content_info,
    read_der_or_ber,
    rsa_public_key,
    segments,
    write_content_info,
)
from shared.scep.errors import FailInfo, ScepError

_MAX_RECIPIENTS: Final = 16


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


@dataclass(frozen=True, slots=True)
class Sealing:
    """How to encrypt an envelope: algorithms, and the key and IV to use once."""

    cipher: ContentCipher
    transport: KeyTransport
    key: bytes
    iv: bytes


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
    return Envelope(tuple(recipients), cipher, iv, segments(content.enter(CONSTRUCTED_0)))


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
