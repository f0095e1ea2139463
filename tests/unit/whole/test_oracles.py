"""A stranger who signs somebody else's envelope again learns nothing of what is in it.

CBC is malleable and the envelope is not tied to its signer: whoever has recorded a device's request
can alter it and ask under a key of their own. No answer may then depend on the padding.
"""

import pytest

from shared.scep.algorithms import AES128
from shared.scep.certificate import read_certificate
from shared.scep.certrep import CertRep, PkiStatus, read_reply
from shared.scep.envelope import write_envelope
from shared.scep.errors import FailInfo
from shared.scep.pkimessage import MessageType
from shared.scep.request import issuer_and_serial
from tests.support.messages import Identity
from tests.unit.whole.client import Device, Style
from tests.unit.whole.system import Whole
from tests.unit.whole.test_every_style import key_of

QUERIES = (MessageType.GET_CERT, MessageType.GET_CRL)
Said = tuple[FailInfo | None, str]


def padded_wrong(envelope: bytes) -> bytes:
    """The last byte of the padding altered: through the block before it, which garbles that."""
    at = len(envelope) - AES128.block_size - 1
    return envelope[:at] + bytes((envelope[at] ^ 0x40,)) + envelope[at + 1 :]


def issuer(whole: Whole) -> bytes:
    chain = whole.gateway.chains.get(*next(iter(whole.gateway.live.current.chains())))
    assert chain is not None
    return read_certificate(chain.der[0]).subject


async def said(whole: Whole, message: bytes) -> tuple[CertRep, Said]:
    status, answer = await whole.post("modern", message)
    assert status == 200
    reply = read_reply(answer)
    return reply, (reply.fail_info, reply.fail_info_text)


@pytest.mark.parametrize("message_type", QUERIES)
@pytest.mark.parametrize("kind", ["rsa:2048", "ec:p256"])
async def test_a_query_says_the_same_whether_the_padding_is_good_or_not(
    whole: Whole, ra: Identity, kind: str, message_type: MessageType
) -> None:
    """The serial number swallows what the altered block becomes."""
    stranger = Device.new(key_of(kind))
    payload = issuer_and_serial(issuer(whole), b"\x01" * 30)
    answers = {
        (await said(whole, stranger.edited(message_type, payload, ra.certificate, Style(), edit)))[
            1
        ]
        for edit in (bytes, padded_wrong, lambda e: e[:-1] + bytes((e[-1] ^ 1,)))
    }
    assert len(answers) == 1
    ((fail_info, _),) = answers
    assert fail_info is (FailInfo.BAD_ALG if kind.startswith("ec") else FailInfo.BAD_CERT_ID)


async def test_a_crl_is_given_for_certificates_that_exist_alone(whole: Whole, ra: Identity) -> None:
    """Else any serial would do, also one that is the garbage of somebody's secret."""
    stranger = Device.new(key_of("rsa:2048"))
    query = issuer_and_serial(issuer(whole), b"\x01" * 30)
    message = stranger.message(MessageType.GET_CRL, query, ra.certificate, Style())
    _, answer = await said(whole, message)
    assert answer == (FailInfo.BAD_CERT_ID, "no such certificate")


async def test_a_poll_by_password_says_the_same_whether_the_padding_is_good_or_not(
    whole: Whole, ra: Identity
) -> None:
    stranger, style = Device.new(key_of("ec:p256")), Style(by_password=True)
    answers = {
        (
            await said(
                whole,
                stranger.edited(MessageType.CERT_POLL, b"0" * 99, ra.certificate, style, edit),
            )
        )[1]
        for edit in (bytes, padded_wrong)
    }
    assert answers == {(FailInfo.BAD_CERT_ID, "no such transaction")}


def flipped(envelope: bytes, at: int) -> bytes:
    """One bit of the envelope altered, counted from its end."""
    return envelope[:-at] + bytes((envelope[-at] ^ 1,)) + envelope[len(envelope) - at + 1 :]


async def test_another_devices_envelope_gives_its_certificate_or_one_answer_and_no_more(
    whole: Whole, ra: Identity
) -> None:
    """Untouched it is a request for the other's key; altered anywhere it does not open."""
    victim, stranger = Device.new(key_of("rsa:2048")), Device.new(key_of("rsa:2048", 1))
    sealing, recipient, _ = victim.parts(ra.certificate, Style())
    recorded = write_envelope(victim.csr(), recipient, sealing)

    async def answered(envelope: bytes) -> tuple[CertRep, Said]:
        message = stranger.edited(
            MessageType.PKCS_REQ, b"", ra.certificate, Style(), lambda _: envelope
        )
        return await said(whole, message)

    block = AES128.block_size
    altered = [flipped(recorded, at) for at in range(1, 40 * block, block // 2)]
    answers = {(await answered(each))[1] for each in (*altered, padded_wrong(recorded))}
    assert answers == {(FailInfo.BAD_MESSAGE_CHECK, "")}

    reply, _ = await answered(recorded)
    assert reply.status is PkiStatus.SUCCESS
