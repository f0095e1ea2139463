"""An OpenID Connect provider that is not quite as expected: what is read, and what is said."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.jwk import RSAKey

from services.audit.roles import Level
from services.audit.settings import Oidc
from services.audit.web.provider import (
    LoginState,
    NotSignedInError,
    ProviderMismatchError,
    ProviderUnavailableError,
    authorization_url,
    operator_of_claims,
    signed_in_as,
)
from tests.support.world import NOW
from tests.unit.services.validator.http_services import Papers, Posted, Service, http, serving

ATTEMPT: Final = LoginState("state", "nonce", "verifier")
KEY: Final = RSAKey.generate_key(2048, {"kid": "1"})
STRANGER: Final = RSAKey.generate_key(2048, {"kid": "1"})
CLAIMS: Final[Mapping[str, Any]] = {
    "aud": "scepstream", "sub": "7", "nonce": "nonce", "iat": NOW - 1, "exp": NOW + 60,
    "realm_access": {"roles": ["pki", "x"]},
}  # fmt: skip


class Provider:
    """A provider on a port of this machine, as far as a login needs one."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.metadata: dict[str, Any] = {}
        self.keys: list[Any] = [KEY.as_dict(private=False)]
        self.claims: dict[str, Any] = dict(CLAIMS)
        self.refusal: tuple[int, bytes] | None = None
        self.signer = KEY
        service.answer = self.answer

    @property
    def url(self) -> str:
        return self.service.url.removesuffix("/hook")

    async def answer(self, posted: Posted, writer: Any) -> None:
        writer.write(http(*self.said(posted)))
        await writer.drain()

    def said(self, posted: Posted) -> tuple[int, bytes]:
        if "well-known" in posted.path:
            names = ("authorization_endpoint", "token_endpoint", "jwks_uri")
            found = {name: f"{self.url}/{name}" for name in names} | {"issuer": self.url}
            return 200, json.dumps(found | self.metadata).encode()
        if posted.path == "/jwks_uri":
            return 200, json.dumps({"keys": self.keys}).encode()
        if self.refusal is not None:
            return self.refusal
        claims = {"iss": self.url} | self.claims
        claims = {name: value for name, value in claims.items() if value is not None}
        token = jwt.encode({"alg": "RS256", "kid": "1"}, claims, self.signer)
        return 200, json.dumps({"id_token": token}).encode()


def oidc(url: str, claim: str = "realm_access.roles", tls: ssl.SSLContext | None = None) -> Oidc:
    levels = {"pki": Level.OPERATOR}
    return Oidc(url, "scepstream", "a secret&", "https://x/cb", claim, levels, tls)


async def login(provider: Provider) -> str:
    return (await signed_in_as(oidc(provider.url), ATTEMPT, "code", NOW)).name


async def test_a_secret_goes_into_the_form_where_the_provider_takes_it_there_alone() -> None:
    async with serving(Service()) as service:
        provider = Provider(service)
        for methods, by_form in (
            (None, False),
            (["client_secret_basic", "client_secret_post"], False),
            (["client_secret_post", "private_key_jwt"], True),
        ):
            provider.metadata["token_endpoint_auth_methods_supported"] = methods
            assert await login(provider) == "oidc:7"
            (asked,) = [each for each in service.posted if each.method == "POST"]
            assert (b"client_secret=a+secret%26" in asked.body) is by_form
            assert ("authorization" in asked.headers) is not by_form
            service.posted.clear()


async def test_keys_that_cannot_be_read_stand_in_nobodys_way() -> None:
    async with serving(Service()) as service:
        provider = Provider(service)
        provider.keys = [
            {"kty": "AKP", "alg": "ML-DSA-44", "kid": "pq", "pub": "AAAA"},
            {"kty": "EC", "crv": "P-256", "kid": "ec", "x": "!", "y": ""},
            "no key",
            {},
            *provider.keys,
        ]
        assert await login(provider) == "oidc:7"
        provider.keys = provider.keys[:4]
        with pytest.raises(ProviderMismatchError, match="no usable key"):
            await login(provider)


@pytest.mark.parametrize(
    ("claims", "told"),
    [
        ({"aud": "other"}, "aud is other, expected scepstream"),
        ({"iss": "https://evil.example"}, "iss is https://evil.example, expected http://127.0.0.1"),
        ({"exp": None}, "has no claim exp"),
        ({"aud": None}, "has no claim aud"),
        ({"exp": NOW - 100}, "has expired"),
        ({"nonce": "m"}, "belongs to another sign-in"),
        ({"realm_access": {"roles": ["guest\x1b"]}}, r"realm_access.roles: guest\\x1b"),
        ({"realm_access": {}}, "no claim realm_access.roles"),
        ({"realm_access": None}, "no claim realm_access.roles"),
    ],
)
async def test_a_login_that_does_not_hold_says_which_part(
    claims: dict[str, Any], told: str
) -> None:
    async with serving(Service()) as service:
        provider = Provider(service)
        provider.claims |= claims
        with pytest.raises(NotSignedInError, match=told):
            await login(provider)


async def test_another_key_is_told_apart_from_a_token_that_cannot_be_read() -> None:
    async with serving(Service()) as service:
        provider = Provider(service)
        provider.signer = STRANGER
        with pytest.raises(NotSignedInError, match="signature does not match any"):
            await login(provider)


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        ((400, b'{"error": "invalid_grant"}'), NotSignedInError, "start again"),
        ((401, b'{"error": "invalid_client"}'), ProviderMismatchError, "HTTP 401: invalid_client"),
        ((404, b"<h1>"), ProviderMismatchError, "HTTP 404"),
        ((200, b"<h1>"), ProviderMismatchError, "did not return a JSON object"),
        ((200, b"[]"), ProviderMismatchError, "did not return a JSON object"),
        ((500, b""), ProviderUnavailableError, "HTTP 500"),
        ((503, b'{"error": "x"}'), ProviderUnavailableError, "HTTP 503"),
        ((429, b""), ProviderUnavailableError, "HTTP 429"),
    ],
)
async def test_what_waiting_cures_is_told_apart_from_what_it_does_not(
    answer: tuple[int, bytes], kind: type[Exception], told: str
) -> None:
    async with serving(Service()) as service:
        provider = Provider(service)
        provider.refusal = answer
        with pytest.raises(kind, match=told):
            await login(provider)


@pytest.mark.parametrize("said", ["a secret&", "not a+secret%26", "a secret&amp;", "verifier"])
async def test_an_error_that_repeats_what_was_sent_is_not_repeated(said: str) -> None:
    async with serving(Service()) as service:
        provider = Provider(service)
        provider.refusal = (401, json.dumps({"error": said}).encode())
        with pytest.raises(ProviderMismatchError, match=r"HTTP 401$"):
            await login(provider)


async def test_metadata_that_do_not_fit_name_what_is_wrong() -> None:
    async with serving(Service()) as service:
        provider = Provider(service)
        provider.metadata = {"issuer": "https://login.example/other"}
        with pytest.raises(
            ProviderMismatchError, match=r"the provider's issuer is https://login\.example/other"
        ):
            await login(provider)
        provider.metadata = {"jwks_uri": None}
        with pytest.raises(ProviderMismatchError, match="jwks_uri"):
            await login(provider)


def test_a_claim_whose_name_has_dots_is_itself() -> None:
    claims = {"sub": "7", "https://x.example/roles": "pki", "a": {"b": {"c": ["pki", 7]}}}
    for path in ("https://x.example/roles", "a.b.c"):
        assert operator_of_claims(oidc("https://x", path), claims).level is Level.OPERATOR
    for path in ("a.b", "a.b.c.d", "sub.x", "", "."):
        with pytest.raises(NotSignedInError):
            operator_of_claims(oidc("https://x", path), claims)


async def test_a_provider_with_a_certificate_of_a_private_ca_is_asked(
    tmp_path: Path, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    papers = Papers(tmp_path, ec_key)
    async with serving(Service(scheme="https"), papers.server()) as service:
        provider = Provider(service)
        trusted = ssl.create_default_context(cafile=str(papers.ca))
        url = await authorization_url(oidc(provider.url, tls=trusted), ATTEMPT)
        assert url.startswith(f"{provider.url}/authorization_endpoint?")
        with pytest.raises(ProviderMismatchError, match="oidc_ca_path"):
            await authorization_url(oidc(provider.url), ATTEMPT)


async def test_a_provider_that_answers_byte_by_byte_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each byte would start a limit on silence anew."""
    monkeypatch.setattr("services.audit.web.provider.TIMEOUT_SECONDS", 0.3)

    ended = asyncio.Event()

    async def trickle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.05)
        writer.close()
        ended.set()

    async with await asyncio.start_server(trickle, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(10):
            with pytest.raises(ProviderUnavailableError, match="did not answer in time"):
                await authorization_url(oidc(f"http://127.0.0.1:{port}"), LoginState("s", "n", "v"))
            await ended.wait()
