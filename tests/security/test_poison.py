"""Requests of strangers that are made to stop the system: each is refused, and nobody waits."""

import contextlib
import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.security.edge import sources
from tests.security.honest import post
from tests.security.poison import POISONS, WRONG, Poison, padding, repeated_attributes
from tests.security.siege import Siege
from tests.support.requests import Device, Endpoint

_EACH = {4: 10, 6: 3}  # by how many kinds there are: more than a validator has places, in all
_LARGE = 12
_SLOW_SECONDS = 8.0
_SLOW_RATE = 11.0


def _made(poison: Poison, endpoint: Endpoint, count: int) -> list[bytes]:
    device = Device.new()
    return [poison(endpoint, Device(device.identity)) for _ in range(count)]


def _send(bodies: list[tuple[Endpoint, bytes]], width: int = 24) -> list[int]:
    """All of them at once, from several addresses; their HTTP statuses, 0 where there was none."""

    def one(numbered: tuple[int, tuple[Endpoint, bytes]]) -> int:
        number, (endpoint, body) = numbered
        attackers = sources()
        try:
            return post(endpoint, body, attackers[number % len(attackers)]).status_code
        except OSError:
            return 0

    with ThreadPoolExecutor(width) as pool:
        return list(pool.map(one, enumerate(bodies)))


@pytest.mark.parametrize("poisons", [POISONS[:4], POISONS[4:]], ids=["names", "attributes"])
def test_poisonous_requests_stop_nobody(siege: Siege, poisons: tuple[Poison, ...]) -> None:
    """Of each kind enough, over both gateways, to take a good part of every place there is.

    To a profile with tokens, whose messages may be the largest.
    """
    endpoints = [siege.endpoint("corp", gateway) for gateway in range(2)]
    bodies = [
        (endpoint, body)
        for poison in poisons
        for endpoint in endpoints
        for body in _made(poison, endpoint, _EACH[len(poisons)])
    ]
    with siege.attacked():
        statuses = _send(bodies)
    assert set(statuses) <= {200, 400, 413, 429, 503}


def test_large_messages_of_strangers_slow_down_nobody(siege: Siege) -> None:
    endpoint = siege.endpoint("corp")
    bodies = _made(repeated_attributes, endpoint, _LARGE) + _made(padding, endpoint, _LARGE)
    random.Random(1).shuffle(bodies)
    with siege.attacked():
        _send([(endpoint, body) for body in bodies], width=8)


def test_a_slow_webhook_holds_up_its_own_profile_alone(siege: Siege) -> None:
    """Junk for it comes faster than it can be judged; devices of other profiles are served."""
    endpoint = siege.endpoint("slow")
    count = int(_SLOW_SECONDS * _SLOW_RATE)
    device = Device.new()
    made = [Device(device.identity) for _ in range(count)]
    bodies = [each.enrollment(endpoint, each.csr(WRONG)).body for each in made]
    with siege.attacked(), ThreadPoolExecutor(count) as pool:
        for number, body in enumerate(bodies):
            pool.submit(_quietly, endpoint, body, sources()[number % 8])
            time.sleep(1 / _SLOW_RATE)


def _quietly(endpoint: Endpoint, body: bytes, source: str) -> None:
    """Whatever becomes of it."""
    with contextlib.suppress(OSError):
        post(endpoint, body, source)
