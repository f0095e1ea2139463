"""From what became of a request to the CertRep that says so; the randomness is made here."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from services.gateway.settings import Profile
from shared.chains import Chain
from shared.events import CertificateIssued, Terminal
from shared.reasons import FAIL_INFO, Reason
from shared.scep import certrep
from shared.scep.algorithms import AES128, PKCS1V15, ContentCipher, KeyTransport
from shared.scep.envelope import Sealing
from shared.scep.errors import FailInfo
from shared.scep.pkimessage import MessageType, PkiMessage
from shared.telemetry import REPLIES


@dataclass(frozen=True, slots=True)
class Mirror:
    """What of the request's envelope the reply repeats."""

    cipher: ContentCipher = AES128
    transport: KeyTransport = PKCS1V15


@dataclass(frozen=True)
class Replier:
    """Writes CertReps for one request on one profile."""

    profile: Profile
    message: PkiMessage
    random: Callable[[int], bytes] = secrets.token_bytes

    def _to(self) -> certrep.ReplyTo:
        nonce = self.random(certrep.NONCE_SIZE)
        return certrep.reply_to(self.message, nonce, legacy=self.profile.legacy)

    def terminal(self, event: Terminal, chain: Chain, mirror: Mirror) -> bytes:
        """What the end of an enrollment is to the device."""
        if isinstance(event, CertificateIssued):
            return self._success(event, chain, mirror)
        return self._failure(event.fail_info, event.detail, event.reason)

    def _success(self, event: CertificateIssued, chain: Chain, mirror: Mirror) -> bytes:
        """The leaf alone unless the profile adds the chain: iOS pairs the first with its key."""
        cipher = certrep.floor_cipher(mirror.cipher, legacy=self.profile.legacy)
        sealing = Sealing(
            cipher, mirror.transport, self.random(cipher.key_size), self.random(cipher.block_size)
        )
        certificates = [event.certificate, *(chain.der if self.profile.include_chain else ())]
        self._count(certrep.PkiStatus.SUCCESS, "issued")
        signer = self.profile.ra.signer
        return certrep.success(self._to(), certificates, self.message, sealing, signer)

    def refusal(self, reason: Reason, detail: str, fail_info: FailInfo | None = None) -> bytes:
        """FAILURE for what never came on the log."""
        return self._failure(FAIL_INFO[reason] if fail_info is None else fail_info, detail, reason)

    def _failure(self, fail_info: FailInfo, detail: str, reason: Reason) -> bytes:
        self._count(certrep.PkiStatus.FAILURE, reason)
        return certrep.failure(self._to(), fail_info, detail, self.profile.ra.signer)

    def pending(self) -> bytes:
        """PENDING: the enrollment goes on, the device asks again."""
        self._count(certrep.PkiStatus.PENDING, "")
        return certrep.pending(self._to(), self.profile.ra.signer)

    def _count(self, status: certrep.PkiStatus, reason: str) -> None:
        known = self.message.message_type in set(MessageType)
        kind = MessageType(self.message.message_type).name.lower() if known else "unknown"
        REPLIES.labels(self.profile.name, kind, status.name.lower(), reason).inc()
