"""Distinct PKCSReq messages, built before the clock starts: one per device, keys from a pool."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from benchmarks import parties
from shared.scep import pkimessage, request, signed_data
from shared.scep.algorithms import AES128, AES256, DES3, PKCS1V15, SHA256, ContentCipher
from shared.scep.asn1 import OCTET_STRING, PRINTABLE_STRING, tlv
from shared.scep.certificate import Certificate, read_certificate
from shared.scep.envelope import ContentEncryption, write_envelope
from shared.scep.streamed import streamed

CIPHERS = {"aes128": AES128, "aes256": AES256, "des3": DES3}


@dataclass(frozen=True, slots=True)
class Enrollment:
    """A request, and what its answer must match."""

    common_name: str
    transaction_id: str
    nonce: bytes
    device: parties.Party
    message: bytes


@dataclass(frozen=True)
class Recipe:
    """How to build requests; `recipient` is the server's encryption certificate (DER)."""

    recipient: bytes
    challenge: str
    cipher: str = "aes128"
    ber: bool = False
    run: str = field(default_factory=lambda: os.urandom(4).hex())


def key_pool(count: int) -> list[rsa.RSAPrivateKey]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda _: parties.new_key(), range(count)))


def write_keys(keys: Sequence[rsa.RSAPrivateKey]) -> bytes:
    """Return the keys as PEM, one after the other."""
    form, none = PrivateFormat.PKCS8, NoEncryption()
    return b"".join(key.private_bytes(Encoding.PEM, form, none) for key in keys)


def read_keys(pem: bytes) -> list[rsa.RSAPrivateKey]:
    """Return the RSA keys of a PEM file."""
    end = b"-----END PRIVATE KEY-----\n"
    found = [load_pem_private_key(part + end, None) for part in pem.split(end) if part.strip()]
    return [key for key in found if isinstance(key, rsa.RSAPrivateKey)]


def prebuild(
    recipe: Recipe, keys: Sequence[rsa.RSAPrivateKey], first: int, count: int
) -> list[Enrollment]:
    """Build `count` enrollments from number `first`; `cryptography` signs on all cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        numbers = range(first, first + count)
        return list(pool.map(lambda i: enrollment(recipe, i, keys[i % len(keys)]), numbers))


def enrollment(recipe: Recipe, number: int, key: rsa.RSAPrivateKey) -> Enrollment:
    """Build a device's enrollment, with its own name, transactionID, nonce and certificate."""
    common_name = f"dev-{recipe.run}-{number:06d}"
    device = parties.self_signed(common_name, key)
    public = parties.spki(key.public_key())
    # Enrollments share keys of the pool, so the usual digest of the key alone is not unique.
    transaction_id = hashlib.sha256(public + common_name.encode()).hexdigest()
    head = request.RequestHead(transaction_id, os.urandom(16), SHA256)
    csr = parties.certification_request(common_name, key, recipe.challenge)
    message = _message(recipe, csr, head, device)
    return Enrollment(common_name, transaction_id, head.sender_nonce, device, message)


def _message(recipe: Recipe, csr: bytes, head: request.RequestHead, device: parties.Party) -> bytes:
    recipient = read_certificate(recipe.recipient)
    seal = sealing(CIPHERS[recipe.cipher])
    signer = signed_data.Signer(device.key, read_certificate(device.der))
    if recipe.ber:
        return _streamed_message(csr, head, recipient, seal, signer)
    kind = pkimessage.MessageType.PKCS_REQ
    return request.write_request(kind, csr, head, recipient, seal, signer)


def _streamed_message(
    csr: bytes,
    head: request.RequestHead,
    recipient: Certificate,
    seal: ContentEncryption,
    signer: signed_data.Signer,
) -> bytes:
    """Build the message in BER, the envelope too, which must be rewritten before it is signed."""
    content = streamed(write_envelope(csr, recipient, seal))
    attributes = (
        signed_data.attribute(pkimessage.MESSAGE_TYPE, tlv(PRINTABLE_STRING, b"19")),
        signed_data.attribute(
            pkimessage.TRANSACTION_ID, tlv(PRINTABLE_STRING, head.transaction_id.encode())
        ),
        signed_data.attribute(pkimessage.SENDER_NONCE, tlv(OCTET_STRING, head.sender_nonce)),
    )
    return streamed(signed_data.write_signed_data(content, attributes, head.digest, signer))


def sealing(cipher: ContentCipher) -> ContentEncryption:
    """Return a random content key and IV."""
    key, iv = os.urandom(cipher.key_size), os.urandom(cipher.block_size)
    return ContentEncryption(cipher, PKCS1V15, key, iv)
