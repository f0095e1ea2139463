"""Opening a request at the edge: decrypt, parse, check possession and the tie to the signer."""

import contextlib
import secrets
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import rsa

from services.gateway.replies import ReplyEncryption
from services.gateway.settings import Profile
from shared.ca.chains import Chain
from shared.log.subjects import NO_RENEWAL
from shared.scep.algorithms import PKCS1V15
from shared.scep.certrep import floor_cipher
from shared.scep.envelope import Envelope, check_recipient
from shared.scep.errors import FailInfo, ScepError
from shared.scep.pkimessage import (
    MessageType,
    PkiMessage,
    read_envelope,
    unwrap_content_key,
    unwrap_with_password,
)
from shared.scep.schemes import public_key
from shared.x509.csr import CertificationRequest, read_csr, verify_self_signature

_MAX_KEY = 32
_NO_REPLY = "the reply cannot be encrypted: an EC key needs a challengePassword"
_FOREIGN_EC = (
    "the reply cannot be encrypted: an EC signer must have the CSR's key, "
    "or encrypt the request to the challengePassword"
)


class VerifiedRequestError(ScepError):
    """Raised for a CSR that decrypts and verifies, and yet cannot be answered: why may be told.

    Its self-signature shows that nobody altered the envelope. It is told no sooner than the
    failures that may not be told apart.
    """


@dataclass(frozen=True)
class DecryptedRequest:
    """A request for a certificate: its CSR, its content key, how to encrypt the reply.

    `renews` is the serial (an INTEGER's contents) of the certificate that signed it, where that
    is one of ours; else empty, or NO_RENEWAL for a RenewalReq.
    """

    message: PkiMessage
    pki_message: bytes
    csr: CertificationRequest
    content_key: bytes
    mirror: ReplyEncryption
    renews: bytes


def open_enrollment(
    profile: Profile, chain: Chain, message: PkiMessage, body: bytes
) -> DecryptedRequest:
    """PKCSReq or RenewalReq; what the profile's own CA issued renews.

    A plain badAlg comes out only where what anyone can read is at fault: the envelope's
    algorithms, the signer's key. `VerifiedRequestError` is about a CSR that verifies. Everything
    else is one `ScepError` without a distinction.
    """
    envelope, content_key, mirror = _unwrap(profile, chain, message)
    try:
        csr = read_csr(envelope.decrypt(content_key))
        verify_self_signature(csr)
        renewing = chain.issued(message.signer.der)
    except ScepError as error:
        raise ScepError(error.detail) from None
    own_key = csr.spki == message.signer.spki
    if not own_key and not renewing and not profile.any_signer:
        raise ScepError("signed by another key than the CSR's")
    mirror = _with_password(mirror, csr, own_key=own_key)
    renews = message.signer.serial if renewing else b""
    if not renewing and message.message_type == MessageType.RENEWAL_REQ:
        renews = NO_RENEWAL
    return DecryptedRequest(message, body, csr, content_key, mirror, renews)


def _with_password(
    mirror: ReplyEncryption, csr: CertificationRequest, *, own_key: bool
) -> ReplyEncryption:
    """The reply's password for a signer that cannot decrypt: the CSR's challengePassword.

    Only where the signer's key is the CSR's. Whoever recorded an envelope could sign it again with
    an EC key of their own and would get a reply to guess the password by, offline. A password that
    opened the request itself is known to its sender.
    """
    if not mirror.wants_password or mirror.password is not None:
        return mirror
    if not own_key:
        raise VerifiedRequestError(_FOREIGN_EC, FailInfo.BAD_ALG)
    try:
        password = csr.challenge
    except ScepError as error:
        raise VerifiedRequestError(error.detail, error.fail_info) from None
    if password is None:
        raise VerifiedRequestError(_NO_REPLY, FailInfo.BAD_ALG)
    return mirror.with_password(password)


def open_query(
    profile: Profile, chain: Chain, message: PkiMessage
) -> tuple[bytes, ReplyEncryption]:
    """(payload, how to encrypt the reply) of GetCert and GetCRL.

    Whether there can be a reply is said before the content is looked at: nothing ties an envelope
    to its signer, so what is said after that must not depend on how it decrypts.
    """
    envelope, content_key, mirror = _unwrap(profile, chain, message)
    if mirror.wants_password and mirror.password is None:
        raise ScepError(_NO_REPLY, FailInfo.BAD_ALG)
    return envelope.decrypt(content_key), mirror


def poll_mirror(profile: Profile, message: PkiMessage) -> ReplyEncryption:
    """The poll's own envelope says how to encrypt the answer; `ScepError` (badAlg) if nothing can.

    Nothing of it is decrypted: issuer and subject in it are often wrong, and how long an altered
    envelope takes would tell whether its key opened. An envelope that cannot be read costs an RSA
    signer nothing; an EC signer is answered under the password that its poll is encrypted to.
    """
    envelope = None
    with contextlib.suppress(ScepError):
        envelope = read_envelope(message, profile.algorithms)
    mirror = _mirror(profile, message, envelope)
    if envelope is not None and mirror.wants_password and envelope.passwords:
        opened = unwrap_with_password(envelope, profile.passwords)
        mirror = mirror.with_password(opened[0] if opened else None)
    if mirror.wants_password and mirror.password is None:
        raise ScepError(_NO_REPLY, FailInfo.BAD_ALG)
    return mirror


def _unwrap(
    profile: Profile, chain: Chain, message: PkiMessage
) -> tuple[Envelope, bytes, ReplyEncryption]:
    """(envelope, content key or random bytes, mirror), once the reply is known to be possible."""
    envelope = read_envelope(message, profile.algorithms)
    mirror = _mirror(profile, message, envelope)
    if envelope.passwords and not envelope.recipients:
        opened = unwrap_with_password(envelope, profile.passwords)
        password, key = opened or (None, secrets.token_bytes(envelope.cipher.key_size))
        return envelope, key, mirror.with_password(password)
    keys = profile.ra.under(chain.der[0]).decryption
    return envelope, unwrap_content_key(envelope, keys, secrets.token_bytes(_MAX_KEY)), mirror


def _mirror(profile: Profile, message: PkiMessage, envelope: Envelope | None) -> ReplyEncryption:
    """What the reply repeats; `ScepError` (badAlg) where it cannot be encrypted to the signer."""
    wants_password = not isinstance(public_key(message.signer.spki), rsa.RSAPublicKey)
    cipher = profile.floor_cipher
    transport = PKCS1V15
    if envelope is not None:
        cipher = floor_cipher(envelope.cipher, profile.floor_cipher)
        if envelope.recipients:
            transport = envelope.recipients[0].transport
    if not wants_password:
        check_recipient(message.signer, cipher.key_size, transport)
    return ReplyEncryption(cipher, transport, wants_password)
