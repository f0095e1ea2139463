"""Intune's validation API through a running system, against the fake of Microsoft over HTTPS."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cli.fake_microsoft.model import Entry
from shared.scep.certrep import PkiStatus
from shared.scep.errors import FailInfo
from tests.integration.intune_devices import (
    Intune,
    at_once,
    managed,
    quick_device,
    refusal,
)
from tests.support.holders import holding, renewal
from tests.support.requests import Device, answer, ask, certificate, recorded
from tests.support.system import wait_until

SIZES = (4096, 16384)


@contextmanager
def silent(intune: Intune) -> Iterator[None]:
    """Nothing is asked of Microsoft about a device in the block."""
    before = len(intune.fake.journal("validate", "success", "failure"))
    yield
    assert len(intune.fake.journal("validate", "success", "failure")) == before


def test_a_device_gets_its_certificate_after_intune_was_notified(intune: Intune) -> None:
    one = managed(intune)
    begun = time.time()
    found = one.certificate(intune)
    assert time.time() - begun < 8

    assert intune.fake.discrepancies("contoso", found) == []
    recorded(intune.system, one.device, "issued")


def test_a_request_without_a_challenge_is_refused_without_asking_intune(intune: Intune) -> None:
    endpoint = intune.endpoint("windows")
    with silent(intune):
        for challenge in ("", "   "):
            device = quick_device()
            reply = ask(endpoint, device.enrollment(endpoint, device.csr(challenge)))
            assert refusal(reply) is FailInfo.BAD_MESSAGE_CHECK


def test_a_password_gets_no_certificate_on_a_profile_of_intune(intune: Intune) -> None:
    """Only Intune can read its challenges, so it is asked; that of another profile is worthless."""
    for password in (intune.system.challenge("demo"), "secret"):
        endpoint, device = intune.endpoint("windows", password), quick_device()
        reply = ask(endpoint, device.enrollment(endpoint))
        assert refusal(reply) is FailInfo.BAD_MESSAGE_CHECK
        assert intune.notifications(device) == []


def test_a_renewal_is_refused_on_a_profile_of_intune(intune: Intune) -> None:
    one = managed(intune)
    holder = holding(one.device, one.certificate(intune))
    again = managed(intune, device=Device(one.device.identity, one.device.transaction))
    endpoint = intune.endpoint("windows")
    key = quick_device().identity.key

    with silent(intune):
        for challenge in ("", again.challenge):
            reply = ask(endpoint, renewal(endpoint, holder, key, challenge=challenge))
            assert refusal(reply) is FailInfo.BAD_REQUEST


def test_a_challenge_that_another_key_replays_is_refused_without_asking_intune(
    intune: Intune,
) -> None:
    one = managed(intune)
    one.certificate(intune)
    endpoint = intune.endpoint("windows", one.challenge)
    thief = Device(Device.new().identity, one.device.transaction)

    with silent(intune):
        assert refusal(ask(endpoint, thief.enrollment(endpoint))) is FailInfo.BAD_MESSAGE_CHECK


def test_the_same_csr_in_another_transaction_gets_the_same_certificate_unasked(
    intune: Intune,
) -> None:
    one = managed(intune)
    first = one.certificate(intune)
    endpoint = intune.endpoint("windows", one.challenge, gateway=1)
    again = Device(one.device.identity)
    csr = one.device.csr(one.challenge)

    with silent(intune):
        reply = ask(endpoint, again.enrollment(endpoint, csr))
        assert certificate(endpoint, again, reply) == first
        repeated = ask(endpoint, one.request(endpoint))
        assert certificate(endpoint, one.device, repeated) == first
    assert [n.kind for n in intune.notifications(one.device)] == ["success"]


@pytest.mark.parametrize("size", SIZES)
def test_long_challenges_are_taken_by_get_and_by_post(intune: Intune, size: int) -> None:
    for by_get in (False, True):
        one = managed(intune, size=size)
        assert len(one.challenge) >= size
        endpoint = intune.endpoint("windows", one.challenge)
        request = one.request(endpoint)
        if by_get:
            response = endpoint.get("PKIOperation", f"&message={request.in_query()}")
        else:
            response = endpoint.post(request.body)
        found = certificate(endpoint, one.device, answer(endpoint, request, response))
        assert intune.fake.discrepancies("contoso", found) == []


def test_without_waiting_a_device_has_its_certificate_though_the_notification_fails(
    intune: Intune,
) -> None:
    one = managed(intune)
    intune.fake.answer(one.device.transaction.decode(), "Success", "Unknown")
    found = one.certificate(intune, "eager")
    (notice,) = wait_until(lambda: intune.notifications(one.device), 10, "a notification")
    assert (notice.kind, int(notice.serial, 16)) == ("success", found.serial_number)

    later = managed(intune)
    served = later.certificate(intune, "eager")
    agrees = lambda: intune.fake.discrepancies("contoso", served) == []  # noqa: E731
    wait_until(agrees, 10, "the notification")


# Tenants


def test_a_challenge_of_one_tenant_is_worth_nothing_at_the_url_of_another(intune: Intune) -> None:
    one = managed(intune, "contoso")
    assert refusal(one.enroll(intune, "fabrikam")) is FailInfo.BAD_MESSAGE_CHECK

    asked = [
        (each.route, each.tenant, each.code)
        for each in intune.fake.journal()
        if each.transaction_id == one.device.transaction.decode()
    ]
    assert asked == [("validate", "fabrikam", "BadTenantIdInChallenge")]


TROUBLES = {
    "throttled": ("validate", "status", {"status": 429, "retry_after": "1.5"}),
    "locked": ("token", "status", {"status": 401}),
    "slow": ("validate", "delay", {"seconds": 4}),
}


@pytest.mark.parametrize("profile", TROUBLES)
def test_a_tenant_in_trouble_does_not_slow_another(intune: Intune, profile: str) -> None:
    route, kind, options = TROUBLES[profile]
    intune.fake.fault(route, kind, -1, tenant="contoso", **options)
    ones = [managed(intune, "contoso", device=quick_device()) for _ in range(8)]
    others = [managed(intune, "fabrikam") for _ in range(3)]
    before = len(faulty(intune, route))

    def outcome(number: int) -> float:
        if number < len(ones):
            assert ones[number].enroll(intune, profile).status is PkiStatus.FAILURE
            return 0.0
        begun = time.monotonic()
        others[number - len(ones)].certificate(intune, "fabrikam")
        return time.monotonic() - begun

    count = len(ones) + len(others)
    assert max(at_once(outcome, range(count), threads=count)) < 2
    assert len(faulty(intune, route)) > before


def faulty(intune: Intune, route: str) -> list[Entry]:
    return [each for each in intune.fake.journal(route, tenant="contoso") if each.fault]
