"""Opens stored requests and extracts their facts itself: nothing that a gateway says is trusted."""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from shared.log.events.certificates import CertificateRecorded
from shared.log.events.enrollment import EnrollmentRequested, Facts
from shared.log.reasons import REFUSALS, Reason
from shared.log.seal import SealError, unseal
from shared.log.stages import Stage
from shared.log.subjects import NO_RENEWAL, EnrollmentId, csr_token, serial_token, transaction_token
from shared.scep.algorithms import AlgorithmPolicy
from shared.scep.errors import ScepError
from shared.scep.pkimessage import MessageType, PkiMessage, read_envelope, read_message, verify
from shared.scep.schemes import PublicKey
from shared.x509.certificate_names import CertificateNames
from shared.x509.csr import CertificationRequest, read_csr, read_request, verify_self_signature
from shared.x509.key_ids import spki_sha256
from shared.x509.names import GeneralName, name_text

_DEVICE_ID: Final = re.compile(
    r"IntuneDeviceId://\{?([0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})\}?"
)


@dataclass(frozen=True)
class DecryptedRequest:
    """A decrypted request whose signatures verify: the CSR, and what is known about it.

    `renews` is the serial number of the certificate that signed it if the profile's CA issued that
    one, else "". `renewal_asked` says that the request can only be a renewal, by its message type
    or because another configured CA issued the signer's certificate. `foreign_signer` says that a
    first request is signed with another key than the CSR's. `signer_spki` is the key that signed
    it, as a SubjectPublicKeyInfo, `signer_names` the names of the certificate that is renewed.
    """

    csr: CertificationRequest
    facts: Facts
    renews: str = ""
    key_reused: bool = False
    renewal_asked: bool = False
    transaction_id: str = ""
    foreign_signer: bool = False
    signer_spki_sha256: str = ""
    signer_spki: bytes = b""
    signer_names: CertificateNames | None = None


@dataclass(frozen=True, slots=True)
class OpeningRules:
    """What a profile accepts: algorithms, and whether any key may sign a first request.

    `issued` returns whether the profile's own CA issued a certificate (DER): what that certificate
    signs is a renewal. `issued_by_any` does the same for every configured CA: what such a
    certificate signed does not come from an unknown device, and is not a first enrollment.
    """

    algorithms: AlgorithmPolicy
    issued: Callable[[bytes], bool]
    issued_by_any: Callable[[bytes], bool]
    any_signer: bool = True


@dataclass(frozen=True)
class UndecryptableRequest:
    """A request that does not decrypt or verify, and why."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class KnownCertificate:
    """A certificate on record: its profile, and whether it is revoked."""

    profile: str
    record: CertificateRecorded
    revoked: bool


@dataclass(frozen=True, slots=True)
class History:
    """What the log knows about a request.

    `renewed` is the certificate that signed it. `live` is the last certificate of the request's
    key, looked up for first requests only.
    """

    renewed: KnownCertificate | None = None
    live: KnownCertificate | None = None
    key_compromised: bool = False


def names_sha256(named: CertificationRequest | CertificateNames) -> str:
    """Return the digest that identifies subject and SANs in records (SHA-256, hex)."""
    return hashlib.sha256(named.names).hexdigest()


def open_request(
    enrollment: EnrollmentId,
    event: EnrollmentRequested,
    keys: Mapping[str, X25519PrivateKey],
    rules: OpeningRules,
) -> DecryptedRequest | UndecryptableRequest:
    """Decrypt; verify the device's signature, possession of the key, and the event's subject."""
    key = keys.get(event.sealing_key)
    if key is None:
        return UndecryptableRequest(Reason.BAD_MESSAGE, "content key sealed to an unknown key")
    try:
        sealed = enrollment
        if event.sealed_attempt is not None:  # an operator retried that attempt
            sealed = enrollment.at(event.sealed_attempt)
        content_key = unseal(event.content_key, sealed.subject(Stage.REQUEST), key)
        message = read_message(event.pki_message)
        verify(message, rules.algorithms)
        if message.message_type not in (MessageType.PKCS_REQ, MessageType.RENEWAL_REQ):
            return UndecryptableRequest(
                Reason.UNSUPPORTED_MESSAGE, "neither a PKCSReq nor a RenewalReq"
            )
        csr = read_csr(read_envelope(message, rules.algorithms).decrypt(content_key))
        verify_self_signature(csr)
        read_request(csr, rules.algorithms)
        return _opened(enrollment, message, csr, rules)
    except SealError:
        return UndecryptableRequest(
            Reason.BAD_MESSAGE, "the sealed content key cannot be decrypted"
        )
    except ScepError as error:
        return UndecryptableRequest(REFUSALS.get(error.fail_info, Reason.BAD_MESSAGE), error.detail)


def _opened(
    enrollment: EnrollmentId, message: PkiMessage, csr: CertificationRequest, rules: OpeningRules
) -> DecryptedRequest | UndecryptableRequest:
    signer = message.signer
    renewing, foreign = rules.issued(signer.der), csr.spki != signer.spki
    if foreign and not renewing and not rules.any_signer:
        return UndecryptableRequest(Reason.BAD_MESSAGE, "the signer's key is not the CSR's key")
    transaction = transaction_token(
        enrollment.profile, message.transaction_id.value, message.signer.spki
    )
    asked = message.message_type == MessageType.RENEWAL_REQ
    elsewhere = not renewing and rules.issued_by_any(signer.der)
    csr_named = csr_token(csr.info, signer.serial if renewing else NO_RENEWAL if asked else b"")
    if (transaction, csr_named) != (enrollment.transaction, enrollment.csr):
        return UndecryptableRequest(
            Reason.BAD_MESSAGE, "recorded under another transaction's subject"
        )
    return DecryptedRequest(
        csr,
        _facts(csr),
        renews=serial_token(signer.serial) if renewing else "",
        key_reused=renewing and csr.spki == signer.spki,
        renewal_asked=asked or elsewhere,
        signer_spki_sha256=spki_sha256(signer.spki),
        signer_spki=signer.spki,
        signer_names=CertificateNames.of_certificate(signer.der) if renewing else None,
        transaction_id=message.transaction_id.text(),
        foreign_signer=foreign and not renewing,
    )


def _facts(csr: CertificationRequest) -> Facts:
    key_type, bits = key_kind(csr.public_key)
    return Facts(
        subject=name_text(csr.subject),
        sans=tuple(f"{san.kind}:{san.value}" for san in csr.sans),
        key_type=key_type,
        key_bits=bits,
        spki_sha256=spki_sha256(csr.spki),
        csr_sha256=hashlib.sha256(csr.info).hexdigest(),
        challenge="none" if csr.challenge is None else "given",
        device_id=_device_id(csr.sans),
    )


def with_kept_names(opened: DecryptedRequest) -> DecryptedRequest:
    """Return a request whose facts name the certificate that it renews, if it renews one.

    For profiles whose renewals keep their names, whatever the CSR asks for: a verifier that looks a
    device up by its names must not look up others.
    """
    names = opened.signer_names
    if names is None:
        return opened
    facts = msgspec.structs.replace(
        opened.facts,
        subject=name_text(names.subject),
        sans=tuple(f"{san.kind}:{san.value}" for san in names.sans),
        device_id=_device_id(names.sans),
    )
    return replace(opened, facts=facts)


def _device_id(sans: Iterable[GeneralName]) -> str:
    """Return the GUID of an IntuneDeviceId URI in lower case, "" if there is none."""
    found = (_DEVICE_ID.fullmatch(san.value) for san in sans if san.kind == "uri")
    return next((match[1].lower() for match in found if match), "")


def key_kind(key: PublicKey) -> tuple[str, int]:
    """Return a key's type and size in bits: ("rsa", 2048) or ("p256", 256)."""
    if isinstance(key, rsa.RSAPublicKey):
        return "rsa", key.key_size
    names = {"secp256r1": "p256", "secp384r1": "p384", "secp521r1": "p521"}
    return names.get(key.curve.name, key.curve.name), key.curve.key_size
