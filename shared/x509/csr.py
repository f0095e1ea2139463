"""PKCS#10 as devices send it: exact bytes, attributes in any order, odd strings (RFC 2986).

A CSR is read in three steps, because anyone who captured a device's message can alter its
ciphertext and observe the answer. `read_csr` parses only what the signature needs.
`verify_self_signature` proves that the bytes are the device's own. Only then does `read_request`
read attributes and names, whose errors may be disclosed.
"""

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from shared.limits import (
    CHALLENGE_BYTES,
    CSR_ATTRIBUTES,
    CSR_EXTENSIONS,
    NAME_BYTES,
    SAN_BYTES,
    SAN_ENTRIES,
)
from shared.scep.algorithms import AlgorithmPolicy
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
    tlv,
)
from shared.scep.errors import FailInfo, ScepError
from shared.scep.schemes import PublicKey, public_key, read_signature_algorithm, verifies
from shared.x509.names import GeneralName, read_general_names

SUBJECT_ALT_NAME: Final = "2.5.29.17"
EXTENDED_KEY_USAGE: Final = "2.5.29.37"
_CHALLENGE_PASSWORD: Final = object_identifier("1.2.840.113549.1.9.7")
# Extensions are requested in PKCS#9's attribute, or in Microsoft's with the same syntax.
_EXTENSION_REQUESTS: Final = (
    object_identifier("1.2.840.113549.1.9.14"),
    object_identifier("1.3.6.1.4.1.311.2.1.14"),
)
# Pairs of name and value by which Windows asks for a validity ([MS-WCCE] 2.2.2.7.10).
_NAME_VALUE_PAIR: Final = object_identifier("1.3.6.1.4.1.311.13.2.1")
_PERIOD: Final = "validityperiod"
_UNITS: Final = "validityperiodunits"
_SECONDS: Final = {
    "seconds": 1,
    "minutes": 60,
    "hours": 3600,
    "days": 86400,
    "weeks": 7 * 86400,
    "months": 30 * 86400,
    "years": 365 * 86400,
}
_UNIT_DIGITS: Final = 6
_BOOLEAN: Final = 0x01


@dataclass(frozen=True, slots=True)
class Extension:
    """A requested X.509 extension: dotted OID, and the DER inside its OCTET STRING.

    The client's critical flag is ignored: the profile decides that.
    """

    oid: str
    value: bytes


@dataclass(frozen=True)
class CertificationRequest:
    """A CSR parsed by position; `info` is the CertificationRequestInfo exactly as received.

    `subject`, `spki` and `signature_algorithm` are whole DER elements, `attributes` is the contents
    of the attributes' SET. The properties that parse attributes raise `ScepError` (badRequest).
    """

    info: bytes
    subject: bytes
    spki: bytes
    attributes: bytes
    signature_algorithm: bytes
    signature: bytes

    @cached_property
    def challenge(self) -> str | None:
        """The challengePassword, or None if it is absent or blank (RFC 2985 s5.4.1)."""
        found = [values for oid, values in self._values if oid == _CHALLENGE_PASSWORD]
        if len(found) > 1:
            raise _bad_request("duplicate challengePassword")
        return _challenge(found[0]) if found else None

    @cached_property
    def extensions(self) -> tuple[Extension, ...]:
        """The requested extensions, in order and without duplicates.

        RFC 2985 has a single attribute for them; some clients send the SAN in one of its own.
        """
        found: dict[Extension, None] = {}
        for oid, values in self._values:
            if oid in _EXTENSION_REQUESTS:
                _read_extensions(values, found)
        return tuple(found)

    @cached_property
    def san_value(self) -> bytes | None:
        """The requested subjectAltName (DER), or None."""
        values = [e.value for e in self.extensions if e.oid == SUBJECT_ALT_NAME]
        if len(set(values)) > 1:
            raise _bad_request("conflicting subjectAltName extensions")
        return values[0] if values else None

    @cached_property
    def sans(self) -> tuple[GeneralName, ...]:
        """The requested subjectAltName entries, in order."""
        return read_general_names(self.san_value) if self.san_value is not None else ()

    @cached_property
    def extended_key_usages(self) -> tuple[str, ...]:
        """The requested extended key usages as dotted OIDs, in order; empty if there are none."""
        values = {e.value for e in self.extensions if e.oid == EXTENDED_KEY_USAGE}
        if len(values) > 1:
            raise _bad_request("conflicting extendedKeyUsage extensions")
        return _usages(values.pop()) if values else ()

    @cached_property
    def validity(self) -> int | None:
        """The requested validity in seconds, or None. A month has 30 days, a year 365."""
        asked: dict[str, set[str]] = {}
        for oid, values in self._values:
            if oid == _NAME_VALUE_PAIR:
                _read_pairs(values, asked)
        return _validity(asked)

    @property
    def names(self) -> bytes:
        """The requested subject and subjectAltName (DER), which a renewal may not change.

        An empty subjectAltName is omitted: no certificate carries one.
        """
        return self.subject + (self.san_value or b"" if self.sans else b"")

    @property
    def der(self) -> bytes:
        """The whole CSR, with the exact bytes that were signed."""
        signature = tlv(BIT_STRING, b"\0", self.signature)
        return tlv(SEQUENCE, self.info, self.signature_algorithm, signature)

    @cached_property
    def public_key(self) -> PublicKey:
        """The RSA or EC key to certify; `ScepError` (badAlg) for other keys."""
        return public_key(self.spki)

    @cached_property
    def _values(self) -> list[tuple[bytes, bytes]]:
        """The (type, contents of the SET of values) of each attribute."""
        der = Der(self.attributes)
        found: list[tuple[bytes, bytes]] = []
        try:
            while der.more() and len(found) <= CSR_ATTRIBUTES:
                attribute = der.enter(SEQUENCE)
                found.append((attribute.element(OID), attribute.value(SET)))
        except ScepError as error:
            raise _bad_request(error.detail) from None
        if len(found) > CSR_ATTRIBUTES:
            raise _bad_request(f"the CSR has more than {CSR_ATTRIBUTES} attributes")
        return found


def read_csr(der: bytes) -> CertificationRequest:
    """Parse a CSR of any version (Apple sends 2), without verifying it."""
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
    attributes = body.value(CONSTRUCTED_0) if body.next_is(CONSTRUCTED_0) else b""
    return CertificationRequest(info, subject, spki, attributes, algorithm, signature[1:])


def verify_self_signature(csr: CertificationRequest) -> None:
    """Verify proof of possession: the signature over the CertificationRequestInfo as received."""
    scheme, digest = read_signature_algorithm(csr.signature_algorithm)
    if not verifies(csr.public_key, scheme, digest, csr.signature, csr.info):
        raise ScepError("CSR signature does not verify")


def read_request(csr: CertificationRequest, policy: AlgorithmPolicy) -> None:
    """Check the contents of a CSR with a verified signature against policy and `shared.limits`.

    Raises `ScepError`: badAlg for a signature that the profile's policy does not allow, otherwise
    badRequest.
    """
    _, digest = read_signature_algorithm(csr.signature_algorithm)
    if digest.legacy and not policy.legacy:
        detail = f"the CSR is signed with {digest.name}, which needs a legacy profile"
        raise ScepError(detail, FailInfo.BAD_ALG)
    if len(csr.subject) > NAME_BYTES:
        raise _bad_request(f"the subject has more than {NAME_BYTES} bytes")
    if len(csr.san_value or b"") > SAN_BYTES:
        raise _bad_request(f"the subjectAltName has more than {SAN_BYTES} bytes")
    if len(csr.sans) > SAN_ENTRIES:
        raise _bad_request(f"the subjectAltName has more than {SAN_ENTRIES} entries")
    _ = csr.challenge, csr.extended_key_usages, csr.validity


def _bad_request(detail: str) -> ScepError:
    return ScepError(detail, FailInfo.BAD_REQUEST)


def _challenge(values: bytes) -> str | None:
    """Return a challengePassword of any string type, or None if it is blank."""
    try:
        tag, contents = Der(values).any()
    except ScepError as error:
        raise _bad_request(f"challengePassword: {error.detail}") from None
    challenge = text(tag, contents) if is_string(tag) else None
    if challenge is None or len(challenge.encode()) > CHALLENGE_BYTES:
        raise _bad_request("challengePassword is not a string or too long")
    return challenge if challenge.strip() else None


def _read_extensions(values: bytes, found: dict[Extension, None]) -> None:
    """Add the extensions of one attribute to `found`; duplicates are ignored."""
    try:
        der = Der(values).enter(SEQUENCE)
        while der.more() and len(found) <= CSR_EXTENSIONS:
            extension = der.enter(SEQUENCE)
            oid = dotted(extension.value(OID))
            extension.skip_if(_BOOLEAN)  # critical
            found[Extension(oid, extension.value(OCTET_STRING))] = None
    except ScepError as error:
        raise _bad_request(error.detail) from None
    if len(found) > CSR_EXTENSIONS:
        raise _bad_request(f"more than {CSR_EXTENSIONS} extensions requested")


def _usages(value: bytes) -> tuple[str, ...]:
    found: list[str] = []
    try:
        outer = Der(value)
        usages = outer.enter(SEQUENCE)
        outer.finish()
        while usages.more() and len(found) <= CSR_EXTENSIONS:
            found.append(dotted(usages.value(OID)))
    except ScepError as error:
        raise _bad_request(f"extendedKeyUsage: {error.detail}") from None
    if not 0 < len(found) <= CSR_EXTENSIONS:
        raise _bad_request(f"extendedKeyUsage names none or more than {CSR_EXTENSIONS} usages")
    return tuple(found)


def _read_pairs(values: bytes, found: dict[str, set[str]]) -> None:
    """Add the values about a validity in one attribute to `found`, by name in lower case.

    What does not parse says nothing about a validity.
    """
    with suppress(ScepError):
        der = Der(values)
        while der.more():
            pair = der.enter(SEQUENCE)
            name, value = (text(*pair.any()).strip().lower() for _ in range(2))
            if name in (_PERIOD, _UNITS):
                found.setdefault(name, set()).add(value)


def _validity(asked: dict[str, set[str]]) -> int | None:
    if not asked:
        return None
    if any(len(values) > 1 for values in asked.values()):
        raise _bad_request("conflicting values of ValidityPeriod or its units")
    period, units = ("".join(asked.get(name, ())) for name in (_PERIOD, _UNITS))
    if units in _SECONDS:  # Intune on Android swaps the two values
        period, units = units, period
    seconds = _SECONDS.get(period)
    is_number = units.isascii() and units.isdecimal() and len(units) <= _UNIT_DIGITS
    if seconds is None or not is_number or int(units) == 0:
        raise _bad_request("ValidityPeriod is not a number of seconds, minutes, hours ... or years")
    return seconds * int(units)
