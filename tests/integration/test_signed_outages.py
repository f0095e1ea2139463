"""A CA that is away in the middle costs the same request neither its token nor its place."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from shared.scep.certrep import PkiStatus
from tests.support.prepared import configure, prepared
from tests.support.requests import (
    Device,
    Endpoint,
    Request,
    ask,
    certificate,
    der,
    ended,
    recorded,
)
from tests.support.system import System, running
from tests.support.tokens import token

LIMIT = 3


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Devices hear PENDING after a second."""
    layout = prepared(tmp_path_factory.mktemp("outage") / "data")
    configure(layout.config, "profiles.corp", reply_budget="1s")
    with running(layout.root, "--validators", "2") as found:
        yield found


@contextmanager
def away(system: System, role: str) -> Iterator[None]:
    """The processes of a role do nothing for the length of a block."""
    pids = system.run["pids"][role]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    yield
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def enrollment(system: System, endpoint: Endpoint, subject: str) -> tuple[Device, Request]:
    device = Device.new()
    challenge = token(system, device, sub=subject)
    return device, device.enrollment(endpoint, device.csr(challenge))


def test_while_the_ca_is_away_the_request_waits_and_then_gets_its_certificate(
    impatient: System,
) -> None:
    endpoint = Endpoint.of(impatient, "corp")
    device, request = enrollment(impatient, endpoint, "device-of-the-outage")
    with away(impatient, "issuer"):
        assert ask(endpoint, request).status is PkiStatus.PENDING
        recorded(impatient, device, "approved")
        assert ask(endpoint, request).status is PkiStatus.PENDING
        assert ask(endpoint, device.poll(endpoint)).status is PkiStatus.PENDING
    found = certificate(endpoint, device, ended(endpoint, request))
    assert der(certificate(endpoint, device, ended(endpoint, request))) == der(found)

    rest = [enrollment(impatient, endpoint, "device-of-the-outage")[1] for _ in range(LIMIT)]
    statuses = [ended(endpoint, each).status for each in rest]
    assert statuses == [PkiStatus.SUCCESS] * (LIMIT - 1) + [PkiStatus.FAILURE]


def test_while_the_validators_are_away_too_nothing_is_counted_twice(impatient: System) -> None:
    endpoint = Endpoint.of(impatient, "corp")
    device, request = enrollment(impatient, endpoint, "device-of-the-kill")
    with away(impatient, "issuer"):
        assert ask(endpoint, request).status is PkiStatus.PENDING
        recorded(impatient, device, "approved")
        impatient.kill("validator")
    certificate(endpoint, device, ended(endpoint, request))

    rest = [enrollment(impatient, endpoint, "device-of-the-kill")[1] for _ in range(LIMIT)]
    statuses = [ended(endpoint, each).status for each in rest]
    assert statuses == [PkiStatus.SUCCESS] * (LIMIT - 1) + [PkiStatus.FAILURE]
