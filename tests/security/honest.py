"""Honest devices: they enroll at a steady rate all along, and every answer is checked."""

import http.client
import itertools
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import httpx
from cryptography.hazmat.primitives.asymmetric import rsa

from benchmarks.enrollments import key_pool
from shared.log.subjects import transaction_token
from tests.support import messages as m
from tests.support.holders import RENEWAL_REQ, holding, renewal
from tests.support.requests import (
    PKI_MESSAGE,
    Device,
    Endpoint,
    RawResponse,
    Request,
    answer,
    certificate,
    issued,
)
from tests.support.signed_challenges import PrivateKey, mint
from tests.support.system import System
from tests.support.tokens import claims, connector_key

KINDS: Final = ("demo", "legacy", "signed", "one time", "renewal")
RATE: Final = 5.0  # devices a second, all kinds together
BUDGET: Final = 10.0  # the profiles' reply_budget
_KEYS: Final = 24
_CLIENTS: Final = 4
_TIMEOUT: Final = 25.0
_BUSY: Final = 503
_MORE: Final = 40
_PAUSE_SECONDS: Final = 1.0
_ADDRESSES: Final = 200


@dataclass(frozen=True)
class Served:
    """One honest request: when it was sent (monotonic), how long it took, what was wrong."""

    kind: str
    transaction: str
    started: float
    seconds: float
    trouble: str = ""


@dataclass
class Fleet:
    """The devices; `served` grows in the order of the answers."""

    system: System
    challenges: list[str]
    served: list[Served] = field(default_factory=list)
    transactions: set[str] = field(default_factory=set)
    _endpoints: dict[str, list[Endpoint]] = field(default_factory=dict)
    _keys: Sequence[rsa.RSAPrivateKey] = ()
    _connector: PrivateKey | None = None
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        """Read GetCACert while all is well, then enroll until `stop`."""
        gateways = range(len(self.system.run["urls"]))
        self._endpoints = {
            profile: [Endpoint.of(self.system, profile, gateway) for gateway in gateways]
            for profile in ("demo", "legacy", "corp", "anytime")
        }
        self._keys = key_pool(_KEYS)
        self._connector = connector_key(self.system)
        for index in range(_CLIENTS):
            thread = threading.Thread(target=self._run, args=(index,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """No more devices; those under way are finished."""
        self._stop.set()
        for thread in self._threads:
            thread.join(_TIMEOUT * 2)

    def since(self, moment: float) -> list[Served]:
        """Who was answered after this moment."""
        with self._lock:
            return [each for each in self.served if each.started + each.seconds >= moment]

    def begun_since(self, moment: float) -> Counter[str]:
        """How many of each kind asked after this moment and were served well."""
        return Counter(e.kind for e in self.since(moment) if e.started >= moment and not e.trouble)

    def _run(self, index: int) -> None:
        due = time.monotonic() + index / RATE
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            number = next(self._numbers)
            self._one(KINDS[number % len(KINDS)], number)
            # Who had to wait for long does not catch up: that would be a burst.
            due = max(due + _CLIENTS / RATE, time.monotonic())

    def _one(self, kind: str, number: int) -> None:
        enroll: dict[str, Callable[[int], None]] = {
            "demo": self._static,
            "legacy": self._legacy,
            "signed": self._signed,
            "one time": self._one_time,
            "renewal": self._renewal,
        }
        try:
            enroll[kind](number)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no success
            now = time.monotonic()
            with self._lock:
                self.served.append(Served(kind, "", now, 0.0, f"{type(error).__name__}: {error}"))

    def _device(self, number: int) -> Device:
        key = self._keys[number % len(self._keys)]
        return Device(m.identity("device", secrets.randbits(64) | 1, key))

    def _endpoint(self, profile: str, number: int) -> Endpoint:
        choices = self._endpoints[profile]
        return choices[number // len(KINDS) % len(choices)]

    def _static(self, number: int) -> None:
        endpoint, device = self._endpoint("demo", number), self._device(number)
        self._send("demo", endpoint, device, device.enrollment(endpoint), number)

    def _legacy(self, number: int) -> None:
        endpoint, device = self._endpoint("legacy", number), self._device(number)
        request = device.enrollment(endpoint, cipher="des3", digest="sha1")
        self._send("legacy", endpoint, device, request, number)

    def _signed(self, number: int) -> None:
        endpoint, device = self._endpoint("corp", number), self._device(number)
        assert self._connector is not None
        csr = device.csr(mint(claims(device), self._connector))
        self._send("signed", endpoint, device, device.enrollment(endpoint, csr), number)

    def _one_time(self, number: int) -> None:
        endpoint, device = self._endpoint("corp", number), self._device(number)
        with self._lock:
            if not self.challenges:
                self.challenges += make_challenges(self.system, _MORE)
            challenge = self.challenges.pop()
        csr = device.csr(challenge)
        self._send("one time", endpoint, device, device.enrollment(endpoint, csr), number)

    def _renewal(self, number: int) -> None:
        endpoint, device = self._endpoint("anytime", number), self._device(number)
        first = device.enrollment(endpoint)
        found = self._send("renewal", endpoint, device, first, number)
        if found is None:
            return
        holder = holding(device, found)
        key = self._keys[(number + 1) % len(self._keys)]
        again = renewal(endpoint, holder, key, RENEWAL_REQ)
        self._send("renewal", endpoint, holder, again, number, key)

    def _send(
        self,
        kind: str,
        endpoint: Endpoint,
        device: Device,
        request: Request,
        number: int,
        key: rsa.RSAPrivateKey | None = None,
    ) -> "m.x509.Certificate | None":
        profile = endpoint.path.rpartition("/")[2]
        spki = m.spki(device.identity.key.public_key())
        transaction = transaction_token(profile, request.transaction, spki)
        self.transactions.add(transaction)
        started, trouble, found = time.monotonic(), "", None
        try:
            response = patiently(endpoint, request.body, address_of(number))
            seconds = time.monotonic() - started
            reply = answer(endpoint, request, response)
            found = issued(device, reply) if key else certificate(endpoint, device, reply)
            if key is not None:
                assert found.public_key() == key.public_key()
        except (OSError, AssertionError, http.client.HTTPException, ValueError) as error:
            seconds = time.monotonic() - started
            trouble = f"{type(error).__name__}: {error}"[:300]
        if not trouble and seconds > BUDGET:
            trouble = f"answered after {seconds:.1f} s"
        with self._lock:
            self.served.append(Served(kind, transaction, started, seconds, trouble))
        return found


def address_of(number: int) -> str:
    """Devices come from many addresses, none of which an attacker uses."""
    return f"127.7.0.{1 + number % _ADDRESSES}"


def patiently(endpoint: Endpoint, body: bytes, source: str) -> RawResponse:
    """As devices do: whom a gateway is too busy for asks again, but not for ever."""
    deadline = time.monotonic() + BUDGET
    while True:
        response = post(endpoint, body, source)
        if response.status_code != _BUSY or time.monotonic() + _PAUSE_SECONDS > deadline:
            return response
        time.sleep(_PAUSE_SECONDS)


def post(endpoint: Endpoint, body: bytes, source: str) -> RawResponse:
    """One PKIOperation from a source address, on a connection of its own."""
    host, port = endpoint.address
    connection = http.client.HTTPConnection(
        host, port, timeout=_TIMEOUT, source_address=(source, 0)
    )
    try:
        path = f"{endpoint.path}?operation=PKIOperation"
        connection.request("POST", path, body, {"content-type": PKI_MESSAGE})
        got = connection.getresponse()
        headers = {name.lower(): value for name, value in got.getheaders()}
        return RawResponse(got.status, headers, got.read())
    finally:
        connection.close()


def make_challenges(system: System, count: int) -> list[str]:
    """One-time challenges of the profile corp, made by its operator before the attack."""
    headers = {"authorization": f"Bearer {system.run['admin_token']}"}
    url = f"{system.run['admin_url']}/api/v1/challenges"
    with httpx.Client(trust_env=False, timeout=30, headers=headers) as client:
        made = (client.post(url, json={"profile": "corp"}) for _ in range(count))
        return [each.raise_for_status().json()["challenge"] for each in made]
