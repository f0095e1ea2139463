"""Who comes in by the mTLS sibling of a profile."""

import base64
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.gateway.app import Gateway
from shared.ca.chains import ChainBook
from shared.config.addresses import Networks
from shared.runtime.edge import CLIENT_CERTIFICATE
from shared.runtime.live import Live
from tests.support import pki
from tests.support.messages import Identity
from tests.support.world import PROFILE
from tests.unit.services.gateway.gateways import make_world

CA_KEY = ec.derive_private_key(81, ec.SECP256R1())
OTHER_KEY = ec.derive_private_key(82, ec.SECP256R1())
CLIENT_KEY = ec.derive_private_key(83, ec.SECP256R1())
BUNDLE = (pki.der(pki.make_root(CA_KEY)),)
CAPS = "?operation=GetCACaps"
PROXY = "127.0.0.1"
Get = Callable[..., Awaitable[int]]


def client(key: ec.EllipticCurvePrivateKey = CA_KEY) -> bytes:
    return pki.der(pki.make_certificate(CLIENT_KEY.public_key(), key, subject="client"))


def header(certificate: bytes) -> dict[str, str]:
    return {"client-cert": f":{base64.b64encode(certificate).decode()}:"}


@pytest.fixture
def get(device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey) -> Get:
    """The status of a GetCACaps; `seen` is the certificate that the mTLS listener saw.

    `listener` False is a listener that asks for none.
    """

    async def status(
        path: str,
        seen: bytes | None = None,
        headers: Any = None,
        *,
        listener: bool = True,
        bundle: tuple[bytes, ...] = BUNDLE,
        proxies: tuple[str, ...] = (),
    ) -> int:
        world = await make_world(device, ra, ec_key, mtls_bundle=bundle)
        settings = replace(
            world.enroller.live.current,
            trusted_proxies=Networks.of(proxies),
            profiles={PROFILE: world.profile, "plain": replace(world.profile, mtls_bundle=())},
        )
        chains = ChainBook.of(world.bus, [])
        inner = Gateway(world.bus, Live(settings), chains, world.enroller, world.clock).app()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await inner(scope | ({CLIENT_CERTIFICATE: seen} if listener else {}), receive, send)

        transport = httpx.ASGITransport(app, client=(PROXY, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
            return (await http.get(path + CAPS, headers=headers)).status_code

    return status


async def test_a_client_of_the_profiles_cas_comes_in(get: Get) -> None:
    assert await get("/scep-mtls/demo", client()) == 200


async def test_without_a_certificate_the_answer_is_401(get: Get) -> None:
    assert await get("/scep-mtls/demo") == 401


@pytest.mark.parametrize("certificate", [client(OTHER_KEY), b"", b"junk"])
async def test_any_other_certificate_stays_out(get: Get, certificate: bytes) -> None:
    assert await get("/scep-mtls/demo", certificate) == 401


async def test_a_profile_without_mtls_has_no_sibling(get: Get) -> None:
    assert await get("/scep-mtls/plain", client()) == 404
    assert await get("/scep-mtls/unheard", client()) == 404


async def test_the_profile_itself_asks_for_no_certificate(get: Get) -> None:
    assert await get("/scep/demo", listener=False) == 200


@pytest.mark.parametrize("path", ["/scep/demo", "/scep/plain", "/scep"])
@pytest.mark.parametrize("certificate", [None, client()])
async def test_the_mtls_listener_serves_nothing_but_siblings(
    get: Get, path: str, certificate: bytes | None
) -> None:
    """Who may reach that port alone must not get at what needs no certificate."""
    assert await get(path, certificate) == 404


async def test_the_sibling_on_a_listener_that_asks_for_no_certificate_is_401(get: Get) -> None:
    assert await get("/scep-mtls/demo", listener=False) == 401


@pytest.mark.parametrize(("proxies", "expected"), [((PROXY,), 200), ((), 401), (("::1",), 401)])
async def test_a_client_cert_header_counts_where_a_trusted_proxy_sent_it(
    get: Get, proxies: tuple[str, ...], expected: int
) -> None:
    told = header(client())

    assert await get("/scep-mtls/demo", None, told, listener=False, proxies=proxies) == expected


@pytest.mark.parametrize("certificate", [client(OTHER_KEY), b"", b"junk"])
async def test_what_a_trusted_proxy_says_is_checked_all_the_same(
    get: Get, certificate: bytes
) -> None:
    told = header(certificate)

    assert await get("/scep-mtls/demo", None, told, listener=False, proxies=(PROXY,)) == 401


async def test_a_header_does_not_outdo_the_certificate_that_tls_saw(get: Get) -> None:
    """Else a client of another profile could name anybody's certificate."""
    seen, told = client(OTHER_KEY), header(client())

    assert await get("/scep-mtls/demo", seen, told, proxies=(PROXY,)) == 401


async def test_a_proxy_is_known_by_network_and_in_either_form(get: Get) -> None:
    for proxies in (("127.0.0.0/8",), ("::ffff:127.0.0.1",)):
        headers = header(client())
        assert await get("/scep-mtls/demo", headers=headers, listener=False, proxies=proxies) == 200


async def test_a_repeated_header_with_a_certificate_is_refused(get: Get) -> None:
    """One of them may be the client's own: a proxy that appends instead of replacing."""
    for first, second in ((client(), client(OTHER_KEY)), (client(OTHER_KEY), client())):
        headers = [*header(first).items(), *header(second).items()]
        status = await get("/scep-mtls/demo", headers=headers, listener=False, proxies=(PROXY,))
        assert status == 400
