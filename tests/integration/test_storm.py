"""The same request many times at once, over several gateways."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from shared.scep.certrep import PkiStatus
from tests.support.requests import (
    Device,
    Endpoint,
    answer,
    ask,
    certificate,
    counted,
    der,
    recorded,
    shown,
)
from tests.support.system import System, wait_until

AT_ONCE = 201


def issued(system: System) -> float:
    url = system.run["metrics_urls"]["issuer-0"]
    return counted(url, "scepstream_outcomes_total", reason="issued")


def storm(gateways: list[Endpoint], body: bytes) -> list[httpx.Response]:
    """A request so many times at once; who is told to come later does, as devices do."""

    def sent(endpoint: Endpoint) -> httpx.Response:
        for _ in range(20):
            response = endpoint.post(body)
            if response.status_code != 503:
                break
            assert int(response.headers["retry-after"]) > 0
        return response

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(sent, gateways * (AT_ONCE // 3)))


@pytest.fixture(scope="module")
def gateways(wide: System) -> list[Endpoint]:
    return [Endpoint.of(wide, "anytime", gateway) for gateway in range(3)]


def test_two_hundred_of_the_same_request_are_one_certificate_in_two_hundred_answers(
    wide: System, gateways: list[Endpoint]
) -> None:
    device = Device.new()
    request, before = device.enrollment(gateways[0]), issued(wide)
    responses = storm(gateways, request.body)
    assert {response.status_code for response in responses} == {200}
    replies = [answer(gateways[0], request, response) for response in responses]
    assert {reply.status for reply in replies} == {PkiStatus.SUCCESS}
    assert len({der(certificate(gateways[0], device, reply)) for reply in replies}) == 1
    assert len({reply.sender_nonce for reply in replies}) == AT_ONCE
    assert issued(wide) == before + 1
    kinds = [e["type"] for e in shown(wide, recorded(wide, device, "issued")["enrollment"])]
    assert kinds.count("EnrollmentRequested") == kinds.count("CertificateIssued") == 1


def test_two_hundred_of_a_refused_request_are_one_verdict(
    wide: System, gateways: list[Endpoint]
) -> None:
    device = Device.new()
    request = device.enrollment(gateways[0], device.csr("wrong"))
    responses = storm(gateways, request.body)
    replies = [answer(gateways[0], request, response) for response in responses]
    assert len({(r.status, r.fail_info, r.fail_info_text) for r in replies}) == 1
    kinds = [e["type"] for e in shown(wide, recorded(wide, device, "rejected")["enrollment"])]
    assert kinds == ["EnrollmentRequested", "EnrollmentRejected"]


def test_nothing_stays_in_flight_after_a_storm(gateways: list[Endpoint]) -> None:
    device = Device.new()
    request = device.enrollment(gateways[0])
    with ThreadPoolExecutor(30) as pool:
        list(pool.map(lambda endpoint: endpoint.post(request.body), gateways * 10))
    certificate(gateways[1], device, ask(gateways[1], request))
    for endpoint in gateways:
        wait_until(
            lambda url=endpoint.metrics_url: (
                counted(url, "scepstream_in_flight", role="gateway") == 0
            ),
            10,
            "nothing in flight",
        )
