"""Who may enroll, from the configuration's files to the answer: one verifier judges, and safely."""

import asyncio
import tomllib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from services.validator import settings as validator
from services.validator.access import Access, verifiers
from services.validator.challenges.kind import VerifierContext
from services.validator.challenges.records import Records
from services.validator.challenges.verifier import ChallengeResult
from shared.config.load import SettingsError, load
from shared.log.events.commands import ChallengeCreated
from shared.log.one_time import ONE_TIME, one_time_digest, write_one_time
from shared.log.reasons import Reason
from shared.log.subjects import one_time_created
from tests.support.accesses import accepting
from tests.support.enrollers import (
    ask,
    asked,
    by_token,
    holder,
    judgement,
    token,
    verdict,
)
from tests.support.messages import Identity
from tests.support.validators import World, validating
from tests.support.world import (
    NOW,
    OPERATOR,
    PROFILE,
    TRUSTED_ISSUERS,
    TRUSTED_OPERATORS,
    TRUSTED_VALIDATORS,
    VALIDATOR,
    append_signed,
    memory_bus,
)
from tests.unit.services.validator.http_services import Papers, Service, serving
from tests.unit.shared import configurations

CONFIGURED = "corp-2"
CHALLENGE = "the-ch4llenge-of-a-device"
BEARER = "b3arer-of-the-hook"
SECRET = "hmac-s3cret-of-the-hook"
Configured = Callable[..., Access]


@pytest.fixture
def configured(
    tmp_path: Path, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey
) -> Configured:
    """What a profile accepts whose table has these keys; None takes one away."""
    path = configurations.write_all(tmp_path, rsa_key, ec_key)
    tables = tomllib.loads(path.read_text())

    def made(**keys: Any) -> Access:
        profile = tables["profiles"][CONFIGURED] | {"challenge_password": None} | keys
        found = {key: value for key, value in profile.items() if value is not None}
        path.write_text(tomli_w.dumps(tables | {"profiles": {CONFIGURED: found}}))
        return validator.read_settings(load(path, {}), NOW).access[CONFIGURED]

    return made


@pytest.fixture
def papers(tmp_path: Path, ec_key: ec.EllipticCurvePrivateKey) -> Papers:
    return Papers(tmp_path, ec_key)


async def hooked(access: Access) -> ChallengeResult:
    """What comes of asking the profile's webhook."""
    records = Records(memory_bus(), VALIDATOR, TRUSTED_VALIDATORS, TRUSTED_ISSUERS)
    verifier = verifiers(access, VerifierContext(PROFILE, records, TRUSTED_OPERATORS))["webhook"]
    async with asyncio.timeout(15):
        return await verifier.verify(asked(holder(), CHALLENGE))


# To whom challenges go


async def test_a_service_of_the_configured_ca_is_asked_with_the_configured_certificate(
    configured: Configured, papers: Papers
) -> None:
    certificate, key = papers.pair("hook-client")
    async with serving(Service(), papers.server(clients=True)) as service:
        access = configured(
            webhook_url=service.url,
            webhook_ca_path=str(papers.ca),
            webhook_client_cert_path=str(certificate),
            webhook_client_key_path=str(key),
            webhook_bearer_token=BEARER,
            webhook_secret=SECRET,
        )
        found = await hooked(access)

    assert found.refusal is None
    (posted,) = service.posted
    assert posted.client == "hook-client"
    assert posted.headers["authorization"] == f"Bearer {BEARER}"
    assert posted.headers["scepstream-signature"].startswith("sha256=")


@pytest.mark.parametrize("scheme", ["https", "HTTPS", "Https", "hTtPs"])
async def test_a_service_that_nobody_vouches_for_gets_no_challenge_however_its_url_is_written(
    configured: Configured, papers: Papers, scheme: str
) -> None:
    """The scheme of a URL has no case (RFC 3986 s3.1), so the check of certificates has none."""
    async with serving(Service(), papers.server()) as service:
        url = service.url.replace("https", scheme)
        found = await hooked(configured(webhook_url=url))

    assert service.posted == []
    assert found.refusal is not None
    assert found.refusal.reason is Reason.WEBHOOK_DENIED


async def test_with_a_ca_of_its_own_a_profile_trusts_no_other(
    configured: Configured, papers: Papers, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    stranger = Papers(other, ec.generate_private_key(ec.SECP256R1()))
    async with serving(Service(), stranger.server()) as service:
        await hooked(configured(webhook_url=service.url, webhook_ca_path=str(papers.ca)))

    assert service.posted == []


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"garbage", b"\xff", b"-----BEGIN CERTIFICATE-----\n"]
)
def test_a_file_of_cas_without_one_is_no_leave_to_trust_those_of_the_system(
    configured: Configured, tmp_path: Path, data: bytes
) -> None:
    (tmp_path / "hook-ca.pem").write_bytes(data)
    with pytest.raises(SettingsError) as error:
        configured(webhook_url="https://hook.example/", webhook_ca_path="hook-ca.pem")

    assert "hook-ca.pem" in str(error.value)
    assert CONFIGURED in str(error.value)


def test_a_clients_key_under_a_password_is_refused_and_nobody_is_asked_for_it(
    configured: Configured, papers: Papers
) -> None:
    """OpenSSL would ask on the terminal, and wait."""
    certificate, key = papers.pair("hook-client")
    private = load_pem_private_key(key.read_bytes(), None)
    protected = private.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")
    )
    key.write_bytes(protected)
    with pytest.raises(SettingsError) as error:
        configured(
            webhook_url="https://hook.example/",
            webhook_client_cert_path=str(certificate),
            webhook_client_key_path=str(key),
        )

    assert "hook-client" in str(error.value)


# What is printed


def test_no_secret_stands_in_what_is_printed_of_verifiers(configured: Configured) -> None:
    access = configured(
        challenge_password=[CHALLENGE, "another-0ne"],
        notify_webhook_url="http://127.0.0.1:9/",
        webhook_bearer_token=BEARER,
        webhook_secret=SECRET,
    )
    records = Records(memory_bus(), VALIDATOR, TRUSTED_VALIDATORS, TRUSTED_ISSUERS)
    printed = repr(access) + repr(
        verifiers(access, VerifierContext(PROFILE, records, TRUSTED_OPERATORS))
    )

    for secret in (CHALLENGE, "another-0ne", BEARER, SECRET):
        assert secret not in printed


# Exactly one judges


@pytest.fixture
async def world(
    device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey
) -> AsyncIterator[World]:
    async with validating(device, ra, ec_key) as found:
        yield found


MIXED = accepting(passwords=(CHALLENGE,), by_token=by_token().signed, by_one_time=True)


async def test_each_kind_of_challenge_goes_to_its_verifier(world: World) -> None:
    world.accept(MIXED)
    once = write_one_time("0" * 25)
    event = ChallengeCreated(profile=PROFILE, expires_at=NOW + 60, operator="op")
    place = one_time_created(PROFILE, one_time_digest(PROFILE, once))
    await append_signed(world.bus, place, event, OPERATOR)
    kinds = []
    for number, given in enumerate((CHALLENGE, token(), once)):
        request = await ask(world, holder(number), given)
        assert await judgement(world, request) == "approved"
        facts = verdict(world, request).facts
        kinds.append(facts and facts.challenge)

    assert kinds == ["static", "signed", ONE_TIME]


async def test_what_its_own_verifier_refuses_no_other_is_asked_about(world: World) -> None:
    """A password of a token's shape, or of a one-time challenge's, is none."""
    shaped = f"{'x' * 100}.{'y' * 100}.z"
    once = write_one_time("1" * 25)
    world.accept(accepting(passwords=(shaped, once), by_token=MIXED.signed, by_one_time=True))
    results = [
        await judgement(world, await ask(world, holder(number), given))
        for number, given in enumerate((shaped, once))
    ]

    assert results == [Reason.MALFORMED, Reason.CHALLENGE_WRONG]


async def test_a_profile_of_tokens_has_no_password_that_works(world: World) -> None:
    world.accept(by_token())
    for number, given in enumerate(("", "password", CHALLENGE)):
        request = await ask(world, holder(number), given)
        assert await judgement(world, request) in (Reason.MALFORMED, Reason.CHALLENGE_MISSING)


async def test_a_profile_that_accepts_nothing_refuses_everything(world: World) -> None:
    world.accept(Access())
    for number, given in enumerate(("", "x", token())):
        request = await ask(world, holder(number), given)
        assert await judgement(world, request) in (
            Reason.CHALLENGE_WRONG,
            Reason.CHALLENGE_MISSING,
        )


# Anew


async def test_a_password_that_was_taken_away_is_good_no_more(world: World) -> None:
    world.accept(accepting(passwords=("old", "new")))
    assert await judgement(world, await ask(world, holder(), "old")) == "approved"
    world.accept(accepting(passwords=("new",)))

    assert await judgement(world, await ask(world, holder(1), "old")) == Reason.CHALLENGE_WRONG
    assert await judgement(world, await ask(world, holder(2), "new")) == "approved"


async def test_a_verifier_that_was_taken_away_judges_no_more(world: World) -> None:
    world.accept(MIXED)
    assert await judgement(world, await ask(world, holder(), token())) == "approved"
    world.accept(accepting(passwords=(CHALLENGE,)))
    request = await ask(world, holder(1), token("n-2"))

    assert await judgement(world, request) == Reason.CHALLENGE_WRONG


async def test_whom_to_believe_is_read_anew_with_everything_else(world: World) -> None:
    """A key of an operator or a validator that was taken away opens nothing from then on."""
    world.accept(accepting(by_one_time=True))
    for number in range(2):
        once = write_one_time(f"{number:025d}")
        event = ChallengeCreated(profile=PROFILE, expires_at=NOW + 60, operator="op")
        place = one_time_created(PROFILE, one_time_digest(PROFILE, once))
        await append_signed(world.bus, place, event, OPERATOR)
    first = await ask(world, holder(), write_one_time(f"{0:025d}"))
    assert await judgement(world, first) == "approved"
    anew = {PROFILE: accepting(by_one_time=True)}
    world.evaluator.live.current = replace(world.evaluator.live.current, operators={}, access=anew)
    second = await ask(world, holder(1), write_one_time(f"{1:025d}"))

    assert await judgement(world, second) == Reason.CHALLENGE_WRONG
