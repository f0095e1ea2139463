"""Facts first: opens a stored request by itself and trusts no gateway's word about it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from shared.csr import CertificationRequest, read_csr, verify_self_signature
from shared.events import EnrollmentRequested, Facts
from shared.names import name_text
from shared.reasons import Reason
from shared.scep.algorithms import AlgorithmPolicy
from shared.scep.errors import FailInfo, ScepError
from shared.scep.pkimessage import MessageType, read_envelope, read_message, verify
from shared.seal import SealError, unseal
from shared.signatures import PublicKey
from shared.subjects import EnrollmentId, Stage, csr_token, transaction_token


@dataclass(frozen=True)
class Opened:
    """A request that is what it says: the CSR, and what is told of it."""

    csr: CertificationRequest
    facts: Facts


@dataclass(frozen=True)
class NotOpened:
    """A request that is not: why."""

    reason: Reason
    detail: str


def open_request(
    enrollment: EnrollmentId,
    event: EnrollmentRequested,
    keys: Mapping[str, X25519PrivateKey],
    policy: AlgorithmPolicy,
) -> Opened | NotOpened:
    """Verify the device's signature, decrypt, check possession, and that the subject fits."""
    key = keys.get(event.sealing_key)
    if key is None:
        return NotOpened(Reason.BAD_MESSAGE, "sealed to an unknown key")
    try:
        content_key = unseal(event.content_key, enrollment.subject(Stage.REQUEST), key)
        return _open(enrollment, event.pki_message, content_key, policy)
    except SealError:
        return NotOpened(Reason.BAD_MESSAGE, "the sealed content key does not open")
    except ScepError as error:
        algorithm = error.fail_info is FailInfo.BAD_ALG
        reason = Reason.BAD_ALGORITHM if algorithm else Reason.BAD_MESSAGE
        return NotOpened(reason, error.detail)


def _open(
    enrollment: EnrollmentId, pki_message: bytes, content_key: bytes, policy: AlgorithmPolicy
) -> Opened | NotOpened:
    message = read_message(pki_message)
    verify(message, policy)
    if message.message_type != MessageType.PKCS_REQ:
        return NotOpened(Reason.UNSUPPORTED_MESSAGE, "not a PKCSReq")
    csr = read_csr(read_envelope(message, policy).decrypt(content_key))
    verify_self_signature(csr)
    if csr.spki != message.signer.spki:
        return NotOpened(Reason.BAD_MESSAGE, "signed by another key than the CSR's")
    transaction = transaction_token(
        enrollment.profile, message.transaction_id.value, message.signer.spki
    )
    if (transaction, csr_token(csr.info)) != (enrollment.transaction, enrollment.csr):
        return NotOpened(Reason.BAD_MESSAGE, "recorded under another transaction's subject")
    return Opened(csr, _facts(csr))


def _facts(csr: CertificationRequest) -> Facts:
    key_type, bits = key_kind(csr.public_key)
    return Facts(
        subject=name_text(csr.subject),
        sans=tuple(f"{san.kind}:{san.value}" for san in csr.sans),
        key_type=key_type,
        key_bits=bits,
        spki_sha256=hashlib.sha256(csr.spki).hexdigest(),
        csr_sha256=hashlib.sha256(csr.info).hexdigest(),
        challenge="none" if csr.challenge is None else "static",
    )


def key_kind(key: PublicKey) -> tuple[str, int]:
    """("rsa", 2048) or ("p256", 256): key type and size in bits."""
    if isinstance(key, rsa.RSAPublicKey):
        return "rsa", key.key_size
    names = {"secp256r1": "p256", "secp384r1": "p384", "secp521r1": "p521"}
    return names.get(key.curve.name, key.curve.name), key.curve.key_size
