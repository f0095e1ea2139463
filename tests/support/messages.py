"""SCEP messages as the worst of clients write them: an encoder apart from the codec under test.

Nothing here calls the codec's writers, so that a mistake of theirs cannot hide in the input.
"""

import datetime as dt
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.padding import AsymmetricPadding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.x509.oid import NameOID

from shared.scep.certificate import Certificate, read_certificate
from shared.scep.pkimessage import DecryptionKey
from shared.scep.signed_data import Signer

SEQ: Final = 0x30
SET: Final = 0x31
UTF8: Final = 0x0C
PRINTABLE: Final = 0x13
T61: Final = 0x14
IA5: Final = 0x16
UNIVERSAL: Final = 0x1C
BMP: Final = 0x1E
NULL: Final = b"\x05\x00"
NONCE: Final = bytes(range(16))
TRANSACTION: Final = b"0123456789ABCDEF"
CHALLENGE: Final = "s3cret"
NOT_BEFORE: Final = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
NOT_AFTER: Final = dt.datetime(2044, 1, 1, tzinfo=dt.UTC)


# Encoding


def tlv(tag: int, *parts: bytes) -> bytes:
    """One element with a definite, minimal length."""
    body = b"".join(parts)
    return bytes((tag,)) + length(len(body)) + body


def length(size: int, count: int = 0) -> bytes:
    """Length octets; `count` > 0 forces the long form with that many octets."""
    if size < 0x80 and not count:
        return bytes((size,))
    octets = size.to_bytes(count or (size.bit_length() + 7) // 8, "big")
    return bytes((0x80 | len(octets),)) + octets


def indefinite(tag: int, *parts: bytes) -> bytes:
    """One BER element with end-of-contents octets."""
    return bytes((tag, 0x80)) + b"".join(parts) + b"\0\0"


def segments(tag: int, data: bytes, size: int = 1000) -> bytes:
    """A constructed string in OCTET STRING segments, as stream generators emit it."""
    return indefinite(tag, *(tlv(4, data[i : i + size]) for i in range(0, len(data), size)))


def oid(dotted: str) -> bytes:
    first, second, *arcs = map(int, dotted.split("."))
    out = bytearray()
    for arc in (40 * first + second, *arcs):
        groups = f"{arc:b}"
        groups = groups.zfill(-(-len(groups) // 7) * 7)
        septets = [int(groups[i : i + 7], 2) for i in range(0, len(groups), 7)]
        out += bytes(0x80 | s for s in septets[:-1]) + bytes(septets[-1:])
    return tlv(6, bytes(out))


def integer(value: int) -> bytes:
    return tlv(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def attribute(dotted: str, *values: bytes) -> bytes:
    return tlv(SEQ, oid(dotted), tlv(SET, *values))


DATA: Final = oid("1.2.840.113549.1.7.1")
SIGNED: Final = oid("1.2.840.113549.1.7.2")
ENVELOPED: Final = oid("1.2.840.113549.1.7.3")
RSA: Final = tlv(SEQ, oid("1.2.840.113549.1.1.1"), NULL)
SCEP: Final = "2.16.840.1.113733.1.9."
HASHES: Final[dict[str, tuple[str, hashes.HashAlgorithm]]] = {
    "md5": ("1.2.840.113549.2.5", hashes.MD5()),
    "sha1": ("1.3.14.3.2.26", hashes.SHA1()),
    "sha256": ("2.16.840.1.101.3.4.2.1", hashes.SHA256()),
    "sha384": ("2.16.840.1.101.3.4.2.2", hashes.SHA384()),
    "sha512": ("2.16.840.1.101.3.4.2.3", hashes.SHA512()),
}


# Identities


class Named:
    """What follows from the certificate and the kind of key alone."""

    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    x509: x509.Certificate

    @property
    def der(self) -> bytes:
        return self.x509.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.x509.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    @property
    def certificate(self) -> Certificate:
        return read_certificate(self.der)

    @property
    def key_id(self) -> bytes:
        found = self.x509.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        return found.value.digest

    @property
    def issuer_and_serial(self) -> bytes:
        return tlv(SEQ, self.x509.issuer.public_bytes(), integer(self.x509.serial_number))


@dataclass(frozen=True)
class Identity(Named):
    """An RSA key and a certificate for it."""

    key: rsa.RSAPrivateKey
    x509: x509.Certificate

    @property
    def signer(self) -> Signer:
        return Signer(self.key, self.certificate)

    @property
    def decryption(self) -> DecryptionKey:
        return DecryptionKey(self.key, self.certificate)


@dataclass(frozen=True)
class EcIdentity(Named):
    """An EC key and a certificate for it: it signs, nothing can be encrypted to it."""

    key: ec.EllipticCurvePrivateKey
    x509: x509.Certificate


def certificate(
    name: str,
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    issuer: Identity | None,
    serial: int,
) -> x509.CertificateBuilder:
    """A builder of a certificate with a subjectKeyIdentifier; `issuer` None names itself."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Lab"),
        ]
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.x509.subject if issuer else subject)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(NOT_AFTER)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def identity(name: str, serial: int, key: rsa.RSAPrivateKey | None = None) -> Identity:
    """A self-signed identity, with a fresh key unless one is given."""
    key = key or rsa.generate_private_key(65537, 2048)
    return Identity(
        key, certificate(name, key.public_key(), None, serial).sign(key, hashes.SHA256())
    )


def ec_identity(name: str, serial: int, key: ec.EllipticCurvePrivateKey) -> EcIdentity:
    """A self-signed identity of an EC key."""
    made = certificate(name, key.public_key(), None, serial).sign(key, hashes.SHA256())
    return EcIdentity(key, made)


# Enveloped data


CIPHERS: Final[dict[str, tuple[str, int, int, Callable[[bytes], algorithms.AES | TripleDES]]]] = {
    "aes128": ("2.16.840.1.101.3.4.1.2", 16, 16, algorithms.AES),
    "aes192": ("2.16.840.1.101.3.4.1.22", 24, 16, algorithms.AES),
    "aes256": ("2.16.840.1.101.3.4.1.42", 32, 16, algorithms.AES),
    "des3": ("1.2.840.113549.3.7", 24, 8, TripleDES),
    "des": ("1.3.14.3.2.7", 8, 8, lambda key: TripleDES(key * 3)),
}
OAEP_DIGEST: Final = tlv(SEQ, oid("2.16.840.1.101.3.4.2.1"), NULL)
OAEP_SHA256: Final = tlv(
    SEQ,
    oid("1.2.840.113549.1.1.7"),
    tlv(
        SEQ,
        tlv(0xA0, OAEP_DIGEST),
        tlv(0xA1, tlv(SEQ, oid("1.2.840.113549.1.1.8"), OAEP_DIGEST)),
    ),
)
TRANSPORTS: Final[dict[str, tuple[bytes, AsymmetricPadding]]] = {
    "pkcs1v15": (RSA, padding.PKCS1v15()),
    "pkcs1v15 without NULL": (tlv(SEQ, oid("1.2.840.113549.1.1.1")), padding.PKCS1v15()),
    "oaep": (
        tlv(SEQ, oid("1.2.840.113549.1.1.7"), tlv(SEQ)),
        padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None),
    ),
    "oaep without parameters": (
        tlv(SEQ, oid("1.2.840.113549.1.1.7")),
        padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None),
    ),
    "oaep-sha256": (
        OAEP_SHA256,
        padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None),
    ),
}
CONTENT_KEY: Final = bytes(range(100, 132))
IV: Final = bytes(range(200, 216))


def cipher_key(cipher: str) -> bytes:
    return CONTENT_KEY[: CIPHERS[cipher][1]]


def encrypt(cipher: str, plaintext: bytes) -> bytes:
    """The content under `CONTENT_KEY` and `IV`, padded by hand."""
    _, key_size, block, algorithm = CIPHERS[cipher]
    pad = block - len(plaintext) % block
    encryptor = Cipher(algorithm(CONTENT_KEY[:key_size]), modes.CBC(IV[:block])).encryptor()
    return encryptor.update(plaintext + bytes([pad]) * pad) + encryptor.finalize()


def recipient(
    to: Identity,
    *,
    cipher: str = "aes256",
    transport: str = "pkcs1v15",
    sid: bytes | None = None,
    encrypted_key: bytes | None = None,
) -> bytes:
    """A KeyTransRecipientInfo; `sid` is a whole RecipientIdentifier."""
    algorithm, pad = TRANSPORTS[transport]
    if encrypted_key is None:
        encrypted_key = to.key.public_key().encrypt(cipher_key(cipher), pad)
    version = 2 if sid and sid[0] == 0x80 else 0
    return tlv(SEQ, integer(version), sid or to.issuer_and_serial, algorithm, tlv(4, encrypted_key))


def enveloped(
    plaintext: bytes,
    *recipients: bytes,
    cipher: str = "aes256",
    form: str = "primitive",
    ciphertext: bytes | None = None,
    algorithm: bytes | None = None,
) -> bytes:
    """An EnvelopedData; `form` is primitive, constructed (as Go writes it) or ber."""
    block = CIPHERS[cipher][2]
    algorithm = algorithm or tlv(SEQ, oid(CIPHERS[cipher][0]), tlv(4, IV[:block]))
    ciphertext = encrypt(cipher, plaintext) if ciphertext is None else ciphertext
    infos = tlv(SET, *recipients)
    if form == "ber":
        content = indefinite(SEQ, DATA, algorithm, segments(0xA0, ciphertext))
        body = indefinite(SEQ, integer(0), infos, content)
        return indefinite(SEQ, ENVELOPED, indefinite(0xA0, body))
    inner = tlv(0x80, ciphertext) if form == "primitive" else tlv(0xA0, tlv(4, ciphertext))
    content = tlv(SEQ, DATA, algorithm, inner)
    return tlv(SEQ, ENVELOPED, tlv(0xA0, tlv(SEQ, integer(0), infos, content)))


# Signed data


def scep_attributes(
    message_type: bytes = tlv(PRINTABLE, b"19"),
    transaction_id: bytes = tlv(PRINTABLE, TRANSACTION),
    nonce: bytes = tlv(4, NONCE),
) -> list[bytes]:
    """The attributes of a request; an empty argument leaves that attribute out."""
    given = (("2", message_type), ("7", transaction_id), ("5", nonce))
    return [attribute(SCEP + last, value) for last, value in given if value]


def cms_attributes(content: bytes, digest: str = "sha256") -> list[bytes]:
    """The contentType and messageDigest that RFC 5652 wants signed."""
    return [
        attribute("1.2.840.113549.1.9.3", DATA),
        attribute("1.2.840.113549.1.9.4", tlv(4, hashlib.new(digest, content).digest())),
    ]


def rsa_sign(key: rsa.RSAPrivateKey, digest: str = "sha256") -> Callable[[bytes], bytes]:
    return lambda data: key.sign(data, padding.PKCS1v15(), HASHES[digest][1])


def signed(
    content: bytes,
    by: Named,
    attributes: Sequence[bytes] | None = None,
    *,
    digest: str = "sha256",
    digest_algorithm: bytes | None = None,
    signature_algorithm: bytes = RSA,
    sid: bytes | None = None,
    certificates: Sequence[bytes] | None = None,
    sort: bool = True,
    sign: Callable[[bytes], bytes] | None = None,
    sign_sorted: bool = False,
    econtent: bytes | None = None,
    ber: bool = False,
) -> bytes:
    """A SignedData; `attributes` are all signed ones and `sign` is given the SET OF of them."""
    if attributes is None:
        attributes = [*scep_attributes(), *cms_attributes(content, digest)]
    attributes = sorted(attributes) if sort else list(attributes)
    to_sign = sorted(attributes) if sign_sorted else attributes
    if sign is None:
        assert isinstance(by.key, rsa.RSAPrivateKey)
        sign = rsa_sign(by.key, digest)
    signature = sign(tlv(SET, *to_sign))
    algorithm = digest_algorithm or tlv(SEQ, oid(HASHES[digest][0]), NULL)
    sid = sid or by.issuer_and_serial
    info = tlv(
        SEQ,
        integer(3 if sid[0] == 0x80 else 1),
        sid,
        algorithm,
        tlv(0xA0, *attributes),
        signature_algorithm,
        tlv(4, signature),
    )
    included = tlv(0xA0, *([by.der] if certificates is None else certificates))
    if ber:
        encapsulated = indefinite(SEQ, DATA, indefinite(0xA0, segments(0x24, content)))
        body = indefinite(
            SEQ, integer(1), tlv(SET, algorithm), encapsulated, included, tlv(SET, info)
        )
        return indefinite(SEQ, SIGNED, indefinite(0xA0, body))
    encapsulated = tlv(SEQ, DATA, tlv(0xA0, tlv(4, content)) if econtent is None else econtent)
    body = tlv(SEQ, integer(1), tlv(SET, algorithm), encapsulated, included, tlv(SET, info))
    return tlv(SEQ, SIGNED, tlv(0xA0, body))


def certs_only(*certificates: bytes) -> bytes:
    return degenerate(tlv(0xA0, *certificates))


def crl_only(*crls: bytes) -> bytes:
    return degenerate(tlv(0xA1, *crls))


def degenerate(*sets: bytes) -> bytes:
    """A SignedData without a signer, around a CertificateSet, RevocationInfoChoices or both."""
    body = tlv(SEQ, integer(1), tlv(SET), tlv(SEQ, DATA), *sets, tlv(SET))
    return tlv(SEQ, SIGNED, tlv(0xA0, body))


# Certification requests


COMMON_NAME: Final = "2.5.4.3"
CHALLENGE_PASSWORD: Final = "1.2.840.113549.1.9.7"
EXTENSION_REQUEST: Final = "1.2.840.113549.1.9.14"
SHA256_RSA: Final = tlv(SEQ, oid("1.2.840.113549.1.1.11"), NULL)


def name(*parts: tuple[str, int, bytes]) -> bytes:
    """A Name of single-valued RDNs: (type, string tag, contents)."""
    return tlv(SEQ, *(tlv(SET, tlv(SEQ, oid(kind), tlv(tag, value))) for kind, tag, value in parts))


DEVICE_NAME: Final = name((COMMON_NAME, UTF8, b"device"), ("2.5.4.10", PRINTABLE, b"Lab"))


def challenge(tag: int, contents: bytes) -> bytes:
    return attribute(CHALLENGE_PASSWORD, tlv(tag, contents))


def extension(dotted: str, value: bytes, *, critical: bytes = b"") -> bytes:
    """An Extension; `critical` is the whole BOOLEAN element, or nothing."""
    return tlv(SEQ, oid(dotted), critical, tlv(4, value))


def extension_request(*extensions: bytes) -> bytes:
    return attribute(EXTENSION_REQUEST, tlv(SEQ, *extensions))


def san(*names: bytes) -> bytes:
    return extension("2.5.29.17", tlv(SEQ, *names))


def spki(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def csr(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
    *attributes: bytes,
    subject: bytes = DEVICE_NAME,
    version: int = 0,
    public: bytes | None = None,
    algorithm: bytes = SHA256_RSA,
    sign: Callable[[bytes], bytes] | None = None,
) -> bytes:
    """A CSR with its attributes in the order given."""
    info = tlv(
        SEQ, integer(version), subject, public or spki(key.public_key()), tlv(0xA0, *attributes)
    )
    if sign is None:
        assert isinstance(key, rsa.RSAPrivateKey)
        sign = rsa_sign(key)
    return tlv(SEQ, info, algorithm, tlv(3, b"\0", sign(info)))


def device_csr(device: Identity) -> bytes:
    """What a device enrolls with: a challenge and one DNS name."""
    return csr(
        device.key,
        challenge(PRINTABLE, CHALLENGE.encode()),
        extension_request(san(tlv(0x82, b"device.example"))),
    )
