"""CertReps for the results of requests. Their randomness is drawn here."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from services.gateway.ra import RaKeys
from services.gateway.settings import Profile
from services.gateway.user_agents import without_content
from shared.ca.chains import Chain
from shared.log.events.enrollment import CertificateIssued, Terminal
from shared.log.reasons import FAIL_INFO, Reason
from shared.observe.metrics import REPLIES
from shared.runtime.process import now
from shared.scep import certrep
from shared.scep.algorithms import AES128, PKCS1V15, AnyCipher, KeyTransport
from shared.scep.certificate import Certificate
from shared.scep.envelope import ContentEncryption, wrapping_cipher
from shared.scep.errors import FailInfo
from shared.scep.password import SALT_SIZE, Password
from shared.scep.pkimessage import MessageType, PkiMessage
from shared.scep.signed_data import write_certs_only, write_crl_only


@dataclass(frozen=True, slots=True)
class ReplyEncryption:
    """How the reply is encrypted: with the request's algorithms or stronger ones.

    `wants_password` is true for an EC signer, which cannot decrypt: its reply is encrypted under
    the challengePassword (RFC 8894 s3.1).
    """

    cipher: AnyCipher = AES128
    transport: KeyTransport = PKCS1V15
    wants_password: bool = False
    password: str | None = field(default=None, repr=False)

    def with_password(self, password: str | None) -> "ReplyEncryption":
        """Return a copy with the password, or `self` if the signer can decrypt without one."""
        return replace(self, password=password) if self.wants_password else self


@dataclass(frozen=True)
class Replier:
    """Writes the CertRep for one request; `client` is the client's family, a metric label."""

    profile: Profile
    ra: RaKeys
    message: PkiMessage
    client: str = "none"
    random: Callable[[int], bytes] = secrets.token_bytes
    clock: Callable[[], float] = now

    def _to(self) -> certrep.ReplyTo:
        nonce = self.random(certrep.NONCE_SIZE)
        absent = without_content(self.profile.empty_content, self.client)
        floor, at = self.profile.floor_digest, int(self.clock())
        return certrep.reply_to(self.message, nonce, floor, at, without_content=absent)

    def terminal(self, event: Terminal, chain: Chain, encryption: ReplyEncryption) -> bytes:
        """Return the CertRep for a terminal event: SUCCESS or FAILURE."""
        if isinstance(event, CertificateIssued):
            fresh = self.profile.staple_ocsp and event.ocsp_until > self.clock()
            ocsp = event.ocsp if fresh else b""
            return self.certificate(event.certificate, chain, encryption, ocsp)
        return self._failure(event.fail_info, event.detail, event.reason)

    def certificate(
        self, leaf: bytes, chain: Chain, encryption: ReplyEncryption, ocsp: bytes = b""
    ) -> bytes:
        """Return SUCCESS with the leaf first: iOS pairs the first certificate with its key.

        The chain follows only if the profile includes it. `ocsp` is an OCSPResponse (DER), if any.
        """
        certificates = [leaf, *(chain.der if self.profile.include_chain else ())]
        return self._success(write_certs_only(certificates), encryption, "issued", ocsp)

    def fetched(self, certificate: bytes, encryption: ReplyEncryption) -> bytes:
        """Return the answer to GetCert: only the requested certificate (RFC 8894 s4.5)."""
        return self._success(write_certs_only([certificate]), encryption, "issued")

    def crl(self, der: bytes, encryption: ReplyEncryption) -> bytes:
        """Return the answer to GetCRL (RFC 8894 s4.6)."""
        return self._success(write_crl_only(der), encryption, "crl")

    def _success(
        self, content: bytes, encryption: ReplyEncryption, what: str, ocsp: bytes = b""
    ) -> bytes:
        cipher = encryption.cipher
        content_encryption = ContentEncryption(
            cipher, encryption.transport, self.random(cipher.key_size), self.random(cipher.iv_size)
        )
        recipient = self._recipient(encryption)
        self._count(certrep.PkiStatus.SUCCESS, what)
        return certrep.success(
            self._to(), content, recipient, content_encryption, self.ra.signer, ocsp
        )

    def _recipient(self, encryption: ReplyEncryption) -> Certificate | Password:
        if encryption.password is None:
            return self.message.signer
        block = wrapping_cipher(encryption.cipher).block_size
        salt, iv, padding = (self.random(size) for size in (SALT_SIZE, block, block))
        return Password(encryption.password, salt, iv, padding)

    def refusal(self, reason: Reason, detail: str, fail_info: FailInfo | None = None) -> bytes:
        """Return FAILURE for a request that was not recorded."""
        return self._failure(FAIL_INFO[reason] if fail_info is None else fail_info, detail, reason)

    def _failure(self, fail_info: FailInfo, detail: str, reason: Reason) -> bytes:
        self._count(certrep.PkiStatus.FAILURE, reason)
        return certrep.failure(self._to(), fail_info, detail, self.ra.signer)

    def pending(self) -> bytes:
        """Return PENDING: the enrollment is in progress and the device polls."""
        self._count(certrep.PkiStatus.PENDING, "")
        return certrep.pending(self._to(), self.ra.signer)

    def _count(self, status: certrep.PkiStatus, reason: str) -> None:
        known = self.message.message_type in set(MessageType)
        kind = MessageType(self.message.message_type).name.lower() if known else "unknown"
        labels = (self.profile.name, kind, status.name.lower(), reason, self.client)
        REPLIES.labels(*labels).inc()
