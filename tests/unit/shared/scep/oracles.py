"""Readers and writers of CMS that are not ours: the openssl command and asn1crypto."""

import subprocess
from pathlib import Path
from typing import Any

from asn1crypto import cms

from tests.support.messages import Identity, Named
from tests.support.tools import need

LEGACY = ("-provider", "legacy", "-provider", "default")


def openssl(*arguments: str | Path, stdin: bytes) -> bytes:
    """What the command writes; its complaint fails the test."""
    done = subprocess.run(
        [need("openssl", "openssl"), *map(str, arguments)],
        input=stdin,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def openssl_verified(message: bytes) -> bytes:
    """The content of a SignedData whose signature openssl verified."""
    return openssl("cms", "-verify", "-noverify", "-binary", "-inform", "DER", stdin=message)


def openssl_decrypted(message: bytes, to: Identity, folder: Path) -> bytes:
    """The content of an EnvelopedData that openssl decrypted as `to`."""
    certificate, key = write_pem(to, folder)
    return openssl(
        *("cms", "-decrypt", "-binary", "-inform", "DER", *LEGACY),
        *("-recip", certificate, "-inkey", key),
        stdin=message,
    )


def write_pem(of: Named, folder: Path) -> tuple[Path, Path]:
    """(certificate file, key file)."""
    stem = f"{of.x509.serial_number:x}"
    certificate, key = folder / f"{stem}.pem", folder / f"{stem}.key"
    certificate.write_bytes(of.pem)
    key.write_bytes(of.key_pem)
    return certificate, key


def signed_data(message: bytes) -> Any:
    """The SignedData as asn1crypto reads it, every byte accounted for."""
    info = cms.ContentInfo.load(message, strict=True)
    assert info["content_type"].native == "signed_data"
    return info["content"]


def enveloped_data(message: bytes) -> Any:
    info = cms.ContentInfo.load(message, strict=True)
    assert info["content_type"].native == "enveloped_data"
    return info["content"]


def auth_enveloped_data(message: bytes) -> Any:
    info = cms.ContentInfo.load(message, strict=True)
    assert info["content_type"].native == "authenticated_enveloped_data"
    return info["content"]


def attributes(signer_info: Any) -> dict[str, tuple[int, bytes]]:
    """(tag, contents) of each signed attribute's one value, by dotted OID."""
    found: dict[str, tuple[int, bytes]] = {}
    for attribute in signer_info["signed_attrs"]:
        (value,) = attribute["values"]
        der = value.dump()
        dotted = attribute["type"].dotted
        assert dotted not in found
        assert der[1] < 0x80
        found[dotted] = (der[0], der[2:])
    return found


def certificates(signed: Any) -> list[bytes]:
    """The enclosed certificates in the order of the encoding."""
    return [choice.chosen.dump() for choice in signed["certificates"]]
