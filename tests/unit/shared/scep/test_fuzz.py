"""Any bytes at all give a value or the codec's one error, nothing else."""

import base64
import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.scep import ber, cacaps, cacert, certrep, envelope, password, pkimessage, schemes
from shared.scep import request as payloads
from shared.scep.algorithms import SHA256, AlgorithmPolicy
from shared.scep.asn1 import Der
from shared.scep.certificate import read_certificate
from shared.scep.errors import ScepError
from shared.scep.pkimessage import DecryptionKey
from shared.x509.csr import read_csr, verify_self_signature
from shared.x509.names import name_text, read_general_names, read_name
from shared.x509.signatures import is_signed_by
from tests.support.messages import (
    BMP,
    CONTENT_KEY,
    PRINTABLE,
    SEQ,
    SET,
    UTF8,
    enveloped,
    indefinite,
    oid,
    recipient,
    signed,
    tlv,
)
from tests.support.sealing import PASSWORD, authenticated, password_recipient
from tests.support.signing import signed_so
from tests.unit.shared.scep.corpus import FORMS, SEALING, Corpus, make_corpus
from tests.unit.shared.scep.vectors import recorded_ra

pytestmark = pytest.mark.slow

MUTATIONS: Final = int(os.getenv("TEST_MUTATIONS", "20000"))
POLICY: Final = AlgorithmPolicy(legacy=True)
FALLBACK: Final = bytes(32)
CA: Final = recorded_ra()
Read = Callable[[bytes], object]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return make_corpus()


# Every reading function


def read_whole_csr(data: bytes) -> None:
    """Each part apart: that one is refused says nothing of the others."""
    request = read_csr(data)
    parts: list[Callable[[], object]] = [
        lambda: request.sans,
        lambda: request.public_key,
        lambda: name_text(request.subject),
        lambda: verify_self_signature(request),
    ]
    for part in parts:
        refused_or_done(part)


def refused_or_done(step: Callable[[], object]) -> bool:
    """Whether the step gave a value rather than the codec's error."""
    try:
        step()
    except ScepError:
        return False
    return True


def read_certificates(data: bytes) -> None:
    for der in certrep.read_certificates(data):
        refused_or_done(lambda der=der: read_certificate(der))


def read_next(data: bytes) -> None:
    cacert.read_next_ca_certs(data, CA.der)


def read_scheme(data: bytes) -> None:
    schemes.read_scheme(data, SHA256)


def read_password_recipient(data: bytes) -> None:
    """One that is read can be tried, whatever it says."""
    found = password.read_password_recipient(Der(data).enter(password.TAG))
    found.unwrap(PASSWORD)


def read_signed(data: bytes) -> None:
    is_signed_by(data, CA.key.public_key())


def open_envelope(data: bytes) -> None:
    """Under every key size that there is."""
    found = envelope.read_envelope(data)
    found.decrypt(CONTENT_KEY[: found.cipher.key_size])


READERS: Final[dict[str, Read]] = {
    "read_message": pkimessage.read_message,
    "read_envelope": envelope.read_envelope,
    "read_csr": read_whole_csr,
    "read_reply": certrep.read_reply,
    "read_certificates": read_certificates,
    "read_ca_certs": cacert.read_ca_certs,
    "read_caps": cacaps.read_caps,
    "read_certificate": read_certificate,
    "normalise": ber.normalise,
    "read_name": read_name,
    "read_general_names": read_general_names,
    "read_next_ca_certs": read_next,
    "read_crls": certrep.read_crls,
    "read_issuer_and_serial": payloads.read_issuer_and_serial,
    "read_scheme": read_scheme,
    "read_signature_algorithm": schemes.read_signature_algorithm,
    "public_key": schemes.public_key,
    "read_password_recipient": read_password_recipient,
    "is_signed_by": read_signed,
    "open_envelope": open_envelope,
}
each_reader = pytest.mark.parametrize("read", READERS.values(), ids=READERS)
TAGS: Final = st.sampled_from(
    [SEQ, SET, 0xA0, 0xA1, 0xA3, 0x24, 0x80, 2, 3, 4, 5, 6, UTF8, PRINTABLE, BMP]
) | st.integers(0, 255)
IDS: Final = st.sampled_from(
    [
        oid("1.2.840.113549.1.7.2"),
        oid("1.2.840.113549.1.7.3"),
        oid("1.2.840.113549.1.9.16.1.23"),
        oid("1.2.840.113549.1.1.10"),
        oid("1.2.840.113549.1.5.12"),
        oid("1.2.840.113549.1.9.14"),
        oid("2.5.29.17"),
        oid("2.5.4.3"),
    ]
)


def branch(children: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    several = st.lists(children, max_size=5).map(b"".join)
    return st.builds(tlv, TAGS, several) | st.builds(indefinite, TAGS, several)


TREES: Final = st.recursive(st.builds(tlv, TAGS, st.binary(max_size=20)) | IDS, branch)
EDITS: Final = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 8), st.binary(max_size=8)), min_size=1, max_size=4
)


def edited(data: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    for where, removed, added in edits:
        at = int(where * len(data))
        data = data[:at] + added + data[at + removed :]
    return data


@each_reader
@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=400))
@example(data=b"")
@example(data=b"\x30\x80")
@example(data=tlv(SEQ, tlv(6, b"\x2a" + b"\x81" * 3000 + b"\x01")))
def test_any_bytes_give_a_value_or_the_one_error(read: Read, data: bytes) -> None:
    refused_or_done(lambda: read(data))


@each_reader
@settings(max_examples=200, deadline=None)
@given(data=TREES)
def test_any_asn1_gives_a_value_or_the_one_error(read: Read, data: bytes) -> None:
    refused_or_done(lambda: read(data))


@each_reader
@settings(max_examples=200, deadline=None)
@given(number=st.integers(0, 1000), edits=EDITS)
def test_any_edit_of_good_bytes_gives_a_value_or_the_one_error(
    corpus: Corpus, read: Read, number: int, edits: list[tuple[float, int, bytes]]
) -> None:
    """Each reader gets the bytes of every kind: another's as well as its own."""
    samples = corpus.all
    refused_or_done(lambda: read(edited(samples[number % len(samples)], edits)))


@each_reader
def test_every_reader_reads_something_of_the_corpus(corpus: Corpus, read: Read) -> None:
    """Guards the tests above: edits start from what is good."""
    assert any(refused_or_done(lambda each=each: read(each)) for each in corpus.all)


# Mutations, taken through all steps


def headers(data: bytes) -> list[int]:
    """Where elements start, also those inside of octet strings; found without the codec."""
    found: list[int] = []
    todo = [(0, len(data))]
    while todo:
        pos, end = todo.pop()
        while pos + 2 <= end:
            tag, size, start = data[pos], data[pos + 1], pos + 2
            found.append(pos)
            if size == 0x80:
                pos = start
                continue
            if size > 0x80:
                start += size - 0x80
                size = int.from_bytes(data[pos + 2 : start], "big")
            if tag & 0x20 or (tag in (3, 4) and data[start : start + 1] in (b"\x30", b"\x24")):
                todo.append((start, min(start + size, end)))
            pos = start + size
    return found


def flip(rng: random.Random, data: bytearray, _: list[bytes]) -> None:
    data[rng.randrange(len(data))] ^= rng.choice((1, 2, 4, 8, 16, 32, 64, 128, rng.randrange(256)))


def delete(rng: random.Random, data: bytearray, _: list[bytes]) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.choice((1, 1, 2, 4, 30))]


def insert(rng: random.Random, data: bytearray, _: list[bytes]) -> None:
    at = rng.randrange(len(data))
    data[at:at] = rng.choice(
        (rng.randbytes(rng.randrange(1, 9)), b"\0\0", b"\x30\x80", b"\x05\x00")
    )


def duplicate(rng: random.Random, data: bytearray, _: list[bytes]) -> None:
    at = rng.randrange(len(data))
    data[at:at] = data[at : at + rng.choice((1, 2, 9, 40, 300))]


def splice(rng: random.Random, data: bytearray, others: list[bytes]) -> None:
    other = rng.choice(others)
    at, there = rng.randrange(len(data)), rng.randrange(len(other))
    size = rng.choice((2, 9, 40, 300))
    data[at : at + size] = other[there : there + size]


def edit_length(rng: random.Random, data: bytearray, _: list[bytes]) -> None:
    at = rng.choice(headers(data) or [0]) + 1
    if at < len(data):
        near = (data[at] + rng.choice((-2, -1, 1, 2))) & 0xFF
        data[at] = rng.choice((near, near, near, 0, 0x7F, 0x80, 0x81, 0x82, 0x84, 0x85, 0xFF))


def edit_tag(rng: random.Random, data: bytearray, _: list[bytes]) -> None:
    at = rng.choice(headers(data) or [0])
    data[at] = rng.choice((data[at] ^ 0x20, rng.randrange(256), SEQ, SET, 0xA0, 0x24, 4, 2, 6))


def drop_element(rng: random.Random, data: bytearray, _: list[bytes]) -> None:
    """Cut from the start of an element to the start of another."""
    starts = headers(data)
    if len(starts) > 1:
        first, last = sorted(rng.sample(starts, 2))
        del data[first : min(last, first + 600)]


MUTATORS: Final = (
    *(flip, flip, delete, insert, duplicate, splice),
    *(edit_length, edit_length, edit_tag, drop_element),
)


def mutated(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        if out:
            rng.choice(MUTATORS)(rng, out, others)
    return bytes(out)


@dataclass(frozen=True)
class Run:
    """The steps of the gateway and of a client, and how often each gave a value."""

    corpus: Corpus
    keys: list[DecryptionKey]
    reached: Counter[str]

    def done(self, name: str, step: Callable[[], object]) -> bool:
        self.reached[name] += (good := refused_or_done(step))
        return good

    def request(self, data: bytes) -> None:
        """On to the end, even where the signature does not hold: the parser must not rely on it."""
        message = pkimessage.read_message(data)
        self.reached["read_message"] += 1
        self.done("verify", lambda: pkimessage.verify(message, POLICY))
        self.done("reply", lambda: envelope.write_envelope(b"", message.signer, SEALING))
        found = pkimessage.read_envelope(message, POLICY)
        self.reached["read_envelope"] += 1
        if opened := pkimessage.unwrap_with_password(found, [PASSWORD]):
            self.reached["password"] += 1
            self.plaintext(found.decrypt(opened[1]))
            return
        key = pkimessage.unwrap_content_key(found, self.keys, FALLBACK)
        assert len(key) == found.cipher.key_size
        self.plaintext(found.decrypt(key))

    def plaintext(self, data: bytes) -> None:
        self.reached["decrypt"] += 1
        request = read_csr(data)
        self.reached["read_csr"] += 1
        self.done("sans", lambda: request.sans)
        self.done("public_key", lambda: request.public_key)
        self.done("subject", lambda: name_text(request.subject))
        self.done("verify_self_signature", lambda: verify_self_signature(request))

    def reply(self, data: bytes) -> None:
        reply = certrep.read_reply(data)
        self.reached["read_reply"] += 1
        found = envelope.read_envelope(reply.signed.content)
        opened = pkimessage.unwrap_with_password(found, [PASSWORD])
        key = pkimessage.unwrap_content_key(found, self.keys, FALLBACK)
        self.inside(found.decrypt(opened[1] if opened else key))

    def inside(self, data: bytes) -> None:
        """Certificates or a CRL, each in the other's place too."""
        self.done("reply's certificates", lambda: read_certificates(data))
        self.done("reply's CRLs", lambda: certrep.read_crls(data))

    def payload(self, data: bytes) -> None:
        payloads.read_issuer_and_serial(data)
        self.reached["read_issuer_and_serial"] += 1

    def crl(self, data: bytes) -> None:
        self.done("read_crls", lambda: certrep.read_crls(data))
        read_signed(data)

    def certificates(self, data: bytes) -> None:
        self.done("read_next_ca_certs", lambda: read_next(data))
        self.done("read_ca_certs", lambda: cacert.read_ca_certs(data))
        read_certificates(data)
        self.reached["read_certificates"] += 1


def of_envelope(rng: random.Random, corpus: Corpus) -> bytes:
    """A good signature around a changed envelope."""
    inner = mutated(rng, rng.choice(corpus.envelopes), corpus.envelopes)
    if rng.random() < 0.3:
        return signed_so(inner, corpus.ec_way)
    return signed(inner, corpus.device, ber=rng.random() < 0.3)


def of_csr(rng: random.Random, corpus: Corpus) -> bytes:
    """A good message around a changed CSR."""
    payload = mutated(rng, rng.choice(corpus.requests), corpus.requests)
    seal = rng.choice((enveloped, enveloped, authenticated))
    inner = seal(payload, rng.choice((WRAPPED, UNDER_PASSWORD)), form=rng.choice(FORMS))
    return signed(inner, corpus.device)


def mutation(rng: random.Random, run: Run) -> tuple[Callable[[bytes], None], bytes]:
    """(what reads it, bytes): a changed message, or a good one around changed insides."""
    corpus = run.corpus
    kind = rng.random()
    if kind < 0.15:
        return run.request, of_envelope(rng, corpus)
    if kind < 0.30:
        return run.request, of_csr(rng, corpus)
    samples: dict[Callable[[bytes], None], tuple[list[bytes], int]] = {
        run.request: (corpus.messages, 50),
        run.reply: (corpus.replies, 6),
        run.inside: (corpus.answers, 4),
        run.crl: (corpus.crls, 3),
        run.payload: (corpus.payloads, 2),
        run.certificates: (corpus.certificates, 5),
    }
    (read,) = rng.choices(list(samples), [weight for _, weight in samples.values()])
    good = samples[read][0]
    return read, mutated(rng, rng.choice(good), good)


WRAPPED: Final = recipient(CA)
UNDER_PASSWORD: Final = password_recipient(CONTENT_KEY, iterations=3)
STEPS: Final = (
    *("read_message", "verify", "reply", "read_envelope", "decrypt", "read_csr", "sans"),
    *("public_key", "subject", "verify_self_signature", "read_ca_certs", "read_certificates"),
    *("password", "read_reply", "reply's certificates", "reply's CRLs", "read_crls"),
    *("read_issuer_and_serial", "read_next_ca_certs"),
)


def test_mutated_messages_give_values_or_the_one_error(corpus: Corpus) -> None:
    """Through every step from bytes to a verified CSR, and back to a reply's key.

    TEST_MUTATIONS says how many, TEST_SEED repeats a run.
    """
    seed = int(os.getenv("TEST_SEED") or random.getrandbits(32))
    print(f"TEST_SEED={seed}")  # noqa: T201 - shown where the test fails
    keys = [corpus.ra.decryption, corpus.device.decryption]
    run = Run(corpus, keys, Counter())
    for number in range(MUTATIONS):
        read, data = mutation(random.Random(f"{seed}:{number}"), run)
        try:
            read(data)
        except ScepError:
            continue
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - a panic of the Rust below is none of Exception
            what = f"seed {seed}, number {number}: {error!r} from {read.__name__} of "
            pytest.fail(what + base64.b64encode(data).decode())
    if MUTATIONS >= 5000:
        rare = {step: n for step in STEPS if (n := run.reached[step]) < MUTATIONS / 1000}
        assert not rare, f"the mutations hardly get through: {rare}"
