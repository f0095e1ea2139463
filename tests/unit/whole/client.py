"""Requests as our own client writes them, in every style it knows, and their answers opened."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AttributeOID

from cli.enroll.client import CIPHER_NAMES, DIGEST_NAMES, TRANSPORTS
from cli.enroll.identity import Key, signer_of
from shared.scep.asn1 import OCTET_STRING, PRINTABLE_STRING, tlv
from shared.scep.certificate import Certificate, read_certificate
from shared.scep.certrep import CertRep, read_reply
from shared.scep.envelope import ContentEncryption, read_envelope, write_envelope
from shared.scep.password import Password
from shared.scep.pkimessage import (
    MESSAGE_TYPE,
    SENDER_NONCE,
    TRANSACTION_ID,
    DecryptionKey,
    MessageType,
    unwrap_content_key,
    unwrap_with_password,
)
from shared.scep.request import RequestHead, write_request
from shared.scep.signed_data import Signer, attribute, write_signed_data
from tests.support.messages import CHALLENGE
from tests.support.world import NOW

NAME: Final = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "device")])
DAY: Final = 86400
TRANSACTION: Final = "0123"
NONCE: Final = bytes(range(16))


@dataclass(frozen=True)
class Style:
    """How a message is written."""

    cipher: str = "aes128"
    digest: str = "sha256"
    transport: str = "pkcs1v15"
    pss: bool = False
    ber: bool = False
    by_password: bool = False


@dataclass(frozen=True)
class Device:
    """A key and the certificate it signs with."""

    key: Key
    certificate: bytes

    @classmethod
    def new(cls, key: Key, serial: int = 7) -> "Device":
        """A self-signed one."""
        start = dt.datetime.fromtimestamp(NOW - DAY, dt.UTC)
        builder = x509.CertificateBuilder(
            NAME, NAME, key.public_key(), serial, start, start + dt.timedelta(days=9)
        )
        return cls(key, builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER))

    def csr(self, challenge: str | None = CHALLENGE) -> bytes:
        """A request for a certificate under NAME."""
        builder = x509.CertificateSigningRequestBuilder().subject_name(NAME)
        if challenge:
            builder = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, challenge.encode())
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.DER)

    def message(self, kind: MessageType, payload: bytes, to: Certificate, style: Style) -> bytes:
        """A pkiMessage in a style."""
        head = RequestHead(TRANSACTION, NONCE, DIGEST_NAMES[style.digest])
        sealing, recipient, signer = self.parts(to, style)
        return write_request(kind, payload, head, recipient, sealing, signer, ber=style.ber)

    def edited(
        self,
        kind: MessageType,
        payload: bytes,
        to: Certificate,
        style: Style,
        edit: Callable[[bytes], bytes],
    ) -> bytes:
        """The same with its envelope edited before it is signed."""
        sealing, recipient, signer = self.parts(to, style)
        content = edit(write_envelope(payload, recipient, sealing))
        attributes = (
            attribute(MESSAGE_TYPE, tlv(PRINTABLE_STRING, str(int(kind)).encode())),
            attribute(TRANSACTION_ID, tlv(PRINTABLE_STRING, TRANSACTION.encode())),
            attribute(SENDER_NONCE, tlv(OCTET_STRING, NONCE)),
        )
        return write_signed_data(content, attributes, DIGEST_NAMES[style.digest], signer)

    def parts(
        self, to: Certificate, style: Style
    ) -> tuple[ContentEncryption, Certificate | Password, Signer]:
        """How the envelope is sealed, to whom, and who signs."""
        cipher = CIPHER_NAMES[style.cipher]
        key, iv = bytes(range(cipher.key_size)), bytes(range(cipher.iv_size))
        sealing = ContentEncryption(cipher, TRANSPORTS[style.transport], key, iv)
        recipient: Certificate | Password = to
        if style.by_password:
            recipient = Password(CHALLENGE, bytes(16), bytes(16), bytes(16))
        return sealing, recipient, signer_of(self.key, self.certificate, pss=style.pss)

    def opened(self, answer: bytes) -> tuple[CertRep, bytes]:
        """(the CertRep, what it holds) of an answer; nothing where it is no SUCCESS."""
        reply = read_reply(answer)
        if not reply.signed.content:
            return reply, b""
        envelope = read_envelope(reply.signed.content)
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            found = unwrap_with_password(envelope, [CHALLENGE])
            assert found is not None
            return reply, envelope.decrypt(found[1])
        assert isinstance(self.key, rsa.RSAPrivateKey)
        mine = DecryptionKey(self.key, read_certificate(self.certificate))
        return reply, envelope.decrypt(unwrap_content_key(envelope, [mine], bytes(32)))
