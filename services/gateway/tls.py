"""TLS for SCEP: 1.2 and 1.3, and client certificates on the mTLS port alone."""

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
    """The server's certificate (chain) and key."""

    certificate: Path
    key: Path


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """TLS 1.2 and up: Windows devices do not offer 1.3.

    No client certificate is ever asked for: Windows and macOS give up then.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_pair(context, files)
    return context


def mutual_context(files: TlsFiles) -> ssl.SSLContext:
    """As above, but asking for a client certificate: without one the application says 401."""
    context = server_context(files)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


@dataclass(frozen=True)
class Contexts:
    """The contexts of the TLS and the mTLS listener, reloaded in place."""

    tls: ssl.SSLContext
    mutual: ssl.SSLContext

    @classmethod
    def of(cls, files: TlsFiles, client_cas: Sequence[bytes]) -> "Contexts":
        """Both, ready to serve; `client_cas` as DER."""
        contexts = cls(server_context(files), mutual_context(files))
        contexts.load(files, client_cas)
        return contexts

    def load(self, files: TlsFiles, client_cas: Sequence[bytes]) -> None:
        """For connections to come. A CA is only ever added: profiles look at their own bundle."""
        for context in (self.tls, self.mutual):
            load_pair(context, files)
        for ca in client_cas:
            self.mutual.load_verify_locations(cadata=ca)


def load_pair(context: ssl.SSLContext, files: TlsFiles) -> None:
    """Certificate and key, `SettingsError` where they do not fit."""
    try:
        context.load_cert_chain(files.certificate, files.key, password="")
    except (OSError, ssl.SSLError):
        raise SettingsError(
            f"{files.certificate}, {files.key}: the TLS certificate and key do not match"
        ) from None


def is_client_of(certificate: bytes, bundle: Sequence[bytes], now: float) -> bool:
    """Whether a CA of this bundle (DER) issued the certificate, and it is valid now (Unix s)."""
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
    """The certificate in a proxy's Client-Cert header: `:base64:` (RFC 9440 s2.2), else None."""
    text = header.strip()
    if len(text) < len("::") or text[0] != ":" or text[-1] != ":":
        return None
    try:
        return base64.b64decode(text[1:-1], validate=True)
    except ValueError:  # not base64, or not even ASCII
        return None
