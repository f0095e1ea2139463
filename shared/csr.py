"""PKCS#10 as devices send it: exact bytes kept, attributes in any order, odd strings (RFC 2986)."""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from shared.names import GeneralName, read_general_names
from shared.scep.asn1 import (
    BIT_STRING,
    CONSTRUCTED_0,
    INTEGER,
    OCTET_STRING,
    OID,
    SEQUENCE,
    SET,
    Der,
    dotted,
    is_string,
    object_identifier,
    text,
)
from shared.scep.errors import FailInfo, ScepError
from shared.scep.schemes import PublicKey, public_key, read_signature_algorithm, verifies

MAX_CHALLENGE_BYTES: Final = 32 * 1024
SUBJECT_ALT_NAME: Final = "2.5.29.17"
_CHALLENGE_PASSWORD: Final = object_identifier("1.2.840.113549.1.9.7")
_EXTENSION_REQUEST: Final = object_identifier("1.2.840.113549.1.9.14")
_BOOLEAN: Final = 0x01


@dataclass(frozen=True, slots=True)
class Extension:
    """An X.509 extension: dotted OID, criticality, and the DER inside its OCTET STRING."""

    oid: str
    critical: bool
    value: bytes


@dataclass(frozen=True)
class CertificationRequest:
    """A CSR by position: `info` is the CertificationRequestInfo exactly as received.

    `subject`, `spki` and `signature_algorithm` are whole DER elements; `challenge` is None where
    absent or blank.
    """

    info: bytes
    subject: bytes
    spki: bytes
    challenge: str | None
    extensions: tuple[Extension, ...]
    signature_algorithm: bytes
    signature: bytes

    @cached_property
    def sans(self) -> tuple[GeneralName, ...]:
        """The requested subjectAltName entries, in order."""
        values = [e.value for e in self.extensions if e.oid == SUBJECT_ALT_NAME]
        if len(values) > 1:
            raise ScepError("subjectAltName twice", FailInfo.BAD_REQUEST)
        return read_general_names(values[0]) if values else ()

    @property
    def names(self) -> bytes:
        """Subject and subjectAltName as they are asked for: what a renewal may not change.

        An empty subjectAltName is none: no certificate carries it.
        """
        if not self.sans:
            return self.subject
        sans = (e.value for e in self.extensions if e.oid == SUBJECT_ALT_NAME)
        return self.subject + b"".join(sans)

    @cached_property
    def public_key(self) -> PublicKey:
        """The RSA or EC key that a certificate is asked for; others are badAlg."""
        return public_key(self.spki)


def read_csr(der: bytes) -> CertificationRequest:
    """Walk a CSR of any version (Apple sends 2); nothing is verified yet."""
    outer = Der(der)
    request = outer.enter(SEQUENCE)
    if outer.rest().strip(b"\r\n"):
        raise ScepError("bytes after the CSR")
    info = request.element(SEQUENCE)
    algorithm = request.element(SEQUENCE)
    signature = request.value(BIT_STRING)
    request.finish()
    if signature[:1] != b"\0":
        raise ScepError("signature is not whole octets")
    body = Der(info).enter(SEQUENCE)
    body.value(INTEGER)
    subject, spki = body.element(SEQUENCE), body.element(SEQUENCE)
    attributes = body.enter(CONSTRUCTED_0) if body.next_is(CONSTRUCTED_0) else Der(b"")
    challenge, extensions = _attributes(attributes)
    return CertificationRequest(
        info, subject, spki, challenge, extensions, algorithm, signature[1:]
    )


def _attributes(der: Der) -> tuple[str | None, tuple[Extension, ...]]:
    """(challengePassword, requested extensions); other attributes are passed over."""
    challenge: str | None = None
    extensions: tuple[Extension, ...] = ()
    seen = False
    while der.more():
        attribute = der.enter(SEQUENCE)
        oid, values = attribute.element(OID), attribute.enter(SET)
        if oid == _CHALLENGE_PASSWORD:
            if seen:
                raise ScepError("challengePassword twice")
            seen = True
            challenge = _challenge(*values.any())
        elif oid == _EXTENSION_REQUEST:
            # One each for the SAN and the rest is what some clients send (RFC 2985 has one).
            extensions += _extensions(values.enter(SEQUENCE))
    return challenge, extensions


def _challenge(tag: int, contents: bytes) -> str | None:
    """A challengePassword in any of the string types; blank is absent (RFC 2985 s5.4.1)."""
    if not is_string(tag) or len(contents) > MAX_CHALLENGE_BYTES:
        raise ScepError("challengePassword is no string or too long")
    challenge = text(tag, contents)
    return challenge if challenge.strip() else None


def _extensions(der: Der) -> tuple[Extension, ...]:
    found = []
    while der.more():
        extension = der.enter(SEQUENCE)
        oid = dotted(extension.value(OID))
        critical = extension.next_is(_BOOLEAN) and extension.value(_BOOLEAN) != b"\0"
        found.append(Extension(oid, critical, extension.value(OCTET_STRING)))
    return tuple(found)


def verify_self_signature(csr: CertificationRequest) -> None:
    """Proof of possession: the signature over the CertificationRequestInfo as received."""
    scheme, digest = read_signature_algorithm(csr.signature_algorithm)
    if not verifies(csr.public_key, scheme, digest, csr.signature, csr.info):
        raise ScepError("CSR signature does not verify")
