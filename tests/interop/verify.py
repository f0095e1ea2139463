"""What must hold for every certificate, whichever client asked for it, and for its record."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from services.audit.query.lookup import EnrollmentLine, recent
from services.audit.settings import database_url
from services.audit.store.engine import open_engine
from shared.config.load import load
from tests.interop.clients import succeed, told
from tests.support.system import System, wait_until
from tests.support.tools import need

CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)
ALLOWED_EXTENSIONS = {
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
}
AUDIT_SECONDS = 30
RENEWAL_REQ, PKCS_REQ = 17, 19
BACKDATE = timedelta(minutes=10)


def check_enrolled(
    system: System,
    profile: str,
    files: tuple[Path, Path],
    subject: str,
    sans: Sequence[x509.GeneralName] = (),
    usages: Sequence[x509.ObjectIdentifier] = CLIENT,
) -> x509.Certificate:
    """The (certificate, key) files hold what was asked for, and the audit says so."""
    certificate = check_issued(system, files, subject, sans, usages)
    check_recorded(system, profile, certificate)
    return certificate


def check_issued(
    system: System,
    files: tuple[Path, Path],
    subject: str,
    sans: Sequence[x509.GeneralName] = (),
    usages: Sequence[x509.ObjectIdentifier] = CLIENT,
) -> x509.Certificate:
    """Chain, key, names and rights of an issued certificate."""
    path, key = files
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    verify_strictly(path, system.ca_file)
    assert spki(certificate) == spki(load_pem_private_key(key.read_bytes(), None))
    assert name_of(certificate.subject) == subject
    check_sans(certificate, sans)
    check_rights(certificate, usages)
    check_validity(certificate, system)
    return certificate


def check_renewed(
    system: System,
    profile: str,
    files: tuple[Path, Path],
    old: x509.Certificate,
    message_type: int = PKCS_REQ,
) -> x509.Certificate:
    """The files hold another certificate with the old one's names, on record as its renewal."""
    names = [e.value for e in old.extensions if e.oid == x509.SubjectAlternativeName.oid]
    sans = [name for value in names for name in value]
    new = check_enrolled(system, profile, files, name_of(old.subject), sans)
    assert new.serial_number != old.serial_number
    told = events(system, f"{new.serial_number:032x}")
    assert told["EnrollmentRequested"]["message_type"] == message_type
    assert told["EnrollmentApproved"]["renews"]["serial"] == f"{old.serial_number:032x}"
    return new


def events(system: System, wanted: str) -> dict[str, Any]:
    """What each event of an enrollment says, by its type."""
    done = system.cli("audit", "show", wanted, "--json", "--config", str(system.config))
    return {event["type"]: event for event in map(json.loads, done.stdout.splitlines())}


def let_a_second_pass(certificate: x509.Certificate) -> None:
    """A certificate follows from its contents: of one key in one second there is but one."""
    begun = certificate.not_valid_before_utc + BACKDATE
    wait_until(lambda: datetime.now(UTC) >= begun + timedelta(seconds=1), 5, "the next second")


def check_fetched(path: Path, wanted: x509.Certificate) -> None:
    """What GetCert brought is the certificate to the byte."""
    assert x509.load_pem_x509_certificate(path.read_bytes()) == wanted


def check_crl(system: System, crl: x509.CertificateRevocationList) -> None:
    """What GetCRL brought is of the CA and of now."""
    ca = x509.load_pem_x509_certificate(system.ca_file.read_bytes())
    public_key = ca.public_key()
    assert isinstance(public_key, rsa.RSAPublicKey)
    assert crl.issuer == ca.subject
    assert crl.is_signature_valid(public_key)
    assert crl.next_update_utc is not None
    assert crl.last_update_utc <= datetime.now(UTC) < crl.next_update_utc


def verify_strictly(path: Path, ca_file: Path) -> None:
    """OpenSSL finds the chain in order, by RFC 5280 to the letter."""
    openssl = need("openssl", "openssl")
    command = [openssl, "verify", "-x509_strict", "-CAfile", ca_file, path]
    done = succeed(command, path.parent)
    assert done.stdout == f"{path}: OK\n", told(done)


def check_sans(certificate: x509.Certificate, wanted: Sequence[x509.GeneralName]) -> None:
    """These names in this order; without any no extension at all."""
    found = [e.value for e in certificate.extensions if e.oid == x509.SubjectAlternativeName.oid]
    assert [list(value) for value in found] == ([list(wanted)] if wanted else [])


def check_rights(
    certificate: x509.Certificate, usages: Sequence[x509.ObjectIdentifier] = CLIENT
) -> None:
    """A device and nothing more: whatever else a CSR asks for is not copied."""
    extensions = certificate.extensions
    assert {e.oid for e in extensions} <= ALLOWED_EXTENSIONS
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert usage.value.key_encipherment
    assert not usage.value.key_cert_sign
    assert not usage.value.crl_sign
    extended = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(extended) == list(usages)


def check_validity(certificate: x509.Certificate, system: System) -> None:
    """Valid now, and not for longer than its CA."""
    ca = x509.load_pem_x509_certificate(system.ca_file.read_bytes())
    assert certificate.not_valid_before_utc <= datetime.now(UTC) < certificate.not_valid_after_utc
    assert certificate.not_valid_after_utc <= ca.not_valid_after_utc


def check_recorded(system: System, profile: str, certificate: x509.Certificate) -> None:
    """The audit finds the certificate by its serial number and knows whose it is."""
    serial = f"{certificate.serial_number:032x}"
    line = record(system, serial, "issued")
    assert line.result == "issued"
    assert line.serial == serial
    assert line.profile == profile
    assert line.device == name_of(certificate.subject)


def check_refused(
    system: System, profile: str, common_name: str, why: str = "challenge_wrong"
) -> None:
    """The audit finds the refusal by the device's name; there is no certificate to it."""
    line = record(system, common_name, "rejected")
    assert line.result == why
    assert line.profile == profile
    assert not line.serial


def record(system: System, search: str, state: str) -> EnrollmentLine:
    """The one enrollment that fits, as soon as the read model has it in this state."""

    def found() -> EnrollmentLine | None:
        lines = records(system, search)
        assert len(lines) <= 1, lines
        return next((line for line in lines if line.state == state), None)

    return wait_until(found, AUDIT_SECONDS, f"state {state} of {search} in the audit")


def records(system: System, search: str) -> list[EnrollmentLine]:
    """What the audit has on a device or serial number."""
    engine = open_engine(database_url(load(system.config)))
    try:
        return recent(engine, 10, search=search)
    finally:
        engine.dispose()


def name_of(name: x509.Name) -> str:
    """A name in the order in which it is written: `C=NL, O=Lab, CN=device`."""
    return ", ".join(f"{a.rfc4514_attribute_name}={a.value}" for a in name)


def spki(holder: Any) -> bytes:
    """The public key of a certificate or private key, as DER."""
    return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
