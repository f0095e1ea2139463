"""Good bytes of every kind, for tests that change them: made of fixed keys.

What fails can so be read again anywhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from cryptography.hazmat.primitives.asymmetric import padding

from shared.scep import certrep
from shared.scep.algorithms import AES128, AES256_GCM, PKCS1V15, SHA256
from shared.scep.asn1 import PRINTABLE_STRING
from shared.scep.envelope import ContentEncryption
from shared.scep.errors import FailInfo
from shared.scep.password import Password
from shared.scep.pkimessage import TransactionId
from shared.scep.schemes import ECDSA_SIGNATURE, pss
from shared.scep.signed_data import Signer
from tests.support import signing
from tests.support.messages import (
    BMP,
    CIPHERS,
    CONTENT_KEY,
    DEVICE_NAME,
    HASHES,
    IV,
    NONCE,
    PRINTABLE,
    SEQ,
    TRANSPORTS,
    UTF8,
    Identity,
    attribute,
    certs_only,
    challenge,
    cms_attributes,
    crl_only,
    csr,
    degenerate,
    enveloped,
    extension,
    extension_request,
    identity,
    oid,
    recipient,
    san,
    signed,
    spki,
    tlv,
)
from tests.support.sealing import (
    GCM,
    PASSWORD,
    PRFS,
    SALT,
    authenticated,
    gcm_key,
    password_recipient,
)
from tests.support.signing import Way, ec_device, every_way, pss_id, signed_so
from tests.unit.shared.scep.revocations import crl
from tests.unit.shared.scep.vectors import message_bytes, recorded, recorded_ra

SEALING: Final = ContentEncryption(AES128, PKCS1V15, CONTENT_KEY[:16], IV)
GCM_SEALING: Final = ContentEncryption(AES256_GCM, PKCS1V15, CONTENT_KEY, IV[:12])
FORMS: Final = ("primitive", "constructed", "ber")
ATTRIBUTES: Final = attribute("1.2.3", tlv(4, b"x"))
GENERAL_NAMES: Final = (
    tlv(0x82, b"d.example"),
    tlv(0x81, b"r@example"),
    tlv(0x86, b"urn:x"),
    tlv(0x87, bytes(4)),
    tlv(0x87, bytes(16)),
    tlv(0xA0, oid("1.3.6.1.4.1.311.20.2.3"), tlv(0xA0, tlv(UTF8, b"u@example"))),
    tlv(0xA4, DEVICE_NAME),
)


@dataclass(frozen=True)
class Corpus:
    """`answers` is what replies hold, `payloads` what GetCert and GetCRL ask for."""

    ra: Identity
    device: Identity
    ec_way: Way
    messages: list[bytes]
    envelopes: list[bytes]
    requests: list[bytes]
    replies: list[bytes]
    certificates: list[bytes]
    answers: list[bytes]
    crls: list[bytes]
    payloads: list[bytes]

    @cached_property
    def all(self) -> list[bytes]:
        kinds = (
            *(self.messages, self.envelopes, self.requests, self.replies, self.certificates),
            *(self.answers, self.crls, self.payloads, self.parts),
        )
        return [each for kind in kinds for each in kind]

    @property
    def parts(self) -> list[bytes]:
        """What stands inside of all these, alone."""
        ways = every_way(self.device).values()
        return [
            *(DEVICE_NAME, tlv(SEQ, *GENERAL_NAMES)),
            *(way.algorithm for way in ways),
            *(spki(way.by.key.public_key()) for way in ways),
            *(password_recipient(CONTENT_KEY, prf=prf, iterations=2) for prf in PRFS),
        ]


def make_corpus() -> Corpus:
    ra = recorded_ra()
    device = identity("device", 0x7001, ra.key)
    ec_way = signing.ecdsa(ec_device(), "sha256")
    requests = requests_of(device)
    envelopes = [*cbc_envelopes(ra, device, requests), *new_envelopes(ra, requests)]
    return Corpus(
        ra,
        device,
        ec_way,
        [message_bytes(vector) for vector in recorded()] + messages_of(device, ec_way, envelopes),
        envelopes,
        requests,
        replies_of(device, ra),
        [ra.der, device.der, certs_only(ra.der, device.der), *next_answers(ra, device)],
        [certs_only(ra.der, device.der), crl_only(crl(ra, 5)), degenerate()],
        [crl(ra, 5, 6), crl_only(crl(ra, 5)), crl(ra, pss=padding.PSS(mask(), 20))],
        [ra.issuer_and_serial, device.issuer_and_serial, ec_way.by.issuer_and_serial],
    )


def mask() -> padding.MGF1:
    return padding.MGF1(HASHES["sha256"][1])


def requests_of(device: Identity) -> list[bytes]:
    ec_way = signing.ecdsa(ec_device(), "sha256")
    attributes = (
        challenge(BMP, "s3cret".encode("utf-16-be")),
        attribute("1.2.840.113549.1.9.20", tlv(UTF8, b"friendly")),
        extension_request(
            san(*GENERAL_NAMES),
            extension("2.5.29.15", tlv(3, b"\x05\xa0"), critical=b"\x01\x01\xff"),
        ),
    )
    by_pss = signing.pss_sign(device.key, "sha256")
    return [
        csr(device.key, *attributes),
        csr(device.key, challenge(PRINTABLE, b"s3cret"), version=2),
        csr(ec_way.by.key, *attributes, algorithm=ec_way.algorithm, sign=ec_way.sign),
        csr(device.key, *attributes[:1], algorithm=pss_id("sha256"), sign=by_pss),
    ]


def cbc_envelopes(ra: Identity, device: Identity, requests: list[bytes]) -> list[bytes]:
    """Every cipher in every form, to every kind of recipient."""
    found = []
    transports, key_id = list(TRANSPORTS), tlv(0x80, device.key_id)
    for number, (cipher, form) in enumerate((c, f) for c in CIPHERS for f in FORMS):
        info = recipient(
            ra,
            cipher=cipher,
            transport=transports[number % len(transports)],
            sid=key_id if number % 4 == 3 else None,
        )
        payload = requests[number % len(requests)]
        found.append(enveloped(payload, info, cipher=cipher, form=form))
    return found


def new_envelopes(ra: Identity, requests: list[bytes]) -> list[bytes]:
    """GCM to a key and under a password, CBC under a password."""
    found = []
    for number, (cipher, form) in enumerate((c, f) for c in GCM for f in FORMS):
        key, payload = gcm_key(cipher), requests[number % len(requests)]
        wrapped = ra.key.public_key().encrypt(key, TRANSPORTS["oaep-sha256"][1])
        to_key = recipient(ra, transport="oaep-sha256", encrypted_key=wrapped)
        under = password_recipient(key, prf=list(PRFS)[number % len(PRFS)], iterations=5)
        attributes, size = ATTRIBUTES * (number % 2), 12 + number % 5
        found += [
            authenticated(
                payload, info, cipher=cipher, form=form, attributes=attributes, tag_size=size
            )
            for info in (to_key, under)
        ]
    for kek in CIPHERS:
        info = password_recipient(CONTENT_KEY, cipher=kek, iterations=5)
        found.append(enveloped(requests[0], info))
    return found


def messages_of(device: Identity, ec_way: Way, envelopes: list[bytes]) -> list[bytes]:
    """Each envelope in DER and BER, signed in one scheme after another."""
    by_pss = signing.pss(device, "sha256")
    key_id = tlv(0x80, device.key_id)
    signers: list[Callable[[bytes, bool], bytes]] = [
        lambda inner, ber: signed(inner, device, ber=ber),
        lambda inner, ber: signed(inner, device, ber=ber, sid=key_id),
        lambda inner, ber: signed_so(inner, by_pss, ber=ber),
        lambda inner, ber: signed_so(inner, ec_way, ber=ber),
    ]
    return [
        signers[number % len(signers)](inner, ber)
        for number, inner in enumerate(envelopes)
        for ber in (False, True)
    ]


def replies_of(device: Identity, ra: Identity) -> list[bytes]:
    to = certrep.ReplyTo(TransactionId(PRINTABLE_STRING, b"1"), NONCE, NONCE, SHA256, 1_700_000_000)
    under = Password(PASSWORD, SALT, IV, IV)
    by_pss = Signer(ra.key, ra.certificate, pss(SHA256))
    by_ec = Signer(ec_device().key, ec_device().certificate, ECDSA_SIGNATURE)
    holds = certs_only(ra.der)
    return [
        certrep.success(to, holds, device.certificate, SEALING, ra.signer),
        certrep.success(to, holds, under, SEALING, by_pss),
        certrep.success(to, crl_only(crl(ra, 5)), device.certificate, GCM_SEALING, by_ec),
        certrep.failure(to, FailInfo.BAD_TIME, "late", ra.signer),
        certrep.pending(to, by_pss),
    ]


def next_answers(ra: Identity, device: Identity) -> list[bytes]:
    """GetNextCACert."""
    content = certs_only(device.der)
    return [
        signed(content, ra, cms_attributes(content)),
        signed(content, ra, cms_attributes(content), ber=True),
        signed_so(content, signing.pss(ra, "sha256")),
    ]
