"""Decryption of requests, with the checks of possession and of who may sign."""

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
    """Raised for a CSR that decrypts and verifies but cannot be answered.

    The reason may be disclosed: the CSR's self-signature shows that the envelope was not altered.
    It is reported no earlier than the failures that must look alike.
    """


@dataclass(frozen=True)
class DecryptedRequest:
    """A request for a certificate: its CSR, its content key and the reply encryption.

    `renews` is the serial (an INTEGER's contents) of the signer certificate if the profile's CA
    issued it. Otherwise it is NO_RENEWAL for a RenewalReq and empty for a PKCSReq.
    """

    message: PkiMessage
    pki_message: bytes
    csr: CertificationRequest
    content_key: bytes
    encryption: ReplyEncryption
    renews: bytes


def open_enrollment(
    profile: Profile, chain: Chain, message: PkiMessage, body: bytes
) -> DecryptedRequest:
    """Decrypt a PKCSReq or RenewalReq; a signer certificate of the profile's CA makes it a renewal.

    Raises a plain `ScepError` (badAlg) only for fields that anyone can read: the envelope's
    algorithms and the signer's key. Raises `VerifiedRequestError` for a CSR that verifies, and
    `ScepError` (badMessageCheck) for everything else.
    """
    envelope, content_key, encryption = _unwrap(profile, chain, message)
    try:
        csr = read_csr(envelope.decrypt(content_key))
        verify_self_signature(csr)
        renewing = chain.issued(message.signer.der)
    except ScepError as error:
        raise ScepError(error.detail) from None
    own_key = csr.spki == message.signer.spki
    if not own_key and not renewing and not profile.any_signer:
        raise ScepError("the signer's key is not the CSR's key")
    encryption = _with_password(encryption, csr, own_key=own_key)
    renews = message.signer.serial if renewing else b""
    if not renewing and message.message_type == MessageType.RENEWAL_REQ:
        renews = NO_RENEWAL
    return DecryptedRequest(message, body, csr, content_key, encryption, renews)


def _with_password(
    encryption: ReplyEncryption, csr: CertificationRequest, *, own_key: bool
) -> ReplyEncryption:
    """Add the CSR's challengePassword as the reply's password if the signer cannot decrypt.

    The signer's key must be the CSR's. Otherwise anyone who captured an envelope could sign it
    again with their own EC key and get a reply for guessing the password offline. If a password
    encrypted the request itself, its sender knows that password and it is used as is.
    """
    if not encryption.wants_password or encryption.password is not None:
        return encryption
    if not own_key:
        raise VerifiedRequestError(_FOREIGN_EC, FailInfo.BAD_ALG)
    try:
        password = csr.challenge
    except ScepError as error:
        raise VerifiedRequestError(error.detail, error.fail_info) from None
    if password is None:
        raise VerifiedRequestError(_NO_REPLY, FailInfo.BAD_ALG)
    return encryption.with_password(password)


def open_query(
    profile: Profile, chain: Chain, message: PkiMessage
) -> tuple[bytes, ReplyEncryption]:
    """Return (payload, reply encryption) of a GetCert or GetCRL.

    Whether a reply is possible is decided before the content is decrypted: nothing ties an envelope
    to its signer, so errors after that point must not depend on how the content decrypts.
    """
    envelope, content_key, encryption = _unwrap(profile, chain, message)
    if encryption.wants_password and encryption.password is None:
        raise ScepError(_NO_REPLY, FailInfo.BAD_ALG)
    return envelope.decrypt(content_key), encryption


def poll_reply_encryption(profile: Profile, message: PkiMessage) -> ReplyEncryption:
    """Return the reply encryption for a CertPoll; `ScepError` (badAlg) if no reply is possible.

    The poll's content is not decrypted: its issuer and subject are often wrong, and the time that
    an altered envelope takes would reveal whether its key unwraps. An RSA signer gets a reply even
    if the envelope is unreadable. An EC signer's reply uses the password of its poll's envelope.
    """
    envelope = None
    with contextlib.suppress(ScepError):
        envelope = read_envelope(message, profile.algorithms)
    encryption = _reply_encryption(profile, message, envelope)
    if envelope is not None and encryption.wants_password and envelope.passwords:
        opened = unwrap_with_password(envelope, profile.passwords)
        encryption = encryption.with_password(opened[0] if opened else None)
    if encryption.wants_password and encryption.password is None:
        raise ScepError(_NO_REPLY, FailInfo.BAD_ALG)
    return encryption


def _unwrap(
    profile: Profile, chain: Chain, message: PkiMessage
) -> tuple[Envelope, bytes, ReplyEncryption]:
    """Return (envelope, content key or random bytes, reply encryption).

    Raises `ScepError` (badAlg), before decrypting, if the signer's key rules out a reply.
    """
    envelope = read_envelope(message, profile.algorithms)
    encryption = _reply_encryption(profile, message, envelope)
    if envelope.passwords and not envelope.recipients:
        opened = unwrap_with_password(envelope, profile.passwords)
        password, key = opened or (None, secrets.token_bytes(envelope.cipher.key_size))
        return envelope, key, encryption.with_password(password)
    keys = profile.ra.under(chain.der[0]).decryption
    return envelope, unwrap_content_key(envelope, keys, secrets.token_bytes(_MAX_KEY)), encryption


def _reply_encryption(
    profile: Profile, message: PkiMessage, envelope: Envelope | None
) -> ReplyEncryption:
    """Return the reply encryption; `ScepError` (badAlg) if the signer's key rules out a reply."""
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
