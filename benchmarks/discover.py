"""Fetch GetCACert without the codec: the certificates to trust and to encrypt to."""

import asyncio
import time

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from benchmarks.check import certificates

_AGAIN_SECONDS = 0.1


async def authorities(url: str, wait: float = 0.0) -> list[x509.Certificate]:
    """Return GetCACert's certificates; wait up to `wait` seconds for a server to start."""
    deadline = time.monotonic() + wait
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        while True:
            try:
                response = await client.get(url, params={"operation": "GetCACert"})
                return certificates(response.raise_for_status().content)
            except httpx.HTTPError:
                if time.monotonic() >= deadline:
                    raise
            await asyncio.sleep(_AGAIN_SECONDS)


def recipient(found: list[x509.Certificate]) -> bytes:
    """Return the RA certificate for encryption (DER), or the CA's without RA (RFC 8894 s2.1)."""
    able = [each for each in found if isinstance(each.public_key(), rsa.RSAPublicKey)]
    ranked = sorted(able, key=lambda each: (each.subject == each.issuer, not _encrypts(each)))
    if not ranked:
        raise ValueError("GetCACert returned no RSA certificate")
    return ranked[0].public_bytes(Encoding.DER)


def _encrypts(certificate: x509.Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return usage.key_encipherment
