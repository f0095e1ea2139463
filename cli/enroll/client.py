"""One enrollment from the client's side: ask, verify everything, or poll."""

import secrets
from dataclasses import dataclass

from cryptography import x509

from cli.enroll.authority import Authority, issued_by
from cli.enroll.http import Server
from cli.enroll.identity import Identity
from shared.scep.algorithms import AES128, DES3, PKCS1V15, SHA1, SHA256, ContentCipher, Digest
from shared.scep.certificate import read_certificate
from shared.scep.certrep import CertRep, read_certificates, read_reply
from shared.scep.envelope import Sealing, read_envelope
from shared.scep.errors import ScepError
from shared.scep.pkimessage import DecryptionKey, MessageType, unwrap_content_key
from shared.scep.request import RequestHead, issuer_and_subject, write_request


class BadReplyError(Exception):
    """Raised where a reply does not verify: nothing in it is believed."""


@dataclass(frozen=True)
class Issued:
    """SUCCESS: the device's certificate and whatever came with it, as DER."""

    certificate: bytes
    others: tuple[bytes, ...]


@dataclass(frozen=True)
class Exchange:
    """How to talk to one server about one key."""

    server: Server
    authority: Authority
    identity: Identity
    caps: frozenset[str]

    @property
    def cipher(self) -> ContentCipher:
        """The best that the server lists."""
        return AES128 if self.caps & {"AES", "SCEPSTANDARD"} else DES3

    @property
    def digest(self) -> Digest:
        """The best that the server lists."""
        return SHA256 if self.caps & {"SHA-256", "SCEPSTANDARD"} else SHA1

    def enroll(self, csr: bytes) -> CertRep:
        """Send a PKCSReq."""
        return self._ask(MessageType.PKCS_REQ, csr)

    def poll(self) -> CertRep:
        """Send a CertPoll for the same transaction."""
        issuer = self.authority.ca.subject.public_bytes()
        payload = issuer_and_subject(issuer, self.identity.name.public_bytes())
        return self._ask(MessageType.CERT_POLL, payload)

    def _ask(self, message_type: MessageType, payload: bytes) -> CertRep:
        nonce = secrets.token_bytes(16)
        head = RequestHead(self.identity.transaction_id, nonce, self.digest)
        sealing = Sealing(
            self.cipher,
            PKCS1V15,
            secrets.token_bytes(self.cipher.key_size),
            secrets.token_bytes(self.cipher.block_size),
        )
        recipient, signer = self.authority.recipient, self.identity.signer
        message = write_request(message_type, payload, head, recipient, sealing, signer)
        body = self.server.pki_operation(message, post="POSTPKIOPERATION" in self.caps)
        return self._verified(body, nonce)

    def _verified(self, body: bytes, nonce: bytes) -> CertRep:
        try:
            reply = read_reply(body)
        except ScepError as error:
            raise BadReplyError(f"the reply does not verify: {error.detail}") from None
        if reply.signed.signer.der not in self.authority.signers:
            raise BadReplyError("the reply is signed by none of GetCACert's certificates")
        if reply.transaction_id != self.identity.transaction_id.encode():
            raise BadReplyError("the reply is for another transaction")
        if reply.recipient_nonce != nonce:
            raise BadReplyError("the reply answers another request")
        return reply

    def open(self, reply: CertRep) -> Issued:
        """Decrypt a SUCCESS and check that the certificate is ours and the CA's."""
        key = DecryptionKey(self.identity.key, self.identity.signer.certificate)
        try:
            envelope = read_envelope(reply.signed.content)
            content_key = unwrap_content_key(envelope, [key], bytes(32))
            certificates = read_certificates(envelope.decrypt(content_key))
            mine = [c for c in certificates if read_certificate(c).spki == self.identity.spki]
        except ScepError as error:
            raise BadReplyError(f"the reply does not open: {error.detail}") from None
        if not mine:
            raise BadReplyError("the reply holds no certificate with our key")
        if not issued_by(self.authority, x509.load_der_x509_certificate(mine[0])):
            raise BadReplyError("the certificate is not signed by the CA")
        return Issued(mine[0], tuple(c for c in certificates if c != mine[0]))
