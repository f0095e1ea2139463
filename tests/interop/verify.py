"""What must hold for every certificate, whichever client asked for it, and for its record."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from tests.interop.clients import succeed, told
from tests.system import System, wait_until
from tests.tools import need

ALLOWED_EXTENSIONS = {
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
}
AUDIT_SECONDS = 30


def check_enrolled(
    system: System,
    profile: str,
    files: tuple[Path, Path],
    subject: str,
    sans: Sequence[x509.GeneralName] = (),
) -> x509.Certificate:
    """The (certificate, key) files hold what was asked for, and the audit says so."""
    certificate = check_issued(system, files, subject, sans)
    check_recorded(system, profile, certificate)
    return certificate


def check_issued(
    system: System, files: tuple[Path, Path], subject: str, sans: Sequence[x509.GeneralName] = ()
) -> x509.Certificate:
    """Chain, key, names and rights of an issued certificate."""
    path, key = files
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    verify_strictly(path, system.ca_file)
    assert spki(certificate) == spki(load_pem_private_key(key.read_bytes(), None))
    assert name_of(certificate.subject) == subject
    check_sans(certificate, sans)
    check_rights(certificate)
    check_validity(certificate, system)
    return certificate


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


def check_rights(certificate: x509.Certificate) -> None:
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
    assert list(extended) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def check_validity(certificate: x509.Certificate, system: System) -> None:
    """Valid now, and not for longer than its CA."""
    ca = x509.load_pem_x509_certificate(system.ca_file.read_bytes())
    assert certificate.not_valid_before_utc <= datetime.now(UTC) < certificate.not_valid_after_utc
    assert certificate.not_valid_after_utc <= ca.not_valid_after_utc


def check_recorded(system: System, profile: str, certificate: x509.Certificate) -> None:
    """The audit finds the certificate by its serial number and knows whose it is."""
    serial = f"{certificate.serial_number:032x}"
    line = record(system, serial, "issued")
    assert line["result"] == "issued"
    assert line["serial"] == serial
    assert line["profile"] == profile
    assert line["device"] == name_of(certificate.subject)


def check_refused(
    system: System, profile: str, common_name: str, why: str = "challenge_wrong"
) -> None:
    """The audit finds the refusal by the device's name; there is no certificate to it."""
    line = record(system, common_name, "rejected")
    assert line["result"] == why
    assert line["profile"] == profile
    assert not line["serial"]


def record(system: System, search: str, state: str) -> dict[str, Any]:
    """The one enrollment that fits, as soon as the read model has it in this state."""

    def found() -> dict[str, Any] | None:
        lines = records(system, search)
        assert len(lines) <= 1, lines
        return next((line for line in lines if line["state"] == state), None)

    return wait_until(found, AUDIT_SECONDS, f"state {state} of {search} in the audit")


def records(system: System, search: str) -> list[dict[str, Any]]:
    """What `scepstream audit list` has on a device or serial number."""
    done = system.cli("audit", "list", "--config", str(system.config), "--json", "--search", search)
    assert done.returncode == 0, told(done)
    return [json.loads(line) for line in done.stdout.splitlines()]


def name_of(name: x509.Name) -> str:
    """A name in the order in which it is written: `C=NL, O=Lab, CN=device`."""
    return ", ".join(f"{a.rfc4514_attribute_name}={a.value}" for a in name)


def spki(holder: Any) -> bytes:
    """The public key of a certificate or private key, as DER."""
    return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
