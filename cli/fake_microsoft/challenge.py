"""Make and open challenges: JSON in CMS EnvelopedData in CMS SignedData in base64.

Intune's format is not published. Its error codes show the layers (base64, signature, encryption,
content), and this format has the same ones. The keys never leave the fake.
"""

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import asdict, dataclass
from typing import Any, Final

from asn1crypto import cms
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from cli.fake_microsoft.model import Challenge

# What may be wrong with a challenge, apart from what it says.
FLAWS: Final = ("base64", "cms", "signer", "signature", "encryption", "content")
_OPTIONS: Final = [pkcs7.PKCS7Options.Binary]
_TUPLES: Final = ("key_usage", "eku", "registered_keys")


class ChallengeError(Exception):
    """Raised if a challenge cannot be opened; the message is Intune's code."""


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey


@dataclass(frozen=True)
class Sealer:
    """The two pairs of the fake: one signs challenges, the other decrypts them."""

    signer: Pair
    recipient: Pair

    def seal(self, challenge: Challenge, size: int = 0) -> str:
        """Return a challenge as text of at least `size` characters."""
        plain = self._seal(_content(challenge))
        short = size - len(plain)
        # Base64 turns three bytes into four; the rounding of the layers is below 64 bytes.
        return plain if short <= 0 else self._seal(_content(challenge, short * 3 // 4 + 64))

    def forge(self, challenge: Challenge, flaw: str, other: "Sealer") -> str:
        """Return a challenge that is wrong in one of FLAWS; `other` has keys of its own."""
        content = _content(challenge)
        match flaw:
            case "base64":
                return "not base64!"
            case "cms":
                return base64.b64encode(content).decode()
            case "signer":
                return Sealer(other.signer, self.recipient)._seal(content)  # noqa: SLF001
            case "encryption":
                return Sealer(self.signer, other.recipient)._seal(content)  # noqa: SLF001
            case "content":
                return self._seal(b"not JSON")
            case "signature":
                sealed = bytearray(base64.b64decode(self._seal(content)))
                sealed[-1] ^= 1
                return base64.b64encode(sealed).decode()
        raise ValueError(f"unknown flaw {flaw}: choose one of {', '.join(FLAWS)}")

    def open(self, text: str) -> Challenge:
        """Return what a challenge says; `ChallengeError` with the code of the first bad layer."""
        try:
            signed = cms.ContentInfo.load(base64.b64decode(text, validate=True))["content"]
            info, enveloped = signed["signer_infos"][0], signed["encap_content_info"]
            sealed = enveloped["content"].native
            certificate = signed["certificates"][0].chosen.dump()
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, binascii.Error):
            raise ChallengeError("ChallengeDecodingError") from None
        if certificate != self.signer.certificate.public_bytes(Encoding.DER):
            raise ChallengeError("SigningCertThumbprintMismatch")
        self._verify(info, sealed)
        try:
            content = pkcs7.pkcs7_decrypt_der(
                sealed, self.recipient.certificate, self.recipient.key, []
            )
        except ValueError:
            raise ChallengeError("ChallengeDecryptionError") from None
        return _parse(content)

    def _seal(self, content: bytes) -> str:
        sealed = (
            pkcs7.PKCS7EnvelopeBuilder()
            .set_data(content)
            .add_recipient(self.recipient.certificate)
            .set_content_encryption_algorithm(AES256)
            .encrypt(Encoding.DER, _OPTIONS)
        )
        signed = (
            pkcs7.PKCS7SignatureBuilder()
            .set_data(sealed)
            .add_signer(self.signer.certificate, self.signer.key, hashes.SHA256())
            .sign(Encoding.DER, [*_OPTIONS, pkcs7.PKCS7Options.NoCapabilities])
        )
        return base64.b64encode(signed).decode()

    def _verify(self, info: Any, sealed: bytes) -> None:
        """Verify the signature over the signed attributes, and their digest of the content."""
        try:
            attributes = {a["type"].native: a["values"][0].native for a in info["signed_attrs"]}
            self.signer.key.public_key().verify(
                info["signature"].native,
                info["signed_attrs"].untag().dump(),
                padding.PKCS1v15(),
                hashes.SHA256(),
            )
            digest = attributes["message_digest"]
        except (InvalidSignature, ValueError, TypeError, KeyError):
            raise ChallengeError("SignatureValidationFailed") from None
        if not hmac.compare_digest(digest, hashlib.sha256(sealed).digest()):
            raise ChallengeError("SignatureValidationFailed")


def _content(challenge: Challenge, pad: int = 0) -> bytes:
    return json.dumps(asdict(challenge) | ({"padding": "0" * pad} if pad else {})).encode()


def _parse(content: bytes) -> Challenge:
    try:
        members = json.loads(content)
        members.pop("padding", None)
        for name in _TUPLES:
            found = members[name]
            members[name] = None if found is None else tuple(found)
        sans = members["sans"]
        members["sans"] = None if sans is None else tuple((k, v) for k, v in sans)
        return Challenge(**members)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ChallengeError("ChallengeDeserializationError") from None
