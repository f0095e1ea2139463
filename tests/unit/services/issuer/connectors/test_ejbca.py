from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from services.issuer.connectors import ejbca
from services.issuer.connectors.connector import (
    AnswerLostError,
    CaUnavailableError,
    Issued,
    Order,
    Pending,
    Prepared,
    Refused,
    RevocationRefusedError,
)
from services.issuer.connectors.http import Answer
from shared.config.load import SettingsError
from shared.log.events.commands import RevocationReason
from shared.scep.certificate import read_certificate
from tests.issuers.building import secret_file
from tests.issuers.ejbca import (
    API,
    CA_NAME,
    CLIENT_SECRET,
    PASSWORD_SECRET,
    FakeEjbca,
    connector,
    options,
)
from tests.issuers.orders import CHALLENGE, again, order
from tests.issuers.serving import serving
from tests.issuers.tls_front import TlsFiles, fronted, port
from tests.unit.shared import configurations

Connect = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey) -> Path:
    configurations.write_all(tmp_path, rsa_key, ec_key)
    return tmp_path


@pytest.fixture
def fake() -> FakeEjbca:
    return FakeEjbca()


@pytest.fixture
async def connect(folder: Path, fake: FakeEjbca) -> AsyncIterator[Connect]:
    """Makes connectors of a fake that runs; `changes` are of their options."""
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(serving(fake.app))

        def made(**changes: Any) -> Any:
            found = connector(folder, fake, options(folder, address) | changes)
            stack.push_async_callback(found.close)
            return found

        yield made


async def place(found: Any, asked: Order) -> Any:
    return await found.issue(asked, Prepared())


def serial(der: bytes) -> str:
    return read_certificate(der).serial.hex()


def ends(issued: Issued) -> float:
    return x509.load_der_x509_certificate(issued.certificate).not_valid_after_utc.timestamp()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"auth": "tls"}, "auth tls needs tls_cert_path and tls_key_path"),
        ({"token_url": None}, "auth oauth needs token_url"),
        ({"token_url": "http://idp.example/token"}, "token_url"),
        ({"username_prefix": "a b"}, "username_prefix"),
        ({"ca_name": ""}, "ca_name"),
        ({"password_secret_path": "short.secret"}, "shorter than 32 characters"),
        ({"colour": "green"}, "no such option"),
    ],
)
def test_options_that_do_not_fit_are_named(
    folder: Path, fake: FakeEjbca, changes: dict[str, Any], said: str
) -> None:
    secret_file(folder, "short.secret", "too-short")
    chosen = {k: v for k, v in (options(folder, 9) | changes).items() if v is not None}
    with pytest.raises(SettingsError, match=said) as raised:
        connector(folder, fake, chosen)

    assert CLIENT_SECRET not in str(raised.value)


async def test_each_order_is_an_end_entity_with_a_password_of_its_own(
    connect: Connect, fake: FakeEjbca
) -> None:
    asked = [order(fake.ca.certificate), order(fake.ca.certificate)]
    for each in asked:
        await place(connect(), each)

    assert list(fake.end_entities) == [f"scepstream-{each.key}" for each in asked]
    passwords = {entity.password for entity in fake.end_entities.values()}
    assert len(passwords) == 2
    assert all(len(password) == 64 for password in passwords)


async def test_a_repeated_order_gives_another_certificate_that_is_found_too(
    connect: Connect, fake: FakeEjbca
) -> None:
    """EJBCA edits the end entity, though it is GENERATED, and issues again."""
    asked = order(fake.ca.certificate)
    first, second = await place(connect(), asked), await place(connect(), asked)
    found = await connect().find(again(asked))

    assert first != second
    assert {found.certificate, *found.others} == {first.certificate, second.certificate}


async def test_a_certificate_that_is_revoked_is_not_the_one_to_keep(
    connect: Connect, fake: FakeEjbca
) -> None:
    """A profile with one active certificate for each end entity revokes the others."""
    asked = order(fake.ca.certificate)
    first, second = await place(connect(), asked), await place(connect(), asked)
    pin = connect().current.pin
    await connect().revoke(serial(first.certificate), pin, RevocationReason.SUPERSEDED)

    assert await connect().find(again(asked)) == Issued(second.certificate, (first.certificate,))


async def test_a_ca_that_wants_new_keys_gives_the_certificate_that_there_is(
    connect: Connect, fake: FakeEjbca
) -> None:
    fake.new_keys = True
    asked = order(fake.ca.certificate)
    first = await place(connect(), asked)

    assert await place(connect(), asked) == first


async def test_a_certificate_for_another_key_is_not_the_orders(
    connect: Connect, fake: FakeEjbca
) -> None:
    asked, other = order(fake.ca.certificate), order(fake.ca.certificate)
    await place(connect(), other)
    made = next(iter(fake.names))
    fake.names[made] = f"scepstream-{asked.key}"
    fake.end_entities[fake.names[made]] = next(iter(fake.end_entities.values()))

    assert await connect().find(again(asked)) is None


async def test_the_end_of_validity_is_asked_for_or_left_to_the_profile(
    connect: Connect, fake: FakeEjbca
) -> None:
    asked = order(fake.ca.certificate)
    assert ends(await place(connect(), asked)) == asked.template.not_after

    profile = await place(connect(end_time=False), order(fake.ca.certificate))
    assert "end_time" not in fake.bodies[-1]
    assert ends(profile) < asked.template.not_after


class TestApprovals:
    @pytest.fixture(autouse=True)
    def approvals(self, fake: FakeEjbca) -> None:
        fake.approvals = True

    async def pending(self, connect: Connect, asked: Order) -> str:
        result = await place(connect(), asked)
        assert isinstance(result, Pending)
        return result.handle

    def decide(self, fake: FakeEjbca, handle: str, state: str) -> None:
        fake.requests[int(handle)] = (fake.requests[int(handle)][0], state)

    async def test_an_order_waits_until_it_is_approved(
        self, connect: Connect, fake: FakeEjbca
    ) -> None:
        asked = order(fake.ca.certificate)
        handle = await self.pending(connect, asked)
        assert handle.isdigit()
        assert await connect().find(again(asked), handle) == Pending(handle)

        self.decide(fake, handle, "approved")
        found = await connect().find(again(asked), handle)
        assert isinstance(found, Issued)
        assert await connect().find(again(asked), handle) == found
        assert await fake.ca.everything() == [found.certificate]

    @pytest.mark.parametrize("state", ["has been rejected", "has expired", "could not be executed"])
    async def test_an_order_that_is_not_approved_is_refused(
        self, connect: Connect, fake: FakeEjbca, state: str
    ) -> None:
        asked = order(fake.ca.certificate)
        handle = await self.pending(connect, asked)
        self.decide(fake, handle, state)
        found = await connect().find(again(asked), handle)

        assert found == Refused(f"Request with Id '{handle}' {state}")

    async def test_a_request_that_ejbca_no_longer_has_is_not_found(
        self, connect: Connect, fake: FakeEjbca
    ) -> None:
        asked = order(fake.ca.certificate)
        handle = await self.pending(connect, asked)
        fake.requests.clear()

        assert await connect().find(again(asked), handle) is None

    async def test_an_enrollment_that_was_finalized_without_a_certificate_is_unknown(
        self, connect: Connect, fake: FakeEjbca
    ) -> None:
        asked = order(fake.ca.certificate)
        handle = await self.pending(connect, asked)
        self.decide(fake, handle, "approved")
        await connect().find(again(asked), handle)
        fake.names.clear()

        with pytest.raises(AnswerLostError, match="already been finalized"):
            await connect().find(again(asked), handle)

    async def test_a_handle_that_is_no_number_reaches_no_url(
        self, connect: Connect, fake: FakeEjbca
    ) -> None:
        with pytest.raises(AnswerLostError, match="not a request ID"):
            await connect().find(again(order(fake.ca.certificate)), "1/../..")


@pytest.mark.parametrize(
    ("content", "number"),
    [
        (b'{"request_id": 17}', "17"),
        (b'{"link": "https://ca.example/v1/certificate/18/finalize"}', "18"),
    ],
)
def test_the_handle_is_the_id_of_the_approval_request(content: bytes, number: str) -> None:
    assert ejbca._request_id(Answer(202, {}, content)) == number


@pytest.mark.parametrize("content", [b"{}", b"[]", b'{"request_id": "x", "link": 7}'])
def test_an_approval_without_an_id_is_an_unknown_outcome(content: bytes) -> None:
    with pytest.raises(AnswerLostError):
        ejbca._request_id(Answer(202, {}, content))


@pytest.mark.parametrize(
    "found", [None, [], {}, {"c": 7}, {"c": "%"}, {"c": "TUlJ"}, {"c": "AA=="}]
)
def test_what_is_no_certificate_is_an_unknown_outcome(found: Any) -> None:
    with pytest.raises(AnswerLostError, match="no certificate"):
        ejbca._certificate(found, "c")


@pytest.mark.parametrize(
    "changes",
    [{"ca_name": "Other"}, {"certificate_profile": "x"}, {"end_entity_profile": "x"}],
)
async def test_names_that_ejbca_does_not_have_are_settings_to_check(
    connect: Connect, fake: FakeEjbca, changes: dict[str, str]
) -> None:
    found = connect(**changes)
    for call in (place(found, order(fake.ca.certificate)), found.check()):
        with pytest.raises(CaUnavailableError, match="check"):
            await call


async def test_a_search_that_may_not_see_the_ca_finds_nothing_absent(
    connect: Connect, fake: FakeEjbca
) -> None:
    found = connect()
    fake.ca_name = "Renamed"
    with pytest.raises(CaUnavailableError, match="unknown ca"):
        await found.find(again(order(fake.ca.certificate)))


async def test_another_ca_of_that_name_fails_the_check(connect: Connect, fake: FakeEjbca) -> None:
    found = connect()
    fake.ca.certificate = FakeEjbca().ca.certificate
    with pytest.raises(CaUnavailableError, match="not the CA of ca_cert_path"):
        await found.check()


@pytest.mark.parametrize("reason", RevocationReason)
async def test_every_reason_has_a_name_in_ejbca(
    connect: Connect, fake: FakeEjbca, reason: RevocationReason
) -> None:
    found = connect()
    made = serial((await place(found, order(fake.ca.certificate))).certificate)
    for _ in range(2):
        await found.revoke(made, found.current.pin, reason)

    assert await fake.ca.is_revoked(made) == (reason is not RevocationReason.REMOVE_FROM_CRL)


async def test_a_suspended_certificate_can_be_revoked_but_not_the_reverse(
    connect: Connect, fake: FakeEjbca
) -> None:
    found = connect()
    made = serial((await place(found, order(fake.ca.certificate))).certificate)
    pin = found.current.pin
    await found.revoke(made, pin, RevocationReason.CERTIFICATE_HOLD)
    await found.revoke(made, pin, RevocationReason.SUPERSEDED)

    for reason in (RevocationReason.CERTIFICATE_HOLD, RevocationReason.REMOVE_FROM_CRL):
        with pytest.raises(RevocationRefusedError):
            await found.revoke(made, pin, reason)


async def test_the_ca_is_named_as_it_is_configured(connect: Connect) -> None:
    found = connect(issuer_dn="CN=Device CA,O=Example/Ltd")
    with pytest.raises(RevocationRefusedError):
        await found.revoke("4711", found.current.pin, RevocationReason.UNSPECIFIED)
    assert found._issuer(found.current.pin) == "CN%3DDevice%20CA%2CO%3DExample%2FLtd"


async def test_a_client_certificate_authenticates_too(folder: Path, fake: FakeEjbca) -> None:
    files = TlsFiles(folder)
    fake.clients = ("CN=issuer",)
    async with serving(fake.app) as address, fronted(address, files) as front:
        chosen = {
            key: value
            for key, value in options(folder, address).items()
            if key not in ("token_url", "client_id", "client_secret_path", "scope")
        } | {"auth": "tls", "url": f"https://127.0.0.1:{port(front)}{API}"}
        good = connector(folder, fake, chosen | files.issue("issuer"))
        stranger = connector(folder, fake, chosen | files.issue("stranger"))
        assert "tls" in await good.check()
        assert isinstance(await place(good, order(fake.ca.certificate)), Issued)
        with pytest.raises(CaUnavailableError, match="403"):
            await stranger.check()
        await good.close()
        await stranger.close()


async def test_a_token_that_is_no_longer_accepted_is_fetched_again(
    connect: Connect, fake: FakeEjbca
) -> None:
    found = connect()
    await found.check()
    fake.token = "eyJ-another-t0ken"
    with pytest.raises(CaUnavailableError):
        await found.check()

    assert await found.check()


async def test_a_token_endpoint_that_fails_orders_nothing(
    connect: Connect, fake: FakeEjbca
) -> None:
    found = connect(client_id="nobody")
    with pytest.raises(CaUnavailableError) as raised:
        await place(found, order(fake.ca.certificate))

    assert CLIENT_SECRET not in str(raised.value)
    assert fake.bodies == []


async def test_nothing_shows_a_secret_or_the_challenge(connect: Connect, fake: FakeEjbca) -> None:
    found = connect()
    asked = order(fake.ca.certificate, "printer.example")
    refused = await place(found, asked)
    shown = repr(found) + repr(found.bearer) + repr(asked) + refused.detail

    password = found._password(asked)
    for secret in (CLIENT_SECRET, PASSWORD_SECRET, fake.token, CHALLENGE, password):
        assert secret not in shown
    assert CA_NAME in shown


def test_an_answer_that_repeats_the_csr_is_not_quoted() -> None:
    content = b'{"certificateRequest": "-----BEGIN CERTIFICATE REQUEST-----"}'

    assert ejbca._said(Answer(400, {}, content)) == "EJBCA answered 400"
    assert ejbca._said(Answer(400, {}, b"<html>")) == "EJBCA answered 400"
