"""The load generator's checker must be able to say no: right replies pass, wrong ones never."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from benchmarks import parties
from benchmarks.check import WrongReply, check
from benchmarks.enrollments import Enrollment, Recipe, enrollment, sealing
from benchmarks.evaluate import evaluate
from benchmarks.figures import Retries
from benchmarks.fire import Shot
from benchmarks.http1 import Response
from shared.scep import certrep, pkimessage, signed_data
from shared.scep.algorithms import AES128, DES, DES3, SHA256, ContentCipher
from shared.scep.certificate import read_certificate
from shared.scep.errors import FailInfo
from shared.scep.streamed import streamed

SIGNED_AT = 1_700_000_000


@dataclass(frozen=True)
class Server:
    """A CA with an RA that answers whatever it is told to."""

    ca: parties.Party
    ra: parties.Party

    @property
    def trusted(self) -> list[parties.x509.Certificate]:
        return [self.ca.certificate, self.ra.certificate]

    def signer(self) -> signed_data.Signer:
        return signed_data.Signer(self.ra.key, read_certificate(self.ra.der))

    def issue(self, device: Enrollment, common_name: str = "") -> bytes:
        key = device.device.key.public_key()
        issued = parties.issue(self.ca, common_name or device.common_name, key)
        return issued.public_bytes(parties.Encoding.DER)

    def answer(
        self,
        device: Enrollment,
        certificates: list[bytes] | None = None,
        cipher: ContentCipher = AES128,
        change: Callable[[certrep.ReplyTo], certrep.ReplyTo] = lambda to: to,
    ) -> bytes:
        request = pkimessage.read_message(device.message)
        to = change(certrep.reply_to(request, os.urandom(16), SHA256, SIGNED_AT))
        content = signed_data.write_certs_only(certificates or [self.issue(device)])
        return certrep.success(to, content, request.signer, sealing(cipher), self.signer())


def _server() -> Server:
    ca = parties.new_ca()
    return Server(ca, parties.new_ra(ca))


@pytest.fixture(scope="module")
def server() -> Server:
    return _server()


@pytest.fixture(scope="module")
def device(server: Server) -> Enrollment:
    return enrollment(Recipe(server.ra.der, "secret"), 0, parties.new_key())


@pytest.fixture(scope="module")
def other(server: Server) -> Enrollment:
    return enrollment(Recipe(server.ra.der, "secret"), 1, parties.new_key())


def _refuses(device: Enrollment, server: Server, reply: bytes, reason: str) -> None:
    with pytest.raises(WrongReply, match=reason):
        check(device, reply, server.trusted)


@pytest.mark.parametrize("cipher", [AES128, DES3])
def test_right_reply_passes(server: Server, device: Enrollment, cipher: ContentCipher) -> None:
    """A reply of the codec under test is right by the other implementation's reading too."""
    found = check(device, server.answer(device, cipher=cipher), server.trusted)

    assert found.public_key() == device.device.key.public_key()


def test_right_reply_in_ber_passes(server: Server, device: Enrollment) -> None:
    """Indefinite lengths and segments outside what is signed change nothing."""
    check(device, streamed(server.answer(device)), server.trusted)


def test_tampered_signature_is_refused(server: Server, device: Enrollment) -> None:
    reply = bytearray(server.answer(device))
    reply[-10] ^= 1

    _refuses(device, server, bytes(reply), "signature does not verify")


def test_tampered_content_is_refused(server: Server, device: Enrollment) -> None:
    """A changed envelope no longer has the digest that was signed."""
    reply = server.answer(device)
    content = certrep.read_reply(reply).signed.content
    tampered = content[:-10] + bytes([content[-10] ^ 1]) + content[-9:]

    _refuses(device, server, reply.replace(content, tampered), "messageDigest differs")


def test_signer_of_another_ca_is_refused(server: Server, device: Enrollment) -> None:
    """A signature that verifies says nothing when its certificate is a stranger's."""
    stranger = replace(_server(), ca=server.ca)

    _refuses(device, server, stranger.answer(device), "signer is not the CA's")


def test_reply_signed_by_the_device_is_refused(server: Server, device: Enrollment) -> None:
    impostor = replace(server, ra=device.device)

    _refuses(device, server, impostor.answer(device), "signer is not the CA's")


def test_other_transaction_is_refused(server: Server, device: Enrollment) -> None:
    transaction = pkimessage.TransactionId(0x13, b"another")
    reply = server.answer(device, change=lambda to: replace(to, transaction_id=transaction))

    _refuses(device, server, reply, "transactionID differs")


def test_other_nonce_is_refused(server: Server, device: Enrollment) -> None:
    reply = server.answer(device, change=lambda to: replace(to, recipient_nonce=bytes(16)))

    _refuses(device, server, reply, "recipientNonce differs")


def test_reply_to_another_device_is_refused(
    server: Server, device: Enrollment, other: Enrollment
) -> None:
    _refuses(device, server, server.answer(other), "transactionID differs")


def test_certificate_of_another_key_is_refused(
    server: Server, device: Enrollment, other: Enrollment
) -> None:
    reply = server.answer(device, [server.issue(other)])

    _refuses(device, server, reply, "no certificate with the requested key")


def test_certificate_of_another_name_is_refused(server: Server, device: Enrollment) -> None:
    """Keys come from a pool: the key alone does not tell two requests apart."""
    reply = server.answer(device, [server.issue(device, "somebody else")])

    _refuses(device, server, reply, "certificate names another device")


def test_certificate_of_another_ca_is_refused(server: Server, device: Enrollment) -> None:
    """Same issuer name, other key."""
    forged = replace(server, ca=parties.new_ca()).issue(device)

    _refuses(device, server, server.answer(device, [forged]), "does not chain to the CA")


def test_self_signed_certificate_is_refused(server: Server, device: Enrollment) -> None:
    reply = server.answer(device, [device.device.der])

    _refuses(device, server, reply, "does not chain to the CA")


def test_failure_is_refused(server: Server, device: Enrollment) -> None:
    to = certrep.reply_to(pkimessage.read_message(device.message), bytes(16), SHA256, SIGNED_AT)
    reply = certrep.failure(to, FailInfo.BAD_REQUEST, "no", server.signer())

    _refuses(device, server, reply, "pkiStatus FAILURE, failInfo 2")


def test_pending_is_refused(server: Server, device: Enrollment) -> None:
    to = certrep.reply_to(pkimessage.read_message(device.message), bytes(16), SHA256, SIGNED_AT)

    _refuses(device, server, certrep.pending(to, server.signer()), "pkiStatus PENDING")


def test_request_as_reply_is_refused(server: Server, device: Enrollment) -> None:
    """An echo is signed by a key that nobody vouched for."""
    _refuses(device, server, device.message, "signer is not the CA's")


def test_lenient_passes_only_where_allowed(server: Server, device: Enrollment) -> None:
    reply = server.answer(device, cipher=DES)

    _refuses(device, server, reply, "content cipher")
    check(device, reply, server.trusted, lenient=True)


@pytest.mark.parametrize(
    "body", [b"", b"\0", b"no such thing", b"\x30\x80", b"\x30\x03\x02\x01\x05"]
)
def test_garbage_is_refused(server: Server, device: Enrollment, body: bytes) -> None:
    _refuses(device, server, body, "unreadable")


def test_every_cut_is_refused(server: Server, device: Enrollment) -> None:
    """No prefix of a right reply is right, and none breaks the checker."""
    reply = server.answer(device)
    for size in range(0, len(reply), 7):
        with pytest.raises(WrongReply):
            check(device, reply[:size], server.trusted)


def test_flipped_octets_never_yield_another_certificate(server: Server, device: Enrollment) -> None:
    """A reply either is refused or still holds the very certificate that was issued."""
    issued = server.issue(device)
    reply = server.answer(device, [issued])
    for position in range(0, len(reply), 11):
        changed = bytearray(reply)
        changed[position] ^= 0x55
        try:
            found = check(device, bytes(changed), server.trusted)
        except WrongReply:
            continue
        assert found.public_bytes(parties.Encoding.DER) == issued


def _shot(body: bytes, status: int = 200, trouble: str = "") -> Shot:
    return Shot(Response(status, body), trouble, 0.001, 1)


def test_evaluate_names_each_failure(server: Server, device: Enrollment) -> None:
    """HTTP errors and requests given up are failures, whatever their bodies hold."""
    good = server.answer(device)
    shots = [_shot(good, status=500), _shot(good, trouble="503"), Shot(None, "timeout", 1.0, 12)]

    answers = evaluate([device] * 3, shots, server.trusted)

    assert [each.failure for each in answers] == ["HTTP 500", "gave up: 503", "gave up: timeout"]
    assert all(each.certificate is None for each in answers)


def test_evaluate_refuses_a_serial_number_given_out_twice(
    server: Server, device: Enrollment
) -> None:
    reply = server.answer(device)

    answers = evaluate([device, device], [_shot(reply), _shot(reply)], server.trusted)

    assert [each.failure for each in answers] == ["", "duplicate serial number"]
    lenient = evaluate([device, device], [_shot(reply), _shot(reply)], server.trusted, lenient=True)
    assert [(each.failure, each.repeated_serial) for each in lenient] == [("", False), ("", True)]


def test_pauses_between_retries_are_bounded() -> None:
    pauses = [Retries(pause=0.5, longest_pause=2.0).pause_after(attempt) for attempt in (1, 2, 9)]

    assert pauses == [0.5, 1.0, 2.0]
