"""Intune's validation API through a running system, against the fake of Microsoft over HTTPS."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from cli.fake_microsoft.fake import FakeMicrosoft
from tests.support.prepared import add_profiles, configure, prepared
from tests.support.requests import (
    Device,
    Endpoint,
    Request,
    ask,
    certificate,
    recorded,
)
from tests.support.system import System, running

INTUNE = {"challenge_password": [], "reply_budget": "20s"}
PROFILES = {
    "windows": INTUNE | {"intune_connection": "contoso"},
    "fabrikam": INTUNE | {"intune_connection": "fabrikam"},
    "strict": INTUNE
    | {"intune_connection": "contoso", "compliance": "intune", "compliance_grace": "1h"},
    "entra": INTUNE | {"intune_connection": "contoso", "compliance": "entra"},
    "eager": INTUNE
    | {"intune_connection": "contoso", "intune_wait_for_success_notification": False},
}


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeMicrosoft]:
    with FakeMicrosoft(tmp_path_factory.mktemp("microsoft")) as found:
        yield found


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, fake: FakeMicrosoft) -> Iterator[System]:
    layout = prepared(tmp_path_factory.mktemp("intune") / "data")
    add_profiles(layout, PROFILES)
    layout.config.write_text(layout.config.read_text() + fake.configuration())
    configure(layout.config, "issuers.local", ocsp_validity="1d")
    with running(layout.root, "--gateways", "2") as found:
        yield found


@pytest.fixture(autouse=True)
def clean(fake: FakeMicrosoft) -> None:
    fake.clear_faults()
    fake.answer("validate")
    fake.answer("success")


@dataclass(frozen=True)
class Managed:
    """A device with a challenge of Intune for it."""

    device: Device
    challenge: str
    tenant: str = "contoso"

    def endpoint(self, system: System, profile: str = "windows", gateway: int = 0) -> Endpoint:
        return replace(Endpoint.of(system, profile, gateway), challenge=self.challenge)

    def request(self, endpoint: Endpoint) -> Request:
        return self.device.enrollment(endpoint)


def managed(fake: FakeMicrosoft, tenant: str = "contoso", **options: object) -> Managed:
    device = Device.new()
    subject = f"CN={device.name}"
    return Managed(device, fake.mint(tenant, subject=subject, **options), tenant)


def test_a_device_gets_its_certificate_after_intune_was_notified(
    system: System, fake: FakeMicrosoft
) -> None:
    one = managed(fake)
    endpoint = one.endpoint(system)
    begun = time.time()
    found = certificate(endpoint, one.device, ask(endpoint, one.request(endpoint)))
    assert time.time() - begun < 8

    assert fake.discrepancies("contoso", found) == []
    recorded(system, one.device, "issued")
