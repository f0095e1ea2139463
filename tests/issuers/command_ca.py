"""A little CA as a program: what docs/issuers/command.md asks for, with a register in SQLite.

PYTHON command_ca.py FOLDER VERB [KEY OR SERIAL]. FOLDER has ca.pem, ca.key and register.db.
"""

import base64
import datetime as dt
import hmac
import json
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

SCHEMA: Final = """
create table if not exists orders (
    key text primary key, serial text not null, certificate text not null, revoked text
)
"""
FIELDS: Final = {
    "digitalSignature": "digital_signature",
    "nonRepudiation": "content_commitment",
    "keyEncipherment": "key_encipherment",
    "dataEncipherment": "data_encipherment",
    "keyAgreement": "key_agreement",
    "keyCertSign": "key_cert_sign",
    "cRLSign": "crl_sign",
}


class RefusedError(Exception):
    """What the CA does not want to do."""


def sign(folder: Path, asked: dict[str, Any]) -> x509.Certificate:
    ca = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    key: Any = load_pem_private_key((folder / "ca.key").read_bytes(), None)
    csr = x509.load_pem_x509_csr(asked["csr"].encode())
    if not csr.is_signature_valid:
        raise RefusedError("the CSR is not signed by its key")
    ends = dt.datetime.fromisoformat(asked["not_after"])
    if ends > ca.not_valid_after_utc:
        raise RefusedError("the certificate would outlive the CA")
    usages = {field: name in asked["key_usages"] for name, field in FIELDS.items()}
    builder = (
        x509.CertificateBuilder()
        .issuer_name(ca.subject)
        .subject_name(x509.Name.from_rfc4514_string(asked["subject"]))
        .public_key(csr.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(dt.datetime.fromisoformat(asked["not_before"]))
        .not_valid_after(ends)
        .add_extension(
            x509.KeyUsage(**usages, encipher_only=False, decipher_only=False), critical=True
        )
        .add_extension(
            x509.ExtendedKeyUsage(
                [x509.ObjectIdentifier(oid) for oid in asked["extended_key_usages"]]
            ),
            critical=False,
        )
    )
    names = [x509.DNSName(each["value"]) for each in asked["subject_alt_names"]]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256())


def issue(folder: Path, register: sqlite3.Connection, asked: dict[str, Any]) -> dict[str, Any]:
    """Sign once for a key: a second process waits for the lock and finds the certificate."""
    register.execute("begin immediate")
    found = status(register, asked)
    if found["status"] == "absent":
        made = sign(folder, asked)
        pem = made.public_bytes(Encoding.PEM).decode()
        register.execute(
            "insert into orders values (?, ?, ?, null)",
            (asked["key"], f"{made.serial_number:x}", pem),
        )
        found = {"status": "issued", "certificate": pem}
    register.execute("commit")
    return found


def status(register: sqlite3.Connection, asked: dict[str, Any]) -> dict[str, Any]:
    row = register.execute(
        "select certificate from orders where key = ?", (asked["key"],)
    ).fetchone()
    return {"status": "issued", "certificate": row[0]} if row else {"status": "absent"}


def revoke(register: sqlite3.Connection, asked: dict[str, Any]) -> dict[str, Any]:
    if asked["reason"] == "certificateHold":
        value: str | None = "hold"
    else:
        value = None if asked["reason"] == "removeFromCRL" else asked["reason"]
    changed = register.execute(
        "update orders set revoked = ? where serial = ?", (value, f"{int(asked['serial'], 16):x}")
    )
    register.commit()
    if not changed.rowcount:
        raise RefusedError("no certificate of this CA has the serial number")
    return {"status": "revoked"}


def check(folder: Path) -> dict[str, Any]:
    return {"status": "ok", "chain": [(folder / "ca.pem").read_text()]}


def answer(folder: Path, verb: str, asked: dict[str, Any]) -> dict[str, Any]:
    password = (folder / "password").read_text()
    if not hmac.compare_digest(password, os.environ.get("CA_PASSWORD", "")):
        return {"status": "unavailable", "reason": "CA_PASSWORD is not the password of this CA"}
    register = sqlite3.connect(folder / "register.db", isolation_level=None, timeout=10)
    register.execute(SCHEMA)
    match verb:
        case "issue":
            return issue(folder, register, asked)
        case "status":
            return status(register, asked)
        case "revoke":
            return revoke(register, asked)
        case _:
            return check(folder)


def main() -> None:
    folder, verb = Path(sys.argv[1]), sys.argv[2]
    asked = json.load(sys.stdin)
    assert asked["version"] == 1
    assert asked["verb"] == verb
    assert sys.argv[3:] == [asked[name] for name in ("key", "serial") if name in asked]
    assert base64.b64decode(asked.get("subject_der", ""), validate=True) is not None
    try:
        written = answer(folder, verb, asked)
    except RefusedError as error:
        written = {"status": "refused", "reason": str(error)}
    json.dump(written, sys.stdout)


if __name__ == "__main__":
    main()
