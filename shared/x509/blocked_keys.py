r"""Lists of keys that must not be certified, because their private half is known. Pure.

Two kinds of entries, one a line, in any order and mixed; `#` begins a comment:

* the SHA-256 of a SubjectPublicKeyInfo (DER), 64 hex digits;
* the last 20 hex digits of the SHA-1 of "Modulus=<HEX>\n", as in Debian's package
  `openssl-blacklist`, which lists the RSA keys that its OpenSSL made in 2006 to 2008
  (CVE-2008-0166). The hex digits are those that `openssl rsa -modulus` prints.

The digests are kept sorted in one string for each kind: 300 000 of Debian's take 3 MB, where a set
of them takes 21 MB.
"""

import hashlib
import re
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shared.scep.errors import ScepError
from shared.scep.schemes import PublicKey, public_key

_SPKI_BYTES: Final = 32
_DEBIAN_BYTES: Final = 10
_DIGEST: Final = re.compile(rb"[0-9A-Fa-f]{64}|[0-9A-Fa-f]{20}")


@dataclass(frozen=True, slots=True)
class _Digests:
    """Sorted digests of one length, one after the other."""

    size: int
    packed: bytes = b""

    @classmethod
    def of(cls, size: int, digests: Iterable[bytes]) -> Self:
        return cls(size, b"".join(sorted(digests)))

    def __len__(self) -> int:
        return len(self.packed) // self.size

    def __contains__(self, digest: bytes) -> bool:
        place = bisect_left(range(len(self)), digest, key=self._at)
        return place < len(self) and self._at(place) == digest

    def _at(self, place: int) -> bytes:
        return self.packed[place * self.size : (place + 1) * self.size]


@dataclass(frozen=True, slots=True)
class BlockedKeys:
    """The digests of blocked keys: of SubjectPublicKeyInfos, and of RSA moduli as Debian has it."""

    spki: _Digests = _Digests(_SPKI_BYTES)
    debian: _Digests = _Digests(_DEBIAN_BYTES)

    @classmethod
    def of(cls, digests: Collection[bytes]) -> Self:
        """Return the keys of these digests, whose length tells their kind."""
        kinds = (_SPKI_BYTES, _DEBIAN_BYTES)
        return cls(*(_Digests.of(n, (d for d in digests if len(d) == n)) for n in kinds))

    def __len__(self) -> int:
        return len(self.spki) + len(self.debian)

    def problem(self, spki: bytes) -> str:
        """Return why a key (SubjectPublicKeyInfo, DER) is blocked, "" if it is not."""
        if self.spki.packed and hashlib.sha256(spki).digest() in self.spki:
            return "the key is on the list of blocked keys"
        if self.debian.packed and _debian_digest(spki) in self.debian:
            return "the key is one of Debian's weak keys (CVE-2008-0166)"
        return ""


def usual_spki(key: PublicKey) -> bytes:
    """Return a key's SubjectPublicKeyInfo (DER) as lists spell it; a CSR may spell it otherwise."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def read_digests(content: bytes) -> Iterator[bytes]:
    """Yield the digests of a list; `ValueError` says which line is not one."""
    for number, line in enumerate(content.splitlines(), 1):
        digits = line.partition(b"#")[0].strip()
        if not digits:
            continue
        if not _DIGEST.fullmatch(digits):
            raise ValueError(f"line {number}: not 64 hex digits (SHA-256) or 20 (Debian)")
        yield bytes.fromhex(digits.decode())


def _debian_digest(spki: bytes) -> bytes:
    """Return the digest of an RSA key's modulus, b"" for other keys."""
    try:
        key = public_key(spki)
    except ScepError:
        return b""
    if not isinstance(key, rsa.RSAPublicKey):
        return b""
    modulus = key.public_numbers().n
    digits = modulus.to_bytes((modulus.bit_length() + 7) // 8, "big").hex().upper()
    text = f"Modulus={digits}\n".encode()
    return hashlib.sha1(text, usedforsecurity=False).digest()[-_DEBIAN_BYTES:]
