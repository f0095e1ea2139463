"""Load a CA's certificate, chain and key from files, check them, and sort the chain."""

from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from shared.config.keys import AnyKey, check_pair, read_ca_key, read_certificates, spki
from shared.config.load import SettingsError


def read_ca(
    cert_path: Path, key_path: Path, chain_path: Path | None = None
) -> tuple[tuple[x509.Certificate, ...], AnyKey]:
    """Return the chain, starting with the CA, and the CA's key.

    The certificates may be in any order: the CA's is the one that matches the key. `SettingsError`
    says what does not match.
    """
    own, key = read_certificates(cert_path), read_ca_key(key_path)
    ca = next((c for c in own if spki(c) == spki(key)), own[0])
    check_pair(ca, key, cert_path, key_path)
    check_ca(ca, cert_path)
    shared = read_certificates(chain_path) if chain_path else []
    chain = sort_chain(ca, [*own, *shared])
    _check_all_used(chain, own, cert_path)
    # One chain file serves all CAs of an issuer; a self-signed CA uses none of it.
    if chain_path and not (len(chain) == 1 and ca.issuer == ca.subject):
        _check_all_used(chain, shared, chain_path)
    return chain, key


def check_ca(certificate: x509.Certificate, path: Path, *, crls: bool = True) -> None:
    """Reject a certificate that may not sign certificates (RFC 5280 4.2.1.3, 4.2.1.9).

    With `crls`, reject one that may not sign CRLs either.
    """
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        raise SettingsError(_says(path, certificate, "has no BasicConstraints")) from None
    if not constraints.ca:
        raise SettingsError(_says(path, certificate, "has CA:FALSE in its BasicConstraints"))
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return
    needed = (("keyCertSign", usage.key_cert_sign), ("cRLSign", usage.crl_sign or not crls))
    for name, allowed in needed:
        if not allowed:
            raise SettingsError(_says(path, certificate, f"has a KeyUsage without {name}"))


def _says(path: Path, certificate: x509.Certificate, what: str) -> str:
    return f'{path}: the CA certificate "{certificate.subject.rfc4514_string()}" {what}'


def sort_chain(ca: x509.Certificate, given: list[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """Return the CA, then those of the given certificates that are above it, in order."""
    chain, left = [ca], [c for c in given if c != ca]
    while above := next((c for c in left if _signed(chain[-1], c)), None):
        chain.append(above)
        left = [c for c in left if c != above]
    return tuple(chain)


def _check_all_used(
    chain: tuple[x509.Certificate, ...], given: list[x509.Certificate], path: Path
) -> None:
    unused = next((c for c in given if c not in chain), None)
    if unused is not None:
        raise SettingsError(
            f'{path}: "{unused.subject.rfc4514_string()}" is not in the chain from '
            f'"{chain[0].subject.rfc4514_string()}" to its root: remove it, or add the missing'
            " intermediate certificates"
        )


def _signed(certificate: x509.Certificate, above: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(above)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
