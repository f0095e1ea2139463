"""An operator's service is asked over real sockets: only a clear yes in time is a yes."""

import asyncio
import gzip
import hashlib
import hmac
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ec

from services.validator.access import verifiers
from services.validator.challenges.kind import VerifierContext
from services.validator.challenges.records import Records
from services.validator.challenges.verifier import ChallengeResult, Verifier
from services.validator.challenges.webhook import WEBHOOK, WebhookVerifier
from shared.limits import PROFILE_PLACES
from shared.log.reasons import FAIL_INFO, Reason
from shared.runtime.endpoint import Endpoint
from tests.support.accesses import accepting
from tests.support.enrollers import (
    ask,
    asked,
    dns,
    holder,
    judgement,
    verdict,
)
from tests.support.messages import TRANSACTION, Identity
from tests.support.validators import World, validating
from tests.support.world import (
    NOW,
    OPERATOR,
    PROFILE,
    TRUSTED_ISSUERS,
    TRUSTED_OPERATORS,
    TRUSTED_VALIDATORS,
    VALIDATOR,
    memory_bus,
    turn,
    until,
)
from tests.unit.services.validator.http_services import (
    YES,
    Papers,
    Posted,
    Service,
    http,
    serving,
)

CHALLENGE = "the-ch4llenge-of-a-device"
SECRET = b"hmac-s3cret-of-the-hook"
BEARER = "b3arer-of-the-hook"


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving(Service()) as found:
        yield found


def endpoint(service: Service, **options: Any) -> Endpoint:
    return Endpoint(**{"url": service.url, "timeout": 10.0} | options)


def verifier(found: Endpoint, places: int = 16) -> Verifier:
    """As a profile with this service has it."""
    access = accepting(by_webhook=found, concurrency=places)
    records = Records(memory_bus(), VALIDATOR, TRUSTED_VALIDATORS, TRUSTED_ISSUERS)
    return verifiers(access, VerifierContext(PROFILE, records, TRUSTED_OPERATORS))[WEBHOOK]


async def verified(found: Endpoint, number: int = 0) -> ChallengeResult:
    """What comes of asking, which is never longer than a test can wait."""
    async with asyncio.timeout(15):
        return await verifier(found).verify(asked(holder(number), CHALLENGE))


def denied(found: ChallengeResult) -> bool:
    return found.refusal is not None and found.refusal.reason is Reason.WEBHOOK_DENIED


# Yes and no


async def test_a_clear_yes_opens_the_gate(service: Service) -> None:
    found = await verified(endpoint(service))

    assert found.refusal is None
    assert [(gate.gate, gate.passed) for gate in found.gates] == [("challenge", True)]


@pytest.mark.parametrize(
    "body",
    [
        b'{"allow": true, "note": "and more"}',
        b' \n{"allow":true}\r\n',
        '{"allow": true, "wer": "Jörg"}'.encode(),
        b'{"allow": true}' + b" " * (64 * 1024 - 15),
    ],
)
async def test_what_else_the_answer_says_does_not_matter(service: Service, body: bytes) -> None:
    service.say = http(200, body)

    assert (await verified(endpoint(service))).refusal is None


NO = {
    "false": b'{"allow": false}',
    "the word": b'{"allow": "true"}',
    "one": b'{"allow": 1}',
    "one point nought": b'{"allow": 1.0}',
    "null": b'{"allow": null}',
    "a list": b'{"allow": [true]}',
    "an object": b'{"allow": {"allow": true}}',
    "nothing of it": b"{}",
    "another name": b'{"Allow": true}',
    "deeper": b'{"answer": {"allow": true}}',
    "a list of it": b'[{"allow": true}]',
    "the word alone": b"true",
    "no JSON": b"allow: true",
    "nothing": b"",
    "half": b'{"allow": true',
    "more behind": b'{"allow": true}{"allow": true}',
    "no first": b'{"allow": false, "allow": true}',
    "no second": b'{"allow": true, "allow": false}',
    "yes twice": b'{"allow": true, "allow": true}',
    "a duplicate elsewhere": b'{"allow": true, "x": {"y": 1, "y": 2}}',
    "no number": b'{"allow": true, "x": NaN}',
    "UTF-16": '{"allow": true}'.encode("utf-16"),
    "no text": b'{"allow": true, "x": "\xff"}',
    "deep": b'{"allow": true, "x": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "too long": b'{"allow": true}' + b" " * (64 * 1024),
}


@pytest.mark.parametrize("body", NO.values(), ids=NO)
async def test_whatever_is_no_clear_yes_is_a_no(service: Service, body: bytes) -> None:
    service.say = http(200, body)

    assert denied(await verified(endpoint(service)))
    assert len(service.posted) == 1


@pytest.mark.parametrize("status", [201, 202, 203, 204, 206, 400, 401, 403, 404, 429, 500, 503])
async def test_any_status_but_200_is_a_no(service: Service, status: int) -> None:
    service.say = http(status, b"" if status == 204 else YES)

    assert denied(await verified(endpoint(service)))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_a_no_and_is_not_followed(service: Service, status: int) -> None:
    """The challenge must not go where the operator did not send it."""
    async with serving(Service()) as elsewhere:
        service.say = http(status, YES, location=elsewhere.url)

        assert denied(await verified(endpoint(service)))
    assert elsewhere.posted == []
    assert len(service.posted) == 1


async def test_a_small_answer_that_unpacks_to_a_long_one_is_a_no(service: Service) -> None:
    packed = gzip.compress(YES + b" " * 4_000_000)
    assert len(packed) < 10_000
    service.say = http(200, packed, content_encoding="gzip")

    assert denied(await verified(endpoint(service)))


async def test_an_answer_that_does_not_unpack_is_a_no(service: Service) -> None:
    service.say = http(200, YES, content_encoding="gzip")

    assert denied(await verified(endpoint(service)))


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\0\1\2\3",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n" + YES,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\ncontent-length: 16\r\n\r\n" + YES,
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 " + b"2" * 200_000,
    ],
)
async def test_what_is_no_http_is_a_no(service: Service, said: bytes) -> None:
    service.say = said

    assert denied(await verified(endpoint(service)))


# Not in time


async def test_an_answer_that_does_not_come_in_time_is_a_no(service: Service) -> None:
    never = asyncio.Event()

    async def silent(_: Posted, __: asyncio.StreamWriter) -> None:
        await never.wait()

    service.answer = silent
    assert denied(await verified(endpoint(service, timeout=0.2)))


async def test_an_answer_in_drops_has_no_longer_than_any_other(service: Service) -> None:
    """Each byte is soon followed by the next: the whole of it counts."""
    never = asyncio.Event()
    dropped = 0

    async def drops(_: Posted, writer: asyncio.StreamWriter) -> None:
        nonlocal dropped
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n" + YES)
        while not never.is_set():
            writer.write(b" ")
            await writer.drain()
            dropped += 1
            await asyncio.sleep(0.01)

    service.answer = drops
    assert denied(await verified(endpoint(service, timeout=0.3)))
    assert dropped > 2


async def test_a_connection_that_is_refused_is_a_no() -> None:
    with socket.socket() as taken:  # bound and not listening: nobody else gets the port
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"

        assert denied(await verified(Endpoint(url, 5.0)))


async def test_a_connection_that_nobody_accepts_is_a_no_in_time() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/"

        assert denied(await verified(Endpoint(url, 0.3)))


async def test_past_its_places_a_slow_service_costs_its_own_profile_alone(
    service: Service,
) -> None:
    """Else who sends junk to one profile fills the validator with requests that wait."""
    never = asyncio.Event()

    async def silent(_: Posted, __: asyncio.StreamWriter) -> None:
        await never.wait()

    service.answer = silent
    slow = verifier(endpoint(service, timeout=30))
    request = asked(holder(0), CHALLENGE)
    waiting = [asyncio.create_task(slow.verify(request)) for _ in range(PROFILE_PLACES)]
    await until(lambda: service.active)
    async with asyncio.timeout(5):
        assert denied(await slow.verify(request))

    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    waiting.append(asyncio.create_task(slow.verify(request)))
    await turn()
    assert not waiting[-1].done()
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_who_waits_for_an_answer_can_be_stopped(service: Service) -> None:
    """A validator that is told to stop is not kept: its own cancellation is no answer."""
    never = asyncio.Event()

    async def silent(_: Posted, __: asyncio.StreamWriter) -> None:
        await never.wait()

    service.answer = silent
    task = asyncio.create_task(verified(endpoint(service)))
    await until(lambda: service.active)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


# What is asked


async def test_the_question_has_the_request_and_nothing_more(service: Service) -> None:
    question = asked(holder(), CHALLENGE, dns("device.example"))
    await verifier(endpoint(service)).verify(question)

    (posted,) = service.posted
    facts = question.opened.facts
    assert (posted.method, posted.path) == ("POST", "/hook")
    assert posted.headers["content-type"] == "application/json"
    assert posted.json == {
        "id": question.enrollment.prefix(),
        "profile": PROFILE,
        "transaction_id": TRANSACTION.decode(),
        "challenge": CHALLENGE,
        "renewal": False,
        "csr": {
            "subject": facts.subject,
            "sans": list(facts.sans),
            "key_type": facts.key_type,
            "key_bits": facts.key_bits,
            "spki_sha256": facts.spki_sha256,
            "sha256": facts.csr_sha256,
        },
    }


async def test_the_signature_is_over_time_and_body(service: Service) -> None:
    await verified(endpoint(service, secret=SECRET))

    (posted,) = service.posted
    stamp = posted.headers["scepstream-timestamp"]
    expected = hmac.new(SECRET, stamp.encode() + b"." + posted.body, hashlib.sha256).hexdigest()
    assert stamp == str(NOW)
    assert posted.headers["scepstream-signature"] == f"sha256={expected}"


async def test_without_a_secret_there_is_no_signature_and_without_a_token_no_bearer(
    service: Service,
) -> None:
    await verified(endpoint(service))

    assert not {"scepstream-signature", "authorization"} & service.posted[0].headers.keys()


async def test_the_bearer_token_is_sent(service: Service) -> None:
    await verified(endpoint(service, bearer=BEARER))

    assert service.posted[0].headers["authorization"] == f"Bearer {BEARER}"


async def test_a_challenge_of_any_characters_arrives_as_it_is(service: Service) -> None:
    challenge = 'ä"\\\u2028\U0001f511 \x01</script>'
    await verifier(endpoint(service)).verify(asked(holder(), challenge))

    assert service.posted[0].json["challenge"] == challenge


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
async def test_no_proxy_of_the_environment_is_asked(
    service: Service, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    async with serving(Service()) as proxy:
        monkeypatch.setenv(variable, proxy.url)

        assert (await verified(endpoint(service))).refusal is None
    assert proxy.posted == []


@pytest.mark.parametrize("bearer", ["tökén", "a\nb", "a\r\nx-evil: 1", "\0"])
async def test_a_bearer_token_that_no_header_can_carry_is_a_no_and_no_error(
    service: Service, bearer: str
) -> None:
    """An error would have the request handed out again and again, and ended as poison."""
    assert denied(await verified(endpoint(service, bearer=bearer)))
    assert service.posted == []


# TLS


@pytest.fixture
def papers(tmp_path: Path, ec_key: ec.EllipticCurvePrivateKey) -> Papers:
    return Papers(tmp_path, ec_key)


def trusting(papers: Papers) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(papers.ca))


async def test_a_service_of_a_private_ca_is_asked(papers: Papers) -> None:
    async with serving(Service(), papers.server()) as service:
        found = await verified(endpoint(service, tls=trusting(papers)))

    assert found.refusal is None
    assert service.posted[0].json["challenge"] == CHALLENGE


async def test_a_service_of_an_unknown_ca_gets_no_challenge(papers: Papers) -> None:
    async with serving(Service(), papers.server()) as service:
        assert denied(await verified(endpoint(service, tls=ssl.create_default_context())))
    assert service.posted == []


@pytest.mark.parametrize("pair", [{"host": "127.0.0.2"}, {"days": -1}])
async def test_a_service_with_anothers_or_an_expired_certificate_gets_no_challenge(
    papers: Papers, pair: dict[str, Any]
) -> None:
    async with serving(Service(), papers.server(**pair)) as service:
        assert denied(await verified(endpoint(service, tls=trusting(papers))))
    assert service.posted == []


async def test_a_service_without_tls_where_it_is_wanted_gets_no_challenge(
    papers: Papers, service: Service
) -> None:
    url = service.url.replace("http:", "https:")

    assert denied(await verified(endpoint(service, url=url, tls=trusting(papers))))
    assert service.posted == []


async def test_the_client_shows_its_certificate(papers: Papers) -> None:
    context = trusting(papers)
    context.load_cert_chain(*papers.pair("validator"))
    async with serving(Service(), papers.server(clients=True)) as service:
        found = await verified(endpoint(service, tls=context))

    assert found.refusal is None
    assert service.posted[0].client == "validator"


async def test_without_its_certificate_the_client_is_not_heard(papers: Papers) -> None:
    async with serving(Service(), papers.server(clients=True)) as service:
        assert denied(await verified(endpoint(service, tls=trusting(papers))))
    assert service.posted == []


# Many at once


async def test_no_more_questions_are_under_way_than_allowed(service: Service) -> None:
    gate = asyncio.Event()

    async def held(_: Posted, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        writer.write(http(200, YES))

    service.answer = held
    shared = verifier(endpoint(service), places=3)
    tasks = [asyncio.create_task(shared.verify(asked(holder(n), CHALLENGE))) for n in range(10)]
    await until(lambda: service.active == 3)
    await turn(200)
    assert (service.active, len(service.posted)) == (3, 3)
    gate.set()
    found = await asyncio.gather(*tasks)

    assert [each.refusal for each in found] == [None] * 10
    assert (service.most, len(service.posted)) == (3, 10)


async def test_waiting_for_a_place_counts_as_waiting_for_an_answer(service: Service) -> None:
    never = asyncio.Event()

    async def silent(_: Posted, __: asyncio.StreamWriter) -> None:
        await never.wait()

    service.answer = silent
    shared = verifier(endpoint(service, timeout=0.3), places=1)
    async with asyncio.timeout(3):
        found = await asyncio.gather(
            *(shared.verify(asked(holder(n), CHALLENGE)) for n in range(5))
        )

    assert all(map(denied, found))
    service.answer = None
    assert (await shared.verify(asked(holder(), CHALLENGE))).refusal is None


# Secrets


def wired(service: Service) -> Endpoint:
    return endpoint(service, secret=SECRET, bearer=BEARER, timeout=0.3)


def test_no_secret_stands_in_what_is_printed_of_it(service: Service) -> None:
    found = wired(service)
    printed = repr(found) + repr(WebhookVerifier(found, asyncio.Semaphore(1)))
    printed += repr(accepting(by_webhook=found, notify=found)) + str(found)

    assert SECRET.decode() not in printed
    assert BEARER not in printed


@pytest.mark.parametrize("said", [http(500, b"no"), b"", b"\0", b"HTTP/1.1 200 OK\r\n"])
async def test_no_secret_and_no_challenge_is_logged(
    service: Service, caplog: pytest.LogCaptureFixture, said: bytes
) -> None:
    service.say = said
    with caplog.at_level(logging.DEBUG), structlog.testing.capture_logs() as logs:
        assert denied(await verified(wired(service)))

    printed = repr(logs) + caplog.text
    for secret in (SECRET.decode(), BEARER, CHALLENGE):
        assert secret not in printed


async def test_no_answer_is_repeated_in_the_record(service: Service) -> None:
    """The service may be so unwise as to echo the challenge."""
    service.say = http(200, b'{"allow": false, "because": "%s"}' % CHALLENGE.encode())
    found = await verified(endpoint(service))

    assert CHALLENGE not in repr(found)


# In a profile


@pytest.fixture
async def world(
    device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey, service: Service
) -> AsyncIterator[World]:
    async with validating(device, ra, ec_key) as found:
        found.accept(accepting(by_webhook=endpoint(service)))
        yield found


async def test_its_answer_is_the_verdict(world: World, service: Service) -> None:
    first = await ask(world, holder(), CHALLENGE)
    assert await judgement(world, first) == "approved"
    service.say = http(200, NO["false"])
    second = await ask(world, holder(1), CHALLENGE)

    assert await judgement(world, second) == Reason.WEBHOOK_DENIED
    event = verdict(world, second)
    assert getattr(event, "fail_info", None) is FAIL_INFO[Reason.WEBHOOK_DENIED]
    assert event.facts is not None
    assert event.facts.challenge == WEBHOOK


async def test_what_the_profile_refuses_is_not_asked_about(world: World, service: Service) -> None:
    world.allow(key_types=frozenset({"rsa:2048"}))

    assert await judgement(world, await ask(world, holder(), CHALLENGE)) == Reason.KEY_NOT_ALLOWED
    world.allow(key_types=frozenset({"ec:p256"}))
    assert await judgement(world, await ask(world, holder(1), None)) == Reason.CHALLENGE_MISSING
    assert service.posted == []


async def test_a_redelivered_request_is_asked_about_under_the_same_id(
    world: World, service: Service
) -> None:
    request = await ask(world, holder(), CHALLENGE)
    await world.consumer.handle(request)
    world.bus.streams["ENROLL_0"].messages.popitem()
    world.clock.seconds += 3600
    await world.consumer.handle(request)
    first, second = service.posted

    assert first.body == second.body
    assert await judgement(world, await ask(world, holder(1), CHALLENGE)) == "approved"
    assert service.posted[2].json["id"] != first.json["id"]


async def test_no_challenge_stands_in_the_verdict(world: World, service: Service) -> None:
    service.say = http(403, CHALLENGE.encode())
    request = await ask(world, holder(), CHALLENGE)

    assert await judgement(world, request) == Reason.WEBHOOK_DENIED
    assert CHALLENGE.encode() not in world.verdicts()[0].payload
    assert OPERATOR.id not in world.verdicts()[0].headers.values()
