"""Full checks of CertReps with asn1crypto and cryptography, not with the codec under test."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from asn1crypto import cms as asn1
from asn1crypto.core import Any, Asn1Value
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.x509.oid import NameOID

from benchmarks import parties
from benchmarks.definite import definite
from benchmarks.enrollments import Enrollment

_SCEP = "2.16.840.1.113733.1.9."
_MESSAGE_TYPE, _PKI_STATUS, _FAIL_INFO = _SCEP + "2", _SCEP + "3", _SCEP + "4"
_SENDER_NONCE, _RECIPIENT_NONCE, _TRANSACTION_ID = _SCEP + "5", _SCEP + "6", _SCEP + "7"
_CONTENT_TYPE, _MESSAGE_DIGEST = "1.2.840.113549.1.9.3", "1.2.840.113549.1.9.4"
_STATUS = {b"0": "SUCCESS", b"2": "FAILURE", b"3": "PENDING"}
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
_ISSUER_DEPTH = 4


class WrongReply(Exception):  # noqa: N818 - a result of the check, not an error in it
    """Raised for an incorrect reply; says what is wrong."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The outer layer of a CertRep: its signer is verified, its content still encrypted."""

    attributes: dict[str, Asn1Value]
    content: bytes

    def value(self, oid: str) -> bytes:
        found = self.attributes.get(oid)
        if isinstance(found, Any):  # an attribute that asn1crypto does not know
            found = found.parse()
        return b"" if found is None else bytes(found.contents)


def check(
    enrollment: Enrollment,
    body: bytes,
    authorities: Sequence[x509.Certificate],
    *,
    lenient: bool = False,
) -> x509.Certificate:
    """Return the certificate in a correct reply; raise `WrongReply` for any other.

    `lenient` accepts single DES, with which the peer server answers whatever the request used.
    """
    try:
        reply = _open(body, authorities)
        _check_attributes(enrollment, reply)
        found = certificates(_decrypt(enrollment, reply.content, lenient=lenient))
        return _leaf(enrollment, found, authorities)
    except WrongReply:
        raise
    except InvalidSignature:
        raise WrongReply("certificate does not verify") from None
    except Exception as error:  # whatever the two libraries raise for malformed input
        raise WrongReply(f"unreadable: {type(error).__name__}: {error}"[:120]) from error


def certificates(body: bytes) -> list[x509.Certificate]:
    """Return the certificates of a degenerate SignedData, or the one certificate in `body`."""
    try:
        info = asn1.ContentInfo.load(definite(body), strict=True)
        choices = info["content"]["certificates"]
    except (ValueError, TypeError, LookupError):
        return [x509.load_der_x509_certificate(body)]
    return [x509.load_der_x509_certificate(choice.chosen.dump()) for choice in choices]


def _open(body: bytes, authorities: Sequence[x509.Certificate]) -> Reply:
    info = asn1.ContentInfo.load(definite(body), strict=True)
    _expect(info["content_type"].native == "signed_data", "not a SignedData")
    signed = info["content"]
    _expect(len(signed["signer_infos"]) == 1, "not one signer")
    signer_info = signed["signer_infos"][0]
    content = signed["encap_content_info"]["content"].native or b""
    attributes = {each["type"].dotted: each["values"][0] for each in signer_info["signed_attrs"]}
    reply = Reply(attributes, content)
    carried = [x509.load_der_x509_certificate(c.chosen.dump()) for c in signed["certificates"]]
    key = _signer(signer_info["sid"], carried, authorities)
    _verify(signer_info, key, reply)
    return reply


def _signer(
    sid: asn1.SignerIdentifier,
    carried: Iterable[x509.Certificate],
    authorities: Sequence[x509.Certificate],
) -> rsa.RSAPublicKey:
    """Return the signer's key; its certificate must be, or be issued by, one of GetCACert's."""
    named = sid.chosen
    for certificate in (*authorities, *carried):
        if certificate.serial_number != named["serial_number"].native:
            continue
        if certificate.issuer.public_bytes() != named["issuer"].dump():
            continue
        _expect(_is_trusted(certificate, authorities), "signer is not the CA's")
        key = certificate.public_key()
        if not isinstance(key, rsa.RSAPublicKey):
            raise WrongReply("signer's key is not RSA")
        return key
    raise WrongReply("signer's certificate missing")


def _is_trusted(certificate: x509.Certificate, authorities: Sequence[x509.Certificate]) -> bool:
    return certificate in authorities or any(
        _issued_by(certificate, authority) for authority in authorities
    )


def _issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return _may_issue(issuer)


def _may_issue(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return False
    return constraints.value.ca


def _verify(signer_info: asn1.SignerInfo, key: rsa.RSAPublicKey, reply: Reply) -> None:
    """Verify digest and signature (RFC 5652 s5.4 and s5.6) over the attributes as received."""
    algorithm = _HASHES[signer_info["digest_algorithm"]["algorithm"].native]
    state = hashes.Hash(algorithm)
    state.update(reply.content)
    _expect(reply.value(_MESSAGE_DIGEST) == state.finalize(), "messageDigest differs")
    _expect(_CONTENT_TYPE in reply.attributes, "contentType missing")
    attributes = signer_info["signed_attrs"].untag().dump()
    try:
        key.verify(signer_info["signature"].native, attributes, padding.PKCS1v15(), algorithm)
    except InvalidSignature:
        raise WrongReply("signature does not verify") from None


def _check_attributes(enrollment: Enrollment, reply: Reply) -> None:
    """Check the attributes of a CertRep (RFC 8894 s3.2.1 and s3.3.2)."""
    _expect(reply.value(_MESSAGE_TYPE) == b"3", "messageType is not CertRep")
    transaction = enrollment.transaction_id.encode()
    _expect(reply.value(_TRANSACTION_ID) == transaction, "transactionID differs")
    _expect(reply.value(_RECIPIENT_NONCE) == enrollment.nonce, "recipientNonce differs")
    _expect(len(reply.value(_SENDER_NONCE)) > 0, "senderNonce missing")
    code = reply.value(_PKI_STATUS)
    status = _STATUS.get(code, "of no known value")
    info = reply.value(_FAIL_INFO).decode("ascii", "replace")
    _expect(code == b"0", f"pkiStatus {status}" + (f", failInfo {info}" if info else ""))


def _decrypt(enrollment: Enrollment, content: bytes, *, lenient: bool) -> bytes:
    """Decrypt the reply's envelope with the device's key."""
    info = asn1.ContentInfo.load(definite(content), strict=True)
    _expect(info["content_type"].native == "enveloped_data", "content is not an EnvelopedData")
    recipient = info["content"]["recipient_infos"][0].chosen
    serial = enrollment.device.certificate.serial_number
    _expect(recipient["rid"].chosen["serial_number"].native == serial, "other recipient")
    encrypted = info["content"]["encrypted_content_info"]
    key = enrollment.device.key.decrypt(recipient["encrypted_key"].native, _transport(recipient))
    algorithm = encrypted["content_encryption_algorithm"]
    cipher = _cipher(algorithm["algorithm"].dotted, key, lenient=lenient)
    mode = modes.CBC(algorithm["parameters"].native)
    decryptor = Cipher(cipher, mode).decryptor()
    padded = decryptor.update(encrypted["encrypted_content"].native) + decryptor.finalize()
    unpadder = PKCS7(cipher.block_size).unpadder()
    return unpadder.update(padded) + unpadder.finalize()


def _transport(recipient: asn1.KeyTransRecipientInfo) -> padding.AsymmetricPadding:
    algorithm = recipient["key_encryption_algorithm"]["algorithm"].native
    _expect(algorithm in ("rsa", "rsaes_pkcs1v15"), f"key transport {algorithm}")
    return padding.PKCS1v15()


def _cipher(oid: str, key: bytes, *, lenient: bool) -> algorithms.AES | TripleDES:
    if oid.startswith("2.16.840.1.101.3.4.1."):
        return algorithms.AES(key)
    if oid == "1.2.840.113549.3.7":
        return TripleDES(key)
    if oid == "1.3.14.3.2.7" and lenient:
        return TripleDES(key * 3)
    raise WrongReply(f"content cipher {oid}")


def _leaf(
    enrollment: Enrollment,
    found: Sequence[x509.Certificate],
    authorities: Sequence[x509.Certificate],
) -> x509.Certificate:
    """Return the certificate with the requested key and name; valid now, chaining to the CA."""
    wanted = parties.spki(enrollment.device.key.public_key())
    leaves = [each for each in found if _spki(each) == wanted]
    _expect(leaves, "no certificate with the requested key")
    leaf = leaves[0]
    names = [str(a.value) for a in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    _expect(names == [enrollment.common_name], "certificate names another device")
    valid = leaf.not_valid_before_utc <= parties.now() <= leaf.not_valid_after_utc
    _expect(valid, "certificate is not valid now")
    _expect(_chains(leaf, found, authorities), "certificate does not chain to the CA")
    return leaf


def _spki(certificate: x509.Certificate) -> bytes | None:
    key = certificate.public_key()
    return parties.spki(key) if isinstance(key, rsa.RSAPublicKey) else None


def _chains(
    leaf: x509.Certificate,
    found: Sequence[x509.Certificate],
    authorities: Sequence[x509.Certificate],
) -> bool:
    """Return whether issuers among the reply's certificates lead to a CA of GetCACert."""
    current = leaf
    for _ in range(_ISSUER_DEPTH):
        if any(_issued_by(current, authority) for authority in authorities):
            return True
        issuer = next((each for each in found if _issued_by(current, each)), None)
        if issuer is None:
            return False
        current = issuer
    return False


def _expect(holds: object, reason: str) -> None:
    if not holds:
        raise WrongReply(reason)
