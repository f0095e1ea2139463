"""The same request again, from any gateway, late, all at once, or while something is away."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from shared.runtime.process import listen
from shared.scep.certrep import CertRep, PkiStatus
from shared.scep.errors import FailInfo
from tests.support import messages as m
from tests.support.requests import (
    Device,
    Endpoint,
    answer,
    ask,
    certificate,
    counted,
    der,
    enroll,
    listed,
    recorded,
    send,
    server_errors,
    shown,
)
from tests.support.system import System, running, wait_until

SHORT_BUDGET = 1.0
AT_ONCE = 40


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Two gateways; the legacy profile answers PENDING after a second."""
    data = tmp_path_factory.mktemp("pair") / "data"
    env = {"SCEPSTREAM_PROFILE_LEGACY_REPLY_BUDGET": "1s"}
    with running(data, "--gateways", "2", env=env) as found:
        yield found


@pytest.fixture(scope="module")
def first(pair: System) -> Endpoint:
    return Endpoint.of(pair, "demo", 0)


@pytest.fixture(scope="module")
def second(pair: System) -> Endpoint:
    return Endpoint.of(pair, "demo", 1)


@pytest.fixture(scope="module")
def hasty(pair: System) -> Endpoint:
    """The profile with the short reply budget."""
    return Endpoint.of(pair, "legacy", 0)


@pytest.fixture(scope="module")
def identity() -> m.Identity:
    """One key for many transactions."""
    return Device.new().identity


@pytest.fixture
def device(identity: m.Identity) -> Device:
    return Device(identity)


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A process that does nothing for the length of a block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def verdicts(system: System) -> float:
    url = system.run["metrics_urls"]["validator-0"]
    return counted(url, "scepstream_verdicts_total")


def issued(system: System) -> float:
    url = system.run["metrics_urls"]["issuer-0"]
    return counted(url, "scepstream_outcomes_total", reason="issued")


def failure(reply: CertRep) -> tuple[PkiStatus, FailInfo | None]:
    return reply.status, reply.fail_info


def settled(endpoint: Endpoint, device: Device, reply: CertRep) -> bytes:
    """The certificate, polled for while it is pending."""

    def end() -> CertRep | None:
        nonlocal reply
        if reply.status is PkiStatus.PENDING:
            reply = ask(endpoint, device.poll(endpoint))
        return None if reply.status is PkiStatus.PENDING else reply

    return der(certificate(endpoint, device, wait_until(end, 30, "the enrollment's end")))


# The same again


def test_the_same_bytes_get_the_same_certificate_from_every_gateway(
    pair: System, first: Endpoint, second: Endpoint, device: Device
) -> None:
    request, before = device.enrollment(first), issued(pair)
    certificates, nonces = set(), set()
    for endpoint in (first, first, second):
        reply = ask(endpoint, request)
        certificates.add(der(certificate(endpoint, device, reply)))
        nonces.add(reply.sender_nonce)
    assert len(certificates) == 1
    assert len(nonces) == 3
    assert issued(pair) == before + 1


def test_a_new_envelope_and_nonce_around_the_same_csr_get_the_same_certificate(
    pair: System, first: Endpoint, second: Endpoint, device: Device
) -> None:
    csr, before = device.csr(first.challenge), issued(pair)
    found = {
        der(enroll(endpoint, device, csr=csr, cipher=cipher, digest=digest))
        for endpoint, cipher, digest in (
            (first, "aes256", "sha256"),
            (second, "aes128", "sha512"),
            (first, "aes192", "sha384"),
        )
    }
    assert len(found) == 1
    assert issued(pair) == before + 1


def test_another_csr_in_the_same_transaction_is_another_enrollment(
    first: Endpoint, second: Endpoint, device: Device
) -> None:
    """Clients reuse one transactionID for every request of a key."""
    csrs = [device.csr(first.challenge), device.csr(first.challenge, subject=m.DEVICE_NAME)]
    found = [der(enroll(first, device, csr=csr)) for csr in csrs]
    assert found[0] != found[1]
    assert [der(enroll(second, device, csr=csr)) for csr in csrs] == found


def test_another_key_in_the_same_transaction_is_another_enrollment(
    first: Endpoint, device: Device
) -> None:
    mine = enroll(first, device)
    other = Device(Device.new("other").identity, device.transaction)
    assert enroll(first, other).serial_number != mine.serial_number


def test_a_failure_is_answered_from_the_log_within_the_retry_delay(
    pair: System, first: Endpoint, second: Endpoint, device: Device
) -> None:
    request, before = device.enrollment(first, device.csr("wrong")), verdicts(pair)
    replies = [ask(endpoint, request) for endpoint in (first, second, first)]
    replies.append(ask(second, device.poll(second)))
    assert {failure(r) for r in replies} == {(PkiStatus.FAILURE, FailInfo.BAD_MESSAGE_CHECK)}
    assert len({r.fail_info_text for r in replies}) == 1
    assert verdicts(pair) == before + 1
    assert recorded(pair, device, "rejected")["enrollment"].endswith(".0")


def test_a_failure_does_not_keep_another_csr_of_the_device_out(
    first: Endpoint, device: Device
) -> None:
    reply = ask(first, device.enrollment(first, device.csr("wrong")))
    assert reply.status is PkiStatus.FAILURE
    enroll(first, device)


def test_forty_identical_requests_at_once_are_one_certificate(
    pair: System, first: Endpoint, second: Endpoint, device: Device
) -> None:
    request, before = device.enrollment(first), issued(pair)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        endpoints = [first, second] * (AT_ONCE // 2)
        responses = list(pool.map(lambda endpoint: endpoint.post(request.body), endpoints))
    assert {response.status_code for response in responses} == {200}
    replies = [answer(first, request, response) for response in responses]
    found = {settled(first, device, reply) for reply in replies}
    assert len(found) == 1
    assert issued(pair) == before + 1
    line = recorded(pair, device, "issued")
    once = [
        "CertificateIssued",
        "CertificateRecorded",
        "CertificateRecorded",
        "EnrollmentApproved",
        "EnrollmentRequested",
    ]

    def kinds() -> list[str]:
        return sorted(event["type"] for event in shown(pair, line["enrollment"]))

    # Each stream is recorded by itself, so records of certificates may come later than outcomes.
    wait_until(lambda: len(kinds()) >= len(once), 20, "the records of the certificate")
    assert kinds() == once


# Polling


def test_a_poll_after_success_gets_the_certificate_from_every_gateway(
    first: Endpoint, second: Endpoint, device: Device
) -> None:
    found = der(enroll(first, device))
    for endpoint in (first, second):
        assert der(certificate(endpoint, device, ask(endpoint, device.poll(endpoint)))) == found


def test_a_poll_for_an_unknown_transaction_is_a_bad_cert_id(
    first: Endpoint, device: Device
) -> None:
    reply = ask(first, device.poll(first))
    assert failure(reply) == (PkiStatus.FAILURE, FailInfo.BAD_CERT_ID)


def test_nobody_else_can_poll_for_a_transaction(first: Endpoint, device: Device) -> None:
    enroll(first, device)
    thief = Device(Device.new("thief").identity, device.transaction)
    reply = ask(first, thief.poll(first))
    assert failure(reply) == (PkiStatus.FAILURE, FailInfo.BAD_CERT_ID)


def test_a_transaction_of_one_profile_is_unknown_to_another(
    first: Endpoint, hasty: Endpoint, device: Device
) -> None:
    enroll(first, device)
    reply = ask(hasty, device.poll(hasty))
    assert failure(reply) == (PkiStatus.FAILURE, FailInfo.BAD_CERT_ID)


# Something is away


def test_an_enrollment_is_pending_while_no_validator_works_and_then_goes_on(
    pair: System, hasty: Endpoint, device: Device
) -> None:
    request, before = device.enrollment(hasty), issued(pair)
    with frozen(pair.run["pids"]["validator"][0]):
        started = time.monotonic()
        replies = [ask(hasty, request)]
        assert time.monotonic() - started >= SHORT_BUDGET
        replies += [ask(hasty, device.poll(hasty)), ask(hasty, request)]
    for reply in replies:
        assert reply.status is PkiStatus.PENDING
        assert (reply.fail_info, reply.fail_info_text) == (None, "")
        assert reply.signed.content == b""
    found = settled(hasty, device, replies[0])
    assert settled(hasty, device, ask(hasty, request)) == found
    assert issued(pair) == before + 1


def test_an_enrollment_is_pending_while_no_issuer_works_and_then_goes_on(
    pair: System, hasty: Endpoint, device: Device
) -> None:
    request = device.enrollment(hasty)
    with frozen(pair.run["pids"]["issuer"][0]):
        reply = ask(hasty, request)
        assert reply.status is PkiStatus.PENDING
        recorded(pair, device, "approved")
    found = settled(hasty, device, reply)
    assert settled(hasty, device, ask(hasty, request)) == found


def test_a_bus_that_does_not_answer_is_a_503_and_the_retry_succeeds(
    pair: System, first: Endpoint, device: Device
) -> None:
    request, errors = device.enrollment(first), server_errors(first.metrics_url)
    with frozen(pair.run["pids"]["nats"]), ThreadPoolExecutor(2) as pool:
        responses = list(pool.map(first.post, (request.body, device.poll(first).body)))
    for response in responses:
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) > 0
        assert response.headers["content-type"] == "text/plain"
        assert response.text == "the event log is not reachable\n"
    assert server_errors(first.metrics_url) == errors + 2
    certificate(first, device, ask(first, request))
    assert len(listed(pair, "--search", device.transaction.decode())) <= 1


def test_a_killed_bus_comes_back_with_every_certificate_it_had(
    pair: System, first: Endpoint, second: Endpoint, device: Device
) -> None:
    early = device.enrollment(first)
    before = der(certificate(first, device, ask(first, early)))
    late = Device(device.identity)
    request = late.enrollment(first)
    killed = pair.run["pids"]["nats"]
    os.kill(killed, signal.SIGKILL)

    def served() -> CertRep | None:
        response = first.post(request.body)
        assert response.status_code in {200, 503}
        if response.status_code == 200:
            return answer(first, request, response)
        assert int(response.headers["retry-after"]) > 0
        return None

    found = settled(first, late, wait_until(served, 60, "the first answer after the kill"))
    assert found != before
    assert pair.run["pids"]["nats"] != killed
    wait_until(lambda: second.post(early.body).status_code == 200, 30, "the other gateway")
    assert der(certificate(second, device, ask(second, early))) == before
    recorded(pair, late, "issued")


@contextmanager
def lone_gateway(system: System, env: dict[str, str]) -> Iterator[tuple[str, socket.socket]]:
    """A gateway of its own on a running system's configuration: its root URL, and its metrics'."""
    listener, operations = listen("127.0.0.1", 0), listen("127.0.0.1", 0)
    command = [sys.executable, "-m", "cli", "gateway", "--config", str(system.config)]
    command += ["--name", "gateway-lone", "--fd", str(listener.fileno())]
    command += ["--operations-fd", str(operations.fileno())]
    with (system.data.parent / "lone.log").open("w") as log:
        process = subprocess.Popen(
            command,
            pass_fds=(listener.fileno(), operations.fileno()),
            stderr=log,
            env={**os.environ, **env},
        )
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", operations
    finally:
        process.terminate()
        process.wait(30)
        listener.close()
        operations.close()


def test_a_gateway_that_has_not_read_its_pinned_ca_is_not_ready_and_shows_none(
    pair: System, device: Device, first: Endpoint
) -> None:
    env = {"SCEPSTREAM_PROFILE_DEMO_CA_SPKI_SHA256": "ab" * 32}
    with lone_gateway(pair, env) as (root, operations):
        shown_by_legacy = f"{root}/scep/legacy?operation=GetCACert"

        def others_are_served() -> bool:
            return send("GET", shown_by_legacy).status_code == 200

        wait_until(others_are_served, 30, "the other profile's chain")
        for base in (root, f"http://127.0.0.1:{operations.getsockname()[1]}"):
            ready = send("GET", f"{base}/readyz")
            assert (ready.status_code, ready.text) == (503, "CA chain of local\n")
            assert send("GET", f"{base}/healthz").status_code == 200
        url = f"{root}/scep/demo"
        refused = [
            send("GET", f"{url}?operation=GetCACert"),
            send("POST", f"{url}?operation=PKIOperation", content=device.enrollment(first).body),
        ]
        for response in refused:
            assert response.status_code == 503
            assert int(response.headers["retry-after"]) > 0
            assert response.headers["content-type"] == "text/plain"
        assert send("GET", f"{url}?operation=GetCACaps").status_code == 200
