"""Devices that enroll all the time: each sends the same bytes until they get an answer."""

import asyncio
import gc
import itertools
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from benchmarks.check import certificates, check
from benchmarks.discover import recipient
from benchmarks.enrollments import Enrollment, Recipe, enrollment
from benchmarks.evaluate import evaluate
from benchmarks.figures import Answer, Retries
from benchmarks.fire import Gun, Shot, fire
from benchmarks.http1 import Endpoint
from tests.support.system import System

REFUSED = "pkiStatus FAILURE, failInfo 1"  # badMessageCheck: what a wrong challenge gets
ATTEMPT_SECONDS = 20.0
PATIENCE = Retries(attempts=1000, seconds=90.0, pause=0.05, longest_pause=1.0)
_BATCH = 20
_PAUSE_SECONDS = 1.2
_WRONG_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, whether its challenge is right, and what became of it."""

    request: Enrollment
    right: bool
    shot: Shot


@dataclass
class Load:
    """Clients at work, spread over all gateways; `asked` grows in the order of the answers."""

    endpoints: Sequence[Endpoint]
    recipes: dict[bool, Recipe]
    keys: Sequence[rsa.RSAPrivateKey]
    asked: list[Asked] = field(default_factory=list)
    retries: Counter[str] = field(default_factory=Counter)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def run(self, clients: int, seed: int, until: float, least: int = 0) -> None:
        """A batch each, more until `until` (monotonic time) and until `least` are answered.

        What was begun is finished.
        """
        gc.freeze()  # `fire` collects at every batch
        try:
            async with asyncio.TaskGroup() as group:
                for index in range(clients):
                    endpoint = self.endpoints[index % len(self.endpoints)]
                    rng = random.Random(f"{seed} client {index}")
                    group.create_task(self._client(endpoint, rng, until, least))
        finally:
            gc.unfreeze()

    async def _client(
        self, endpoint: Endpoint, rng: random.Random, until: float, least: int
    ) -> None:
        gun = Gun(endpoint, 1, ATTEMPT_SECONDS, PATIENCE)
        while True:
            plan = [rng.random() >= _WRONG_SHARE for _ in range(_BATCH)]
            requests = await asyncio.to_thread(self._build, plan)
            volley = await fire(gun, [request.message for request in requests])
            assert None not in volley.shots
            shots = [shot for shot in volley.shots if shot is not None]
            self.asked += map(Asked, requests, plan, shots)
            self.retries += volley.retries
            if time.monotonic() >= until and len(self.asked) >= least:
                return
            await asyncio.sleep(rng.uniform(0, 2 * _PAUSE_SECONDS))

    def _build(self, plan: Sequence[bool]) -> list[Enrollment]:
        numbers = [next(self._numbers) for _ in plan]
        return [
            enrollment(self.recipes[right], number, self.keys[number % len(self.keys)])
            for right, number in zip(plan, numbers, strict=True)
        ]

    def answers(self, trusted: list[x509.Certificate], *, right: bool) -> tuple[Answer, ...]:
        """Every answer to requests with the right challenge, or the wrong one, judged."""
        chosen = [each for each in self.asked if each.right is right]
        return evaluate([each.request for each in chosen], [each.shot for each in chosen], trusted)


def new_load(system: System, wrong: str, keys: Sequence[rsa.RSAPrivateKey]) -> Load:
    """A load on every gateway of a system, and `wrong` as the challenge that is not right."""
    encryption = recipient(authorities(system.url()))
    recipes = {True: Recipe(encryption, system.challenge()), False: Recipe(encryption, wrong)}
    endpoints = [Endpoint.of(f"{url}/demo") for url in system.run["urls"]]
    return Load(endpoints, recipes, keys)


def authorities(url: str) -> list[x509.Certificate]:
    """What GetCACert shows."""
    with httpx.Client(trust_env=False, timeout=30) as client:
        response = client.get(url, params={"operation": "GetCACert"})
    return certificates(response.raise_for_status().content)


def ask(url: str, request: Enrollment) -> x509.Certificate:
    """One request once; the certificate of its verified answer."""
    with httpx.Client(trust_env=False, timeout=30) as client:
        post = partial(client.post, url, params={"operation": "PKIOperation"})
        response = post(content=request.message).raise_for_status()
    return check(request, response.content, authorities(url))
