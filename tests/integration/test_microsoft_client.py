"""The client of Microsoft's APIs against the fake of Microsoft's side, over real HTTPS."""

import asyncio
import hashlib
import ssl
import time
import traceback
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AttributeOID

from cli.fake_microsoft.fake import FakeMicrosoft
from cli.fake_microsoft.model import ALL_ROLES
from services.validator.microsoft.channel import Surroundings
from services.validator.microsoft.client import Intune
from services.validator.microsoft.connection import TenantConnection, read_connection
from services.validator.microsoft.examine import examine
from services.validator.microsoft.model import (
    FailureNotice,
    MicrosoftUnavailableError,
    Problem,
    RevocationError,
    RevocationResult,
    SuccessNotice,
)
from shared.config.load import load
from tests.unit.cli.commands import command, sentence
from tests.unit.shared.configurations import text

KEY = rsa.generate_private_key(65537, 2048)
VALIDATE, TOKEN, ENDPOINTS = "validate", "token", "endpoints"
SID = "S-1-5-21-1004336348-1177238915-682003330-1104"


@dataclass
class Clock:
    """A clock that only sleeping and the test move on."""

    time: float = field(default_factory=time.time)
    slept: list[float] = field(default_factory=list)

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeMicrosoft]:
    with FakeMicrosoft(tmp_path_factory.mktemp("microsoft")) as fake:
        yield fake


@pytest.fixture
def fake(server: FakeMicrosoft) -> Iterator[FakeMicrosoft]:
    yield server
    server.clear_faults()
    server.answer(VALIDATE)
    for tenant in server.tenants:
        server.consent(tenant, ALL_ROLES)
        server.set_services(tenant, uris={}, paged=False, next_link=None)
        server.set_token_lifetime(tenant, 3599)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def connection_of(fake: FakeMicrosoft, tenant: str, **changes: Any) -> TenantConnection:
    path = fake.directory / "scepstream.toml"
    path.write_text(f"{text()}\n{fake.configuration()}")
    path.chmod(0o600)
    return replace(read_connection(load(path, {}), tenant), **changes)


def client_of(fake: FakeMicrosoft, clock: Clock, tenant: str = "contoso", **changes: Any) -> Intune:
    around = Surroundings(clock.now, clock.sleep, lambda: 0.5)
    return Intune(connection_of(fake, tenant, **changes), around)


@pytest.fixture
async def intune(fake: FakeMicrosoft, clock: Clock) -> AsyncIterator[Intune]:
    client = client_of(fake, clock)
    yield client
    await client.close()


@pytest.fixture
async def other(fake: FakeMicrosoft, clock: Clock) -> AsyncIterator[Intune]:
    client = client_of(fake, clock, "fabrikam")
    yield client
    await client.close()


def csr(fake: FakeMicrosoft, tenant: str = "contoso") -> bytes:
    challenge = fake.mint(tenant, subject="CN=device-1")
    return (
        x509.CertificateSigningRequestBuilder(x509.Name.from_rfc4514_string("CN=device-1"))
        .add_attribute(AttributeOID.CHALLENGE_PASSWORD, challenge.encode())
        .sign(KEY, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )


def counted(fake: FakeMicrosoft, before: dict[str, int], key: str) -> int:
    return fake.counts.get(key, 0) - before.get(key, 0)


async def problem(intune: Intune, request: bytes = b"csr") -> MicrosoftUnavailableError:
    with pytest.raises(MicrosoftUnavailableError) as caught:
        await intune.validate("T1", request)
    return caught.value


# What it is for.


@pytest.mark.parametrize("tenant", ["contoso", "fabrikam"])
async def test_a_challenge_is_validated_and_the_certificate_notified(
    fake: FakeMicrosoft, clock: Clock, tenant: str
) -> None:
    """One tenant's app has a secret, the other's a certificate."""
    client, request = client_of(fake, clock, tenant), csr(fake, tenant)
    notice = SuccessNotice("T1", request, "ab" * 20, "0a1b", clock.time + 86400, "CN=CA")
    try:
        answers = [await client.validate("T1", request), await client.tell_success(notice)]
    finally:
        await client.close()

    assert [answer.code for answer in answers] == ["Success", "Success"]
    assert answers[0].accepted
    told = fake.notifications[-1]
    assert (told.thumbprint, told.serial, told.ca_configuration) == ("AB" * 20, "0A1B", tenant)
    assert answers[1].activity_id == fake.journal(tenant=tenant)[-1].correlation_id


async def test_a_certificate_may_be_named_by_sha1_for_compatibility(
    fake: FakeMicrosoft, clock: Clock
) -> None:
    connection = connection_of(fake, "fabrikam")
    [credential] = connection.credentials
    client = client_of(fake, clock, "fabrikam", credentials=(replace(credential, sha1=True),))  # type: ignore[type-var]
    try:
        assert await client.tokens.token(connection.intune_scope)
    finally:
        await client.close()


async def test_a_refusal_keeps_intunes_code(fake: FakeMicrosoft, intune: Intune) -> None:
    fake.answer(VALIDATE, "NeverHeardOf")
    answer = await intune.validate("T1", csr(fake))

    assert (answer.code, answer.accepted) == ("NeverHeardOf", False)
    assert intune.health().calls["refused"] == 1


async def test_a_failure_is_notified(fake: FakeMicrosoft, intune: Intune) -> None:
    request = csr(fake)
    await intune.validate("T2", request)
    answer = await intune.tell_failure(FailureNotice("T2", request, 0x8000FFFF, "x" * 400))

    assert answer.accepted
    assert (fake.notifications[-1].kind, fake.notifications[-1].hresult) == ("failure", -2147418113)


async def test_revocations_come_again_until_their_results_are_uploaded(
    fake: FakeMicrosoft, intune: Intune
) -> None:
    fake.queue_revocation("contoso", "0A1B")
    first, again = [await intune.download_revocations() for _ in range(2)]
    await intune.upload_results(
        [RevocationResult(first[0].context, False, RevocationError.NOT_FOUND, "no such serial")]
    )

    assert first == again
    assert [asked.serial for asked in first] == ["0A1B"]
    assert await intune.download_revocations() == ()
    assert fake.uploaded("contoso")[-1].error_code == "CertificateNotFoundError"


async def test_an_upload_that_intune_does_not_confirm_is_an_error(
    fake: FakeMicrosoft, intune: Intune
) -> None:
    asked = fake.queue_revocation("contoso", "0A1C")
    fake.switch(upload_answer=False)
    try:
        with pytest.raises(MicrosoftUnavailableError, match="did not confirm"):
            await intune.upload_results([RevocationResult(asked.context, True)])
    finally:
        fake.switch(upload_answer=True)
    await intune.upload_results([RevocationResult(asked.context, True)])


async def test_devices_and_accounts_are_read(fake: FakeMicrosoft, intune: Intune) -> None:
    device = fake.set_device("contoso", compliance_state="brandNew", sid=SID)
    user = fake.set_user("contoso", "ann@contoso.example", sid=SID)
    found = await intune.managed_device(device.id)
    entra = await intune.entra_device(device.entra_id)

    assert found is not None
    assert entra is not None
    assert (found.compliance, found.entra_id) == ("unknown", device.entra_id)
    assert found.enrolled_at == datetime(2024, 1, 1, tzinfo=UTC).timestamp()
    assert found == await intune.managed_device_of(device.entra_id)
    assert (entra.enabled, entra.compliant) == (True, True)
    assert await intune.user_sid("ann@contoso.example") == SID
    assert await intune.user_sid(user.id) == SID
    assert await intune.device_sid(device.entra_id) == SID


async def test_what_does_not_exist_is_unknown_and_no_guid_is_not_asked_for(
    fake: FakeMicrosoft, intune: Intune
) -> None:
    unknown = "11111111-2222-3333-4444-555555555555"
    found = [
        await intune.managed_device(unknown),
        await intune.managed_device_of(unknown),
        await intune.entra_device(unknown),
        await intune.user_sid("nobody@contoso.example"),
        await intune.device_sid(unknown),
    ]
    before = len(fake.journal())
    found += [
        await intune.managed_device("x' or true"),
        await intune.managed_device_of("../users"),
        await intune.entra_device(""),
        await intune.user_sid(".."),
        await intune.user_sid("a" * 300),
    ]

    assert found == [None] * 10
    assert len(fake.journal()) == before


# Tokens.


async def test_two_hundred_callers_request_one_token_and_one_list_of_services(
    fake: FakeMicrosoft, intune: Intune
) -> None:
    before, service = fake.counts, "ScepRequestValidationFEService"

    async def prepare() -> tuple[str, str]:
        token = await intune.tokens.token(intune.connection.intune_scope)
        return token, await intune.directory.find(service)

    assert len(set(await asyncio.gather(*(prepare() for _ in range(200))))) == 1
    assert counted(fake, before, "token:contoso:intune") == 1
    assert counted(fake, before, "token:contoso:graph") == 1
    assert counted(fake, before, ENDPOINTS) == 1


async def test_a_caller_who_gives_up_does_not_take_the_token_from_others(
    fake: FakeMicrosoft, intune: Intune
) -> None:
    before, scope = fake.counts, intune.connection.graph_scope
    first, second = (asyncio.create_task(intune.tokens.token(scope)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()

    assert await second
    assert counted(fake, before, TOKEN) == 1


async def test_a_token_that_is_not_accepted_is_replaced_once(
    fake: FakeMicrosoft, intune: Intune
) -> None:
    request = csr(fake)
    await intune.validate("T1", request)
    fake.revoke_tokens("contoso")
    before = fake.counts

    assert (await intune.validate("T1", request)).accepted
    assert counted(fake, before, "token:contoso:intune") == 1
    fake.fault(VALIDATE, "status", times=-1, status=401)
    error = await problem(intune, request)
    assert (error.kind, error.sent) == (Problem.CREDENTIALS, False)
    assert counted(fake, before, "token:contoso:intune") == 2


@pytest.mark.parametrize(("lifetime", "refreshed"), [(3599, 3299), (60, 30)])
async def test_a_token_is_refreshed_before_it_ends(
    fake: FakeMicrosoft, intune: Intune, clock: Clock, lifetime: int, refreshed: int
) -> None:
    fake.set_token_lifetime("contoso", lifetime)
    scope, before = intune.connection.graph_scope, fake.counts
    for seconds in (0.0, refreshed - 1.0, 2.0):
        clock.time += seconds
        await intune.tokens.token(scope)

    assert counted(fake, before, TOKEN) == 2


async def test_a_token_is_used_to_its_end_while_entra_id_is_down(
    fake: FakeMicrosoft, intune: Intune, clock: Clock
) -> None:
    scope = intune.connection.graph_scope
    token = await intune.tokens.token(scope)
    fake.fault(TOKEN, "status", times=-1, status=500)
    clock.time += 3400.0

    assert await intune.tokens.token(scope) == token
    clock.time += 300.0
    with pytest.raises(MicrosoftUnavailableError):
        await intune.tokens.token(scope)


async def test_the_next_secret_is_tried_when_the_first_is_refused(
    fake: FakeMicrosoft, clock: Clock
) -> None:
    old = connection_of(fake, "contoso").credentials[0]
    fake.rotate_secret("contoso")
    new = connection_of(fake, "contoso").credentials[0]
    client, before = client_of(fake, clock, credentials=(old, new)), fake.counts
    try:
        assert (await client.validate("T1", csr(fake))).accepted
        assert client.health().credential == 2
    finally:
        await client.close()
    assert counted(fake, before, TOKEN) == 3


async def test_refused_credentials_are_explained_and_not_sent_again_at_once(
    fake: FakeMicrosoft, clock: Clock
) -> None:
    old = connection_of(fake, "contoso").credentials
    fake.rotate_secret("contoso")
    client, before = client_of(fake, clock, credentials=old), fake.counts
    try:
        errors = [await problem(client) for _ in range(3)]
    finally:
        await client.close()

    assert {error.kind for error in errors} == {Problem.CREDENTIALS}
    assert "secret" in errors[0].hint
    assert errors[2].hint == errors[0].hint
    assert counted(fake, before, TOKEN) == 1
    assert "invalid_client" in client.health().token_error


async def test_consent_that_is_given_later_counts_for_the_next_call(
    fake: FakeMicrosoft, intune: Intune
) -> None:
    fake.consent("contoso", [])
    error = await problem(intune)
    assert error.kind is Problem.PERMISSION
    assert "Application.Read.All" in error.hint

    fake.consent("contoso", ["Application.Read.All"])
    refused = await problem(intune)
    assert "scep_challenge_provider" in refused.hint

    fake.consent("contoso", ALL_ROLES)
    assert (await intune.validate("T1", csr(fake))).accepted


# Where services are.


@pytest.mark.parametrize("status", [404, 410, 421, 0])
async def test_a_service_that_moved_is_looked_up_once(
    fake: FakeMicrosoft, intune: Intune, clock: Clock, status: int
) -> None:
    request = csr(fake)
    await intune.validate("T1", request)
    clock.time += 61.0
    before = fake.counts
    if status:
        fake.move_service("contoso", status)
    else:
        service = "scepRequestValidationFEService".lower()
        assert intune.directory._services is not None
        intune.directory._services[service] = "https://127.0.0.1:1/closed"

    assert (await intune.validate("T1", request)).accepted
    assert counted(fake, before, ENDPOINTS) == 1


async def test_a_service_is_looked_up_at_most_once_a_minute(
    fake: FakeMicrosoft, intune: Intune
) -> None:
    await intune.validate("T1", csr(fake))
    fake.fault(VALIDATE, "status", times=-1, status=404)
    before = fake.counts
    for _ in range(3):
        assert (await problem(intune)).kind is Problem.PROTOCOL

    assert counted(fake, before, ENDPOINTS) == 0


async def test_the_last_list_is_used_while_graph_is_down(
    fake: FakeMicrosoft, intune: Intune, clock: Clock
) -> None:
    request = csr(fake)
    await intune.validate("T1", request)
    clock.time += 25 * 3600.0
    fake.fault(ENDPOINTS, "status", times=-1, status=503)

    assert (await intune.validate("T1", request)).accepted


async def test_a_tenant_without_the_service_is_asked_once_a_minute(
    fake: FakeMicrosoft, intune: Intune, clock: Clock
) -> None:
    fake.set_services("contoso", uris={"ScepRequestValidationFEService": None})
    before = fake.counts
    errors = [await problem(intune) for _ in range(3)]
    fake.set_services("contoso", uris={})
    clock.time += 61.0

    assert {error.kind for error in errors} == {Problem.NOT_LICENSED}
    assert counted(fake, before, ENDPOINTS) == 1
    assert (await intune.validate("T1", csr(fake))).accepted


async def test_pages_are_followed_at_the_same_host_only(
    fake: FakeMicrosoft, intune: Intune, clock: Clock
) -> None:
    fake.set_services("contoso", paged=True)
    assert (await intune.validate("T1", csr(fake))).accepted

    fake.set_services("contoso", next_link="https://localhost:1/more")
    fresh = client_of(fake, clock)
    error = await problem(fresh)
    await fresh.close()
    assert "another host" in error.detail


@pytest.mark.parametrize("host", ["https://localhost:{}/x", "http://127.0.0.1:{}/x"])
async def test_no_token_goes_to_a_host_that_is_not_listed(
    fake: FakeMicrosoft, intune: Intune, host: str
) -> None:
    uri = host.format(fake.port)
    fake.set_services("contoso", uris={"ScepRequestValidationFEService": uri})
    before = len(fake.journal())
    error = await problem(intune)

    assert error.kind is Problem.PROTOCOL
    assert "service_hosts" in error.hint
    assert {entry.route for entry in fake.journal()[before:]} == {TOKEN, ENDPOINTS}


# Bad answers and outages.


@pytest.mark.parametrize("kind", ["html", "truncated", "wrong-type", "redirect", "huge"])
async def test_an_answer_that_is_not_one_is_an_error_and_not_asked_for_again(
    fake: FakeMicrosoft, intune: Intune, kind: str
) -> None:
    request = csr(fake)
    fake.fault(VALIDATE, kind, times=1)
    before = fake.counts
    error = await problem(intune, request)

    assert error.kind is Problem.PROTOCOL
    assert error.sent == (kind != "redirect")
    assert counted(fake, before, VALIDATE) == 1


async def test_compressed_answers_are_read_and_bombs_are_not(
    fake: FakeMicrosoft, intune: Intune
) -> None:
    request = csr(fake)
    fake.fault(VALIDATE, "gzip")
    assert (await intune.validate("T1", request)).accepted

    fake.fault(VALIDATE, "gzip", size=64 * 1024 * 1024)
    error = await problem(intune, request)
    assert "longer than" in error.detail


async def test_an_answer_that_drips_ends_with_the_budget(fake: FakeMicrosoft, clock: Clock) -> None:
    client, request = client_of(fake, clock), csr(fake)
    await client.validate("T1", request)
    fake.fault(VALIDATE, "drip", seconds=0.2)
    started = time.monotonic()
    with pytest.raises(MicrosoftUnavailableError, match="budget") as caught:
        await client.validate("T1", request, clock.time + 0.4)
    await client.close()

    assert time.monotonic() - started < 2.0
    assert (caught.value.kind, caught.value.sent) == (Problem.OUTAGE, True)


@pytest.mark.parametrize("status", [500, 502, 504, 503, 429])
async def test_a_server_error_is_tried_twice_more_with_pauses(
    fake: FakeMicrosoft, intune: Intune, clock: Clock, status: int
) -> None:
    request = csr(fake)
    fake.fault(VALIDATE, "status", times=2, status=status)
    assert (await intune.validate("T1", request)).accepted
    assert clock.slept == [1.1, 1.1]

    before = fake.counts
    fake.fault(VALIDATE, "status", times=-1, status=status)
    error = await problem(intune, request)
    assert (error.kind, counted(fake, before, VALIDATE)) == (Problem.OUTAGE, 3)


async def test_every_attempt_has_an_id_of_its_own_and_one_body(
    fake: FakeMicrosoft, intune: Intune
) -> None:
    fake.fault(VALIDATE, "reset", times=2)
    before = len(fake.journal())
    answer = await intune.validate("T1", csr(fake))
    asked = [e for e in fake.journal()[before:] if e.route == VALIDATE]

    assert len({entry.correlation_id for entry in asked}) == len(asked) == 3
    assert answer.activity_id == asked[-1].correlation_id


@pytest.mark.parametrize("wish", ["2.128", "7", "date"])
async def test_a_wish_is_granted_if_the_budget_allows(
    fake: FakeMicrosoft, intune: Intune, clock: Clock, wish: str
) -> None:
    clock.time = float(int(clock.time))
    value = format_datetime(datetime.fromtimestamp(clock.time + 3, UTC), usegmt=True)
    fake.fault(VALIDATE, "status", status=429, retry_after=value if wish == "date" else wish)

    assert (await intune.validate("T1", csr(fake))).accepted
    assert clock.slept == [3.0 if wish == "date" else float(wish)]


async def test_a_wish_beyond_the_budget_fails_now_and_spares_the_service(
    fake: FakeMicrosoft, intune: Intune, clock: Clock
) -> None:
    fake.fault(VALIDATE, "status", status=429, retry_after="120")
    before, request = fake.counts, csr(fake)
    errors = [await problem(intune, request) for _ in range(2)]

    assert {(error.kind, error.sent) for error in errors} == {(Problem.OUTAGE, False)}
    assert clock.slept == []
    assert counted(fake, before, VALIDATE) == 1
    assert intune.health().throttled_until == pytest.approx(clock.time + 120)
    clock.time += 121
    assert (await intune.validate("T1", request)).accepted


async def test_a_lost_answer_says_that_the_call_may_have_been_carried_out(
    fake: FakeMicrosoft, intune: Intune
) -> None:
    request = csr(fake)
    await intune.validate("T1", request)
    notice = SuccessNotice("T1", request, "ab" * 20, "0a1b", time.time() + 86400, "CN=CA")
    fake.fault("success", "lost", times=-1)
    with pytest.raises(MicrosoftUnavailableError) as caught:
        await intune.tell_success(notice)

    assert caught.value.sent


async def test_a_token_that_was_lost_is_no_request_that_was_sent(
    fake: FakeMicrosoft, intune: Intune
) -> None:
    fake.fault(TOKEN, "lost", times=3)
    error = await problem(intune)
    assert (error.kind, error.sent) == (Problem.OUTAGE, False)

    fake.clear_faults()
    request = csr(fake)
    await intune.validate("T1", request)
    fake.fault(VALIDATE, "lost")
    fake.fault(VALIDATE, "status", status=401)
    fake.fault(TOKEN, "status", times=-1, status=400)
    error = await problem(intune, request)
    assert error.sent


async def test_the_breaker_opens_closes_and_lets_one_call_try(
    fake: FakeMicrosoft, intune: Intune, clock: Clock
) -> None:
    request = csr(fake)
    await intune.validate("T1", request)
    fake.fault(VALIDATE, "status", times=-1, status=500)
    before = fake.counts
    for _ in range(2):
        await problem(intune, request)
    assert counted(fake, before, VALIDATE) == 5
    error = await problem(intune, request)
    assert (error.kind, error.sent) == (Problem.OUTAGE, False)
    assert counted(fake, before, VALIDATE) == 5
    assert intune.health().breaker_open_until > clock.time

    fake.clear_faults()
    clock.time += 31.0
    assert (await intune.validate("T1", request)).accepted
    assert intune.health().breaker_open_until == 0.0


async def test_a_server_that_is_not_trusted_gets_no_secret(
    fake: FakeMicrosoft, clock: Clock
) -> None:
    client, before = client_of(fake, clock, tls=ssl.create_default_context()), len(fake.journal())
    error = await problem(client)
    await client.close()

    assert "not trusted" in error.detail
    assert len(fake.journal()) == before


async def test_one_tenants_outage_does_not_reach_another(
    fake: FakeMicrosoft, intune: Intune, other: Intune
) -> None:
    fake.fault("*", "status", times=-1, tenant="contoso", status=500)
    for _ in range(3):
        await problem(intune)

    assert (await other.validate("T1", csr(fake, "fabrikam"))).accepted
    assert other.health().breaker_open_until == 0.0
    answer = await other.validate("T1", csr(fake))
    assert answer.code == "BadTenantIdInChallenge"


async def test_no_more_requests_are_under_way_than_allowed(
    fake: FakeMicrosoft, clock: Clock
) -> None:
    client, request = client_of(fake, clock, concurrency=2), csr(fake)
    await client.validate("T1", request)
    fake.fault(VALIDATE, "delay", times=4, seconds=0.1)
    started = time.monotonic()
    await asyncio.gather(*(client.validate(f"T{n}", request) for n in range(4)))
    await client.close()

    assert time.monotonic() - started >= 0.2


async def test_no_error_repr_or_log_shows_what_was_sent(
    fake: FakeMicrosoft, intune: Intune, capsys: pytest.CaptureFixture[str]
) -> None:
    challenge = fake.mint("contoso", subject="CN=device-1")
    request = csr(fake)
    token = await intune.tokens.token(intune.connection.intune_scope)
    shown = [repr(intune.connection), repr(intune.tokens), repr(intune.channel)]
    for kind in ("html", "truncated", "redirect", "lost"):
        fake.clear_faults()
        fake.fault(VALIDATE, kind, times=-1)
        error = await problem(intune, request)
        shown += [repr(error), *traceback.format_exception(error)]
    shown += [repr(intune.health()), *capsys.readouterr()]
    everything = "".join(shown)

    for secret in (challenge[:40], token, fake.tenants["contoso"].secret_path.read_text()):
        assert secret not in everything
    assert hashlib.sha256(request).hexdigest() not in everything


async def test_doctor_says_which_step_fails_and_what_to_do(
    fake: FakeMicrosoft, intune: Intune
) -> None:
    device = fake.set_device("contoso")
    good = [finding async for finding in examine(intune, device.id)]
    fake.consent("contoso", ["scep_challenge_provider"])
    intune.tokens.drop(
        intune.connection.graph_scope,
        await intune.tokens.token(intune.connection.graph_scope),
    )
    bad = [finding async for finding in examine(intune, device.id)]

    assert [finding.ok for finding in good] == [True] * 5
    assert "roles: " in good[0].detail
    assert [finding.ok for finding in bad] == [True, True, True, True, False]
    assert "DeviceManagementManagedDevices.Read.All" in bad[-1].hint


def test_doctor_exits_with_1_if_a_step_fails(fake: FakeMicrosoft) -> None:
    connection_of(fake, "contoso")  # writes the file
    config = ("--config", str(fake.directory / "scepstream.toml"))
    good = command("doctor", "intune", "contoso", *config)
    fake.rotate_secret("contoso")
    fake.tenants["contoso"].secret_path.write_text("an-old-secret")
    bad = command("doctor", "intune", "contoso", *config)
    unknown = command("doctor", "intune", "adatum", *config)
    fake.rotate_secret("contoso")

    assert good.returncode == 0, good.stdout + good.stderr
    assert all(line.startswith("ok: ") for line in good.stdout.splitlines())
    assert bad.returncode == 1
    assert "the client secret is wrong" in bad.stdout
    assert "an-old-secret" not in bad.stdout + bad.stderr
    assert sentence(unknown) == "no such Intune connection: adatum; configured: contoso, fabrikam"
