"""One enrollment in pieces, on which both the floor and the codec work."""

import os
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from benchmarks import parties
from benchmarks.enrollments import Enrollment, Recipe, enrollment, sealing
from shared.scep import certificate, certrep, envelope, pkimessage, signed_data
from shared.scep.algorithms import AES128, SHA256
from shared.x509 import csr


@dataclass(frozen=True, slots=True)
class Server:
    """A server's keys, and the certificate that it issues."""

    ca: parties.Party
    ra: parties.Party
    issued: bytes
    tbs: bytes


@dataclass(frozen=True, slots=True)
class Sample:
    """A server, and one device's request in DER and in BER."""

    server: Server
    der: Enrollment
    ber: Enrollment


@dataclass(frozen=True, slots=True)
class Pieces:
    """The inputs of one enrollment's cryptographic operations, as the codec sees them."""

    request: pkimessage.PkiMessage
    enveloped: envelope.Envelope
    plaintext: bytes
    csr: csr.CertificationRequest
    reply: signed_data.SignedData
    reply_envelope: envelope.Envelope
    reply_plaintext_size: int


def new_sample() -> Sample:
    ca, key = parties.new_ca(), parties.new_key()
    ra = parties.new_ra(ca)
    recipe = Recipe(ra.der, "a challenge")
    issued = parties.issue(ca, "dev", key.public_key())
    tbs = issued.tbs_certificate_bytes
    server = Server(ca, ra, issued.public_bytes(Encoding.DER), tbs)
    ber = enrollment(replace(recipe, ber=True), 0, key)
    return Sample(server, enrollment(recipe, 0, key), ber)


def dissect(sample: Sample) -> Pieces:
    """Return the pieces of the sample's DER request and of a reply to it."""
    request = pkimessage.read_message(sample.der.message)
    enveloped = envelope.read_envelope(request.signed.content)
    ra = sample.server.ra
    key = ra.key.decrypt(enveloped.recipients[0].encrypted_key, padding.PKCS1v15())
    plaintext = enveloped.decrypt(key)
    seal = sealing(AES128)
    to = certrep.reply_to(request, os.urandom(16), SHA256, int(time.time()))
    signer = signed_data.Signer(ra.key, certificate.read_certificate(ra.der))
    content = signed_data.write_certs_only([sample.server.issued])
    answer = certrep.success(to, content, request.signer, seal, signer)
    reply = certrep.read_reply(answer).signed
    reply_envelope = envelope.read_envelope(reply.content)
    size = len(reply_envelope.decrypt(seal.key))
    parsed = csr.read_csr(plaintext)
    return Pieces(request, enveloped, plaintext, parsed, reply, reply_envelope, size)


class CountingKey:
    """A private key that counts its uses, to show that floor and codec do the same operations."""

    def __init__(self, key: rsa.RSAPrivateKey, uses: Counter[str], name: str) -> None:
        self._key, self._uses, self._name = key, uses, name

    def sign(self, *args: Any) -> bytes:
        self._uses[f"{self._name} sign"] += 1
        return self._key.sign(*args)

    def decrypt(self, *args: Any) -> bytes:
        self._uses[f"{self._name} decrypt"] += 1
        return self._key.decrypt(*args)


def counted(server: Server, uses: Counter[str]) -> Server:
    """Return the server with counting keys."""
    ca: Any = CountingKey(server.ca.key, uses, "CA")
    ra: Any = CountingKey(server.ra.key, uses, "RA")
    return replace(server, ca=replace(server.ca, key=ca), ra=replace(server.ra, key=ra))
