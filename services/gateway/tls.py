"""TLS 1.2 and 1.3 for SCEP, with client certificates only on the mTLS port."""

import base64
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from shared.config.load import SettingsError
from shared.scep.certificate import read_certificate
from shared.scep.errors import ScepError
from shared.scep.schemes import public_key
from shared.x509.loading import loading
from shared.x509.signatures import is_issued_by


@dataclass(frozen=True)
class TlsFiles:
    """Paths of the server's certificate (chain) and key."""

    certificate: Path
    key: Path


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """Return a context for TLS 1.2 and later: Windows devices do not offer 1.3.

    It never requests a client certificate: Windows and macOS abort if it does.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_pair(context, files)
    return context


def mutual_context(files: TlsFiles) -> ssl.SSLContext:
    """Return a context requesting a client certificate; without one the application sends 401."""
    context = server_context(files)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


@dataclass(frozen=True)
class Contexts:
    """Contexts of the TLS and the mTLS listener, reloaded in place."""

    tls: ssl.SSLContext
    mutual: ssl.SSLContext

    @classmethod
    def of(cls, files: TlsFiles, client_cas: Sequence[bytes]) -> "Contexts":
        """Create both contexts and load the files; `client_cas` are DER."""
        contexts = cls(server_context(files), mutual_context(files))
        contexts.load(files, client_cas)
        return contexts

    def load(self, files: TlsFiles, client_cas: Sequence[bytes]) -> None:
        """Load files and CAs for new connections.

        CAs are only ever added: each profile also checks clients against its own bundle.
        """
        for context in (self.tls, self.mutual):
            load_pair(context, files)
        for ca in client_cas:
            self.mutual.load_verify_locations(cadata=ca)


def load_pair(context: ssl.SSLContext, files: TlsFiles) -> None:
    """Load certificate and key; `SettingsError` if they are unreadable or do not match."""
    try:
        context.load_cert_chain(files.certificate, files.key, password="")
    except (OSError, ssl.SSLError):
        raise SettingsError(
            f"{files.certificate}, {files.key}: the TLS certificate and key do not match"
        ) from None


def is_client_of(certificate: bytes, bundle: Sequence[bytes], now: float) -> bool:
    """Return whether a CA of the bundle (DER) issued it and it is valid at `now` (Unix seconds)."""
    try:
        with loading():
            validity = x509.load_der_x509_certificate(certificate)
        moment = datetime.fromtimestamp(now, UTC)
        if not validity.not_valid_before_utc <= moment <= validity.not_valid_after_utc:
            return False
        cas = [read_certificate(ca) for ca in bundle]
        return any(is_issued_by(certificate, ca.subject, public_key(ca.spki)) for ca in cas)
    except (ValueError, ScepError):
        return False


def read_client_cert(header: str) -> bytes | None:
    """Return the certificate in a Client-Cert header (`:base64:`, RFC 9440 s2.2), or None."""
    text = header.strip()
    if len(text) < len("::") or text[0] != ":" or text[-1] != ":":
        return None
    try:
        return base64.b64decode(text[1:-1], validate=True)
    except ValueError:  # not base64, or not even ASCII
        return None
