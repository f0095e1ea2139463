"""One system for the tests of a module: a modern, a legacy and a password profile."""

from collections.abc import AsyncIterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.gateway.ra import RaPair, assemble
from services.gateway.settings import Profile
from services.validator.gates import RenewalPolicy
from shared.scep.algorithms import AES128, DES, MD5, SHA256
from tests.support import pki
from tests.support.accesses import accepting
from tests.support.messages import CHALLENGE, Identity
from tests.support.world import ISSUER, NOW, policy
from tests.unit.whole.system import Whole, running


@pytest.fixture
async def whole(ra: Identity, ec_key: ec.EllipticCurvePrivateKey) -> AsyncIterator[Whole]:
    ca = pki.local_ca(ec_key)
    keys = assemble([RaPair(ra.x509, ra.key, signs=True, decrypts=True)], NOW)
    pins = (ca.pin,)
    rules = RenewalPolicy(window=0, key_reuse=True)
    profiles, policies = [], {}
    for name, legacy in (("modern", False), ("legacy", True)):
        floors = (MD5, DES) if legacy else (SHA256, AES128)
        profiles.append(
            Profile(name, ISSUER, pins, legacy, False, 20.0, keys, *floors, passwords=(CHALLENGE,))
        )
        policies[name] = policy(
            legacy=legacy,
            key_types=frozenset({"rsa:2048", "rsa:3072", "ec:p256", "ec:p384", "ec:p521"}),
            ca_spki_sha256=pins,
            renewal=rules,
        )
    access = dict.fromkeys(policies, accepting(passwords=(CHALLENGE,)))
    async with running(ca, profiles, policies, access) as found:
        yield found
