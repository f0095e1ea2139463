"""Requests that a gateway's key planted beside those of devices: nobody is refused for them."""

import pytest

from shared.log.events.enrollment import EnrollmentRequested
from shared.log.roles import Role
from shared.log.stages import Stage
from shared.log.subjects import EnrollmentId, csr_token, transaction_token
from shared.x509.csr import read_csr
from tests.security.rights import SHARD
from tests.security.siege import Siege
from tests.support import golden
from tests.support import messages as m
from tests.support.requests import Device, Request, ask, certificate, der, ended


def _enrollment(profile: str, device: Device, csr: bytes, request: Request) -> EnrollmentId:
    transaction = transaction_token(
        profile, request.transaction, m.spki(device.identity.key.public_key())
    )
    return EnrollmentId(SHARD, profile, transaction, csr_token(read_csr(csr).info), 0)


def test_a_planted_request_in_the_place_of_a_true_one_refuses_nobody(siege: Siege) -> None:
    """Who has only a gateway's key to the bus cannot have a device refused."""
    demo, device = siege.endpoint(), Device.new()
    csr = device.csr(demo.challenge)
    request = device.enrollment(demo, csr)
    place = _enrollment("demo", device, csr, request).subject(Stage.REQUEST)
    siege.plant(Role.GATEWAY, place, golden.event(EnrollmentRequested))

    certificate(demo, device, ended(demo, request))


@pytest.mark.parametrize("attempt", [1, 999_999_999])
def test_a_planted_attempt_hides_nobodys_certificate(siege: Siege, attempt: int) -> None:
    """The device asks again, or polls, and has what it was given before."""
    demo, device = siege.endpoint(), Device.new()
    csr = device.csr(demo.challenge)
    request = device.enrollment(demo, csr)
    given = certificate(demo, device, ask(demo, request))
    place = _enrollment("demo", device, csr, request).at(attempt).subject(Stage.REQUEST)
    siege.plant(Role.GATEWAY, place, golden.event(EnrollmentRequested))

    for again in (request, device.poll(demo), request):
        assert der(certificate(demo, device, ended(demo, again))) == der(given)
