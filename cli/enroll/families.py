"""Families of devices: how each of them enrolls, as data.

docs/clients.md says which of these traits were recorded from real devices, which are documented by
the vendor, and which are assumptions. Keep it in step with this file.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice, repeat
from typing import Final, Generic, Literal, TypeVar

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cli.enroll.csr import CsrForm, extension, name_value_pair, string
from cli.enroll.http import Server
from shared.scep.algorithms import (
    AES128,
    AES256,
    DES3,
    PKCS1V15,
    SHA1,
    SHA256,
    AnyCipher,
    Digest,
    KeyTransport,
)
from shared.scep.asn1 import (
    BIT_STRING,
    BMP_STRING,
    IA5_STRING,
    PRINTABLE_STRING,
    SEQUENCE,
    UTF8_STRING,
    integer,
    object_identifier,
    tlv,
)
from shared.scep.signed_data import attribute

_T = TypeVar("_T")
_WITH_AES: Final = frozenset({"AES", "SCEPSTANDARD"})
_PLAIN_CSR: Final = CsrForm()
_WITH_SHA256: Final = frozenset({"SHA-256", "SCEPSTANDARD"})


@dataclass(frozen=True)
class Preference(Generic[_T]):
    """The algorithm to use if GetCACaps has one of `keywords`, and otherwise."""

    keywords: frozenset[str]
    preferred: _T
    otherwise: _T

    def select(self, caps: frozenset[str]) -> _T:
        """Return the algorithm for a server with these capabilities."""
        return self.preferred if caps & self.keywords else self.otherwise


@dataclass(frozen=True)
class TransactionForm:
    """The transactionID: a digest of the SubjectPublicKeyInfo in hex."""

    digest: Literal["sha1", "sha256"] = "sha256"
    upper: bool = False

    def of(self, spki: bytes) -> str:
        """Return the transactionID of a key."""
        found = hashlib.new(self.digest, spki, usedforsecurity=False).hexdigest()
        return found.upper() if self.upper else found


@dataclass(frozen=True)
class Polling:
    """How often to poll (None: without end), and how many seconds before the first and others."""

    tries: int | None = None
    first: float = 5.0
    seconds: float = 5.0

    def waits(self) -> Iterator[float]:
        """Return the seconds to wait before each poll."""
        return islice(chain([self.first], repeat(self.seconds)), self.tries)


@dataclass(frozen=True)
class SignerForm:
    """The signer certificate of a first enrollment.

    `key` is the type of a separate key (None: the CSR's key signs) with the subject `name`.
    `key_id` adds a critical authorityKeyIdentifier.
    """

    key: str | None = None
    name: x509.Name | None = None
    key_id: bool = False


@dataclass(frozen=True)
class Family:
    """How a family of devices enrolls. The defaults are those of `enroll` itself.

    `path` is appended to the SCEP URL. `identifier` is the message of GetCACaps and GetCACert, and
    `unescaped` are the base64 characters that the family leaves as they are in a GET. `keys` are
    the types of keys that it can have (empty: any). A family that `renews_afresh` signs a renewal
    with the new key, or its separate one, like a first enrollment.
    """

    user_agent: str | None = None
    path: str = ""
    identifier: str = "scepstream"
    unescaped: str = ""
    keys: tuple[str, ...] = ()
    nonce_size: int = 16
    transaction: TransactionForm = TransactionForm()
    cipher: Preference[AnyCipher] = Preference(_WITH_AES, AES128, DES3)
    digest: Preference[Digest] = Preference(_WITH_SHA256, SHA256, SHA1)
    transport: Preference[KeyTransport] = Preference(frozenset(), PKCS1V15, PKCS1V15)
    csr: CsrForm = _PLAIN_CSR
    signer: SignerForm = SignerForm()
    renews_afresh: bool = False
    polling: Polling = Polling()

    def server(self, url: str) -> Server:
        """Return the server at a SCEP URL as the family talks to it."""
        bare, mark, query = url.partition("?")
        if self.path and not bare.endswith(self.path):
            bare = f"{bare.rstrip('/')}{self.path}"
        return Server(f"{bare}{mark}{query}", self.user_agent, self.identifier, self.unescaped)


def _usage(*, encrypts: bool) -> bytes:
    usage = x509.KeyUsage(
        digital_signature=True, key_encipherment=encrypts, content_commitment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=False, crl_sign=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return extension(usage, critical=True)


_CLIENT_AUTH: Final = extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]))
_APPLICATION_POLICIES: Final = extension(
    x509.UnrecognizedExtension(
        x509.ObjectIdentifier("1.3.6.1.4.1.311.21.10"),
        tlv(SEQUENCE, tlv(SEQUENCE, object_identifier("1.3.6.1.5.5.7.3.2"))),
    )
)
_OS_VERSION: Final = attribute(
    object_identifier("1.3.6.1.4.1.311.13.2.3"), tlv(IA5_STRING, b"10.0.26100.2")
)
# [MS-WCCE] 2.2.2.7.4: client ID, names of machine, user and process.
_CLIENT_INFO: Final = attribute(
    object_identifier("1.3.6.1.4.1.311.21.20"),
    tlv(
        SEQUENCE,
        integer(9),
        *(
            string(UTF8_STRING, text)
            for text in ("DEVICE", "WORKGROUP\\DEVICE$", "omadmclient.exe")
        ),
    ),
)
# [MS-WCCE] 2.2.2.7.2: key specification, name of the provider, an empty signature.
_PROVIDER: Final = attribute(
    object_identifier("1.3.6.1.4.1.311.13.2.2"),
    tlv(
        SEQUENCE,
        integer(1),
        string(BMP_STRING, "Microsoft Software Key Storage Provider"),
        tlv(BIT_STRING, b"\0"),
    ),
)

DEFAULT: Final = Family()
WINDOWS: Final = Family(
    user_agent=(
        "Mozilla/4.0 (compatible; Win32; NDES client 10.0.26100.9278/ge_release_svc_prod3)"
    ),
    path="/pkiclient.exe",
    identifier="default",
    keys=("rsa:2048", "rsa:4096"),
    transaction=TransactionForm("sha1"),
    cipher=Preference(_WITH_AES, AES256, DES3),
    transport=Preference(_WITH_AES, KeyTransport("oaep"), PKCS1V15),
    csr=CsrForm(
        password=BMP_STRING,
        attributes=(
            _OS_VERSION,
            _CLIENT_INFO,
            _PROVIDER,
            name_value_pair("ValidityPeriod", "Years"),
            name_value_pair("ValidityPeriodUnits", "1"),
        ),
        extensions=(_usage(encrypts=True), _CLIENT_AUTH, _APPLICATION_POLICIES),
        key_id=True,
    ),
    signer=SignerForm(key_id=True),
    renews_afresh=True,
    polling=Polling(tries=3, first=300, seconds=300),
)
APPLE: Final = Family(
    user_agent="CertificateService/1 CFNetwork/1125.2 Darwin/19.4.0 (x86_64)",
    identifier="",
    unescaped="+/",
    keys=("rsa:2048", "rsa:4096"),
    nonce_size=8,
    transaction=TransactionForm("sha1", upper=True),
    csr=CsrForm(
        version=2,
        sorted=False,
        password=PRINTABLE_STRING,
        extensions=(_usage(encrypts=False),),
    ),
    signer=SignerForm(
        "rsa:2048",
        x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, "MDM SCEP SIGNER"),
                x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            ]
        ),
    ),
    renews_afresh=True,
    polling=Polling(tries=3, first=0, seconds=10),
)
ANDROID: Final = Family(
    user_agent="Dalvik/2.1.0 (Linux; U; Android 14; Pixel 8 Build/UQ1A.240205.004)",
    identifier="",
    keys=("rsa:2048", "rsa:3072", "rsa:4096"),
    transaction=TransactionForm("sha1"),
    cipher=Preference(_WITH_AES, AES256, DES3),
    csr=CsrForm(
        password=PRINTABLE_STRING,
        attributes=(
            name_value_pair("ValidityPeriod", "1"),
            name_value_pair("ValidityPeriodUnits", "Years"),
        ),
        extensions=(_usage(encrypts=True), _CLIENT_AUTH),
    ),
    renews_afresh=True,
)
FAMILIES: Final = {"windows": WINDOWS, "apple": APPLE, "android": ANDROID}
