"""One device's exchange with a server: send messages, and verify every reply."""

import secrets
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from cli.enroll.authority import Authority, issued_by
from cli.enroll.families import DEFAULT, Family
from cli.enroll.http import Server
from cli.enroll.identity import Identity
from shared.scep.algorithms import (
    AUTHENTICATED_CIPHERS,
    CIPHERS,
    DIGESTS,
    PKCS1V15,
    SHA256,
    AnyCipher,
    Digest,
    KeyTransport,
)
from shared.scep.certificate import read_certificate
from shared.scep.certrep import CertRep, read_certificates, read_crls, read_reply
from shared.scep.envelope import ContentEncryption, read_envelope
from shared.scep.errors import ScepError
from shared.scep.pkimessage import (
    DecryptionKey,
    MessageType,
    unwrap_content_key,
    unwrap_with_password,
)
from shared.scep.request import RequestHead, issuer_and_serial, issuer_and_subject, write_request
from shared.x509.loading import loading
from shared.x509.signatures import is_signed_by

CIPHER_NAMES: Final[dict[str, AnyCipher]] = {
    **{c.name: c for c in CIPHERS.values()},
    **{c.name: c for c in AUTHENTICATED_CIPHERS.values()},
}
DIGEST_NAMES: Final = {d.name: d for d in DIGESTS.values()}
TRANSPORTS: Final = {
    "pkcs1v15": PKCS1V15,
    "oaep": KeyTransport("oaep"),
    "oaep-sha256": KeyTransport("oaep", SHA256, SHA256),
}
_MAX_KEY: Final = 32


class BadReplyError(Exception):
    """Raised if a reply does not verify; nothing in it is trusted."""


@dataclass(frozen=True)
class Style:
    """How messages are written; None selects what `family` prefers of the server's GetCACaps."""

    cipher: AnyCipher | None = None
    digest: Digest | None = None
    transport: KeyTransport | None = None
    ber: bool = False
    get: bool = False
    family: Family = DEFAULT


@dataclass(frozen=True)
class Exchange:
    """An exchange with one server about one key; `challenge` decrypts replies to an EC key."""

    server: Server
    authority: Authority
    identity: Identity
    caps: frozenset[str]
    style: Style = Style()
    challenge: str | None = None

    @property
    def cipher(self) -> AnyCipher:
        """The requested algorithm, else what the family prefers of GetCACaps."""
        return self.style.cipher or self.style.family.cipher.select(self.caps)

    @property
    def digest(self) -> Digest:
        """The requested algorithm, else what the family prefers of GetCACaps."""
        return self.style.digest or self.style.family.digest.select(self.caps)

    @property
    def transaction_id(self) -> str:
        """A digest of the public key, as RFC 8894 s3.2.1.1 suggests."""
        return self.style.family.transaction.of(self.identity.spki)

    @property
    def decrypts(self) -> bool:
        """Whether replies can be encrypted to the signing key."""
        return isinstance(self.identity.signing_key, rsa.RSAPrivateKey)

    def send(self, message_type: MessageType, csr: bytes) -> CertRep:
        """Send a PKCSReq or RenewalReq with this CSR (DER)."""
        return self._ask(message_type, csr)

    def poll(self) -> CertRep:
        """Send a CertPoll for the same transaction."""
        issuer = self.authority.ca.subject.public_bytes()
        payload = issuer_and_subject(issuer, self.identity.name.public_bytes())
        return self._ask(MessageType.CERT_POLL, payload)

    def query(self, message_type: MessageType, serial: int) -> CertRep:
        """Send a GetCert or GetCRL for a certificate of the CA."""
        contents = serial.to_bytes(serial.bit_length() // 8 + 1, "big", signed=True)
        issuer = self.authority.ca.subject.public_bytes()
        return self._ask(message_type, issuer_and_serial(issuer, contents))

    def _ask(self, message_type: MessageType, payload: bytes) -> CertRep:
        family = self.style.family
        nonce = secrets.token_bytes(family.nonce_size)
        head = RequestHead(self.transaction_id, nonce, self.digest)
        cipher = self.cipher
        content_encryption = ContentEncryption(
            cipher,
            self.style.transport or family.transport.select(self.caps),
            secrets.token_bytes(cipher.key_size),
            secrets.token_bytes(cipher.iv_size),
        )
        recipient, signer, ber = self.authority.recipient, self.identity.signer, self.style.ber
        message = write_request(
            message_type, payload, head, recipient, content_encryption, signer, ber=ber
        )
        post = not self.style.get and "POSTPKIOPERATION" in self.caps
        return self._verified(self.server.pki_operation(message, post=post), nonce)

    def _verified(self, body: bytes, nonce: bytes) -> CertRep:
        try:
            reply = read_reply(body, self.authority.signers)
        except ScepError as error:
            raise BadReplyError(f"the reply does not verify: {error.detail}") from None
        if reply.signed.signer.der not in self.authority.signers:
            raise BadReplyError("the reply is not signed by a certificate from GetCACert")
        if reply.transaction_id != self.transaction_id.encode():
            raise BadReplyError("the reply is for another transaction")
        if reply.recipient_nonce != nonce:
            raise BadReplyError("the reply has another request's nonce")
        return reply

    def issued(self, reply: CertRep) -> bytes:
        """Return the certificate (DER) of a SUCCESS; it must have our key and a CA's signature."""
        mine = [c for c in self._certificates(reply) if _spki(c) == self.identity.spki]
        if not mine:
            raise BadReplyError("the reply contains no certificate for the device's key")
        if not issued_by(self.authority, x509.load_der_x509_certificate(mine[0])):
            raise BadReplyError("the certificate is not signed by the CA")
        return mine[0]

    def fetched(self, reply: CertRep, serial: int) -> bytes:
        """Return the certificate (DER) that GetCert requested, if a CA of the chain issued it."""
        for der in self._certificates(reply):
            certificate = x509.load_der_x509_certificate(der)
            if certificate.serial_number == serial and issued_by(self.authority, certificate):
                return der
        raise BadReplyError("the reply does not contain the requested certificate")

    def _certificates(self, reply: CertRep) -> tuple[bytes, ...]:
        try:
            found = read_certificates(self._open(reply))
            for der in found:
                with loading():
                    x509.load_der_x509_certificate(der).public_key()
        except (ScepError, ValueError) as error:
            raise BadReplyError(f"the reply cannot be read: {error}") from None
        return found

    def crl(self, reply: CertRep) -> bytes:
        """Return the CRL (DER) that GetCRL requested, which must have the CA's signature."""
        try:
            crls = read_crls(self._open(reply))
            ca_key = self.authority.ca.public_key()
            good = [crl for crl in crls if is_signed_by(crl, ca_key)]  # type: ignore[arg-type]  # a CA's key is RSA or EC
        except ScepError as error:
            raise BadReplyError(f"the reply cannot be read: {error.detail}") from None
        if not good:
            raise BadReplyError("the reply contains no CRL signed by the CA")
        return good[0]

    def _open(self, reply: CertRep) -> bytes:
        """Decrypt the content of a SUCCESS with our key or, if that is an EC key, the challenge."""
        envelope = read_envelope(reply.signed.content)
        key = self.identity.signing_key
        if isinstance(key, rsa.RSAPrivateKey):
            mine = DecryptionKey(key, self.identity.signer.certificate)
            return envelope.decrypt(unwrap_content_key(envelope, [mine], bytes(_MAX_KEY)))
        opened = unwrap_with_password(envelope, [self.challenge] if self.challenge else [])
        if opened is None:
            raise ScepError("neither the key nor the challenge decrypts it")
        return envelope.decrypt(opened[1])


def _spki(der: bytes) -> bytes:
    return read_certificate(der).spki
