"""Any edit of a good message is answered by 400 or a CertRep: never a 5xx, a hang, or a leak."""

import gc
import itertools
import os
import random
import resource
import time
from collections import Counter
from dataclasses import dataclass

import pytest

from shared.scep.certrep import PkiStatus, read_reply
from shared.scep.errors import ScepError
from shared.scep.pkimessage import MessageType
from shared.scep.request import issuer_and_serial, issuer_and_subject
from tests.support.messages import Identity
from tests.unit.whole.client import NAME, Device, Style
from tests.unit.whole.system import Whole
from tests.unit.whole.test_every_style import key_of

pytestmark = pytest.mark.slow

MUTATIONS = int(os.getenv("TEST_MUTATIONS", "20000"))
SEED = int(os.getenv("TEST_SEED", "8894"))
# Two halves, so that two processes can share them.
HALVES = 2
FORGET_EVERY = 500
HANG_SECONDS = 2.0  # of CPU; the figure itself is printed, not judged
GROWTH_KIB = 200 * 1024


@dataclass(frozen=True)
class Good:
    """What a good message is made of, and the message."""

    device: Device
    message_type: MessageType
    payload: bytes
    style: Style
    message: bytes


def corpus(ra: Identity) -> list[Good]:
    """Good messages of every type, key, encoding and kind of envelope."""
    payloads = {
        MessageType.CERT_POLL: issuer_and_subject(NAME.public_bytes(), NAME.public_bytes()),
        MessageType.GET_CERT: issuer_and_serial(NAME.public_bytes(), b"\x07"),
        MessageType.GET_CRL: issuer_and_serial(NAME.public_bytes(), b"\x07"),
    }
    rsa_styles = [
        Style(), Style(ber=True), Style("aes256-gcm", "sha512", "oaep"), Style(pss=True),
        Style("aes192", "sha384", "oaep-sha256"), Style("des3", "sha1"), Style("des", "md5"),
        Style(by_password=True), Style("aes128-gcm", ber=True),
    ]  # fmt: skip
    ec_styles = [Style(), Style("aes128-gcm", ber=True), Style(by_password=True)]
    found = []
    for kind, styles in (("rsa:2048", rsa_styles), ("ec:p256", ec_styles)):
        device = Device.new(key_of(kind))
        for style, message_type in itertools.product(styles, MessageType):
            payload = payloads.get(message_type) or device.csr()
            message = device.message(message_type, payload, ra.certificate, style)
            found.append(Good(device, message_type, payload, style, message))
    return found


def edit(data: bytes, random_: random.Random) -> bytes:
    """Bits flipped, bytes set, pieces cut, doubled, overwritten, the end cut off."""
    edited = bytearray(data)
    for _ in range(random_.choice((1, 1, 1, 2, 4))):
        at = random_.randrange(len(edited) or 1)
        size = random_.choice((1, 1, 2, 8, 64))
        piece = bytes(edited[at : at + size])
        edited[at : at + size] = random_.choice(
            (
                bytes(octet ^ 1 << random_.randrange(8) for octet in piece[:1]) + piece[1:],
                random_.randbytes(1) + piece[1:],
                b"",
                piece * 2,
                random_.choice((b"\0", b"\xff", b"\x80")) * size,
                data[: random_.randrange(len(data))][-size:],
            )
        )
        if not random_.randrange(20):
            del edited[at:]
    return bytes(edited)


def mutated(good: list[Good], ra: Identity, random_: random.Random) -> bytes:
    """A message edited outside, or inside what is then signed, or inside what is encrypted too."""
    chosen, to = random_.choice(good), ra.certificate
    device, kind, style = chosen.device, chosen.message_type, chosen.style
    match random_.randrange(3):
        case 0:
            return edit(chosen.message, random_)
        case 1:
            return device.edited(kind, chosen.payload, to, style, lambda e: edit(e, random_))
        case _:
            return device.message(kind, edit(chosen.payload, random_), to, style)


def told(status: int, answer: bytes) -> str:
    """What an answer is; only these are allowed."""
    if status == 400:
        return "400"
    assert status == 200, (status, answer)
    try:
        reply = read_reply(answer)
    except ScepError:
        raise AssertionError(answer.hex()) from None
    return PkiStatus(reply.status).name


def resident_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.timeout(0)
@pytest.mark.parametrize("half", range(HALVES))
async def test_every_mutated_message_has_an_answer(whole: Whole, ra: Identity, half: int) -> None:
    good, random_ = corpus(ra), random.Random(SEED + half)
    answers: Counter[str] = Counter()
    slowest, slow_message, before = 0.0, b"", 0
    for number in range(MUTATIONS // HALVES):
        message = mutated(good, ra, random_)
        started = time.process_time()
        status, answer = await whole.post("legacy", message)
        spent = time.process_time() - started
        answers[told(status, answer)] += 1
        if spent > slowest:
            slowest, slow_message = spent, message
        if number % FORGET_EVERY == 0:
            whole.forget()
        if number == MUTATIONS // HALVES // 5:
            gc.collect()
            before = resident_kib()
    print(f"{dict(answers)}, slowest {slowest * 1000:.1f} ms CPU, {resident_kib()} KiB")  # noqa: T201 - the figures of a long run
    assert slowest < HANG_SECONDS, slow_message.hex()
    assert resident_kib() - before < GROWTH_KIB
    assert answers["400"]
    assert answers["FAILURE"]
