"""The crypto floor of one enrollment: only its cryptographic operations, no parsing or encoding."""

from collections.abc import Callable, Mapping

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import load_der_public_key

from benchmarks.sample import Pieces, Server
from shared.scep.asn1 import SET, tlv

Steps = Mapping[str, Callable[[], object]]
_AES_BLOCK = 16


def floor(server: Server, pieces: Pieces) -> Callable[[], None]:
    """Return a function that runs the operations of one enrollment in sequence."""
    operations = tuple(steps(server, pieces).values())

    def enroll() -> None:
        for operation in operations:
            operation()

    return enroll


def steps(server: Server, pieces: Pieces) -> Steps:
    """Return the operations by name: RSA-2048 everywhere, AES-128-CBC, SHA-256.

    One public key is loaded, the device's. It verifies the request and the CSR, and the content key
    of the reply is encrypted to it.
    """
    device = load_der_public_key(pieces.csr.spki)
    assert isinstance(device, rsa.RSAPublicKey)
    return {**_reading(server, pieces, device), **_answering(server, pieces, device)}


def _reading(server: Server, pieces: Pieces, device: rsa.RSAPublicKey) -> Steps:
    signed, sealed = pieces.request.signed, pieces.enveloped
    attributes = tlv(SET, signed.signed_attrs)
    encrypted_key = sealed.recipients[0].encrypted_key
    key = server.ra.key.decrypt(encrypted_key, padding.PKCS1v15())
    csr, v15, sha256 = pieces.csr, padding.PKCS1v15(), hashes.SHA256()
    return {
        "load device key": lambda: load_der_public_key(csr.spki),
        "digest request": lambda: _digest(signed.content),
        "verify request": lambda: device.verify(signed.signature, attributes, v15, sha256),
        "decrypt content key": lambda: server.ra.key.decrypt(encrypted_key, v15),
        "decrypt content": lambda: _decrypt(key, sealed.iv, sealed.ciphertext),
        "verify CSR": lambda: device.verify(csr.signature, csr.info, v15, sha256),
    }


def _answering(server: Server, pieces: Pieces, device: rsa.RSAPublicKey) -> Steps:
    attributes = tlv(SET, pieces.reply.signed_attrs)
    key, iv = bytes(16), bytes(_AES_BLOCK)
    padded = bytes(pieces.reply_plaintext_size // _AES_BLOCK * _AES_BLOCK + _AES_BLOCK)
    v15, sha256 = padding.PKCS1v15(), hashes.SHA256()
    return {
        "sign certificate": lambda: server.ca.key.sign(server.tbs, v15, sha256),
        "encrypt content key": lambda: device.encrypt(key, v15),
        "encrypt content": lambda: _encrypt(key, iv, padded),
        "digest reply": lambda: _digest(pieces.reply.content),
        "sign CertRep": lambda: server.ra.key.sign(attributes, v15, sha256),
    }


def _digest(data: bytes) -> bytes:
    state = hashes.Hash(hashes.SHA256())
    state.update(data)
    return state.finalize()


def _encrypt(key: bytes, iv: bytes, padded: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return encryptor.update(padded) + encryptor.finalize()


def _decrypt(key: bytes, iv: bytes, ciphertext: bytes) -> bytes:
    decryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
    return decryptor.update(ciphertext) + decryptor.finalize()
