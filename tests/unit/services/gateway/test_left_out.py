"""A profile that was left out at the start is there, but not now: 503, not 404."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.gateway.app import Gateway
from shared.ca.chains import ChainBook
from shared.runtime.edge import CLIENT_CERTIFICATE
from shared.runtime.live import Live
from tests.support.messages import Identity
from tests.support.world import PROFILE, counted
from tests.unit.services.gateway.gateways import make_world

LEFT_OUT: Final = "lab"
REASON: Final = "profile lab: ra.pem: No such file or directory"
OPERATIONS: Final = ("GetCACaps", "GetCACert", "GetNextCACert", "PKIOperation")
SUFFIXES: Final = ("", "/", "/pkiclient.exe", "/cgi-bin/pkiclient.exe", "/certsrv/mscep/mscep.dll")
Ask = Callable[..., Awaitable[httpx.Response]]


@pytest.fixture
def ask(device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey) -> Ask:
    """One request; `default` is the default profile, `mtls` asks by the mTLS listener."""

    async def answer(
        path: str, method: str = "GET", *, default: str | None = PROFILE, mtls: bool = False
    ) -> httpx.Response:
        world = await make_world(device, ra, ec_key)
        settings = replace(
            world.enroller.live.current, left_out={LEFT_OUT: REASON}, default_profile=default
        )
        chains = ChainBook.of(world.bus, [])
        inner = Gateway(world.bus, Live(settings), chains, world.enroller, world.clock).app()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await inner(scope | ({CLIENT_CERTIFICATE: None} if mtls else {}), receive, send)

        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
            return await http.request(method, path)

    return answer


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("suffix", SUFFIXES)
async def test_every_operation_of_it_is_503_for_now(ask: Ask, operation: str, suffix: str) -> None:
    answer = await ask(f"/scep/{LEFT_OUT}{suffix}?operation={operation}")

    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["content-type"] == "text/plain"


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
async def test_so_it_is_by_every_method(ask: Ask, method: str) -> None:
    answer = await ask(f"/scep/{LEFT_OUT}?operation=PKIOperation", method)

    assert answer.status_code == 503


@pytest.mark.parametrize("query", ["", "?operation=", "?operation=Other", "?message=AAAA"])
async def test_what_is_asked_of_it_does_not_matter(ask: Ask, query: str) -> None:
    assert (await ask(f"/scep/{LEFT_OUT}{query}")).status_code == 503


async def test_why_it_was_left_out_is_not_the_clients_business(ask: Ask) -> None:
    answer = await ask(f"/scep/{LEFT_OUT}?operation=GetCACaps")

    assert answer.text == "this SCEP profile is currently unavailable\n"
    assert "ra.pem" not in answer.text + str(answer.headers)


@pytest.mark.parametrize("path", ["/scep", "/scep/", "/pkiclient.exe", "/cgi-bin/pkiclient.exe"])
async def test_as_the_default_profile_it_is_503_at_the_root_too(ask: Ask, path: str) -> None:
    answer = await ask(f"{path}?operation=GetCACaps", default=LEFT_OUT)

    assert answer.status_code == 503


async def test_its_mtls_sibling_is_503_too(ask: Ask) -> None:
    answer = await ask(f"/scep-mtls/{LEFT_OUT}?operation=GetCACaps", mtls=True)

    assert answer.status_code == 503


async def test_the_mtls_listener_serves_nothing_but_siblings_left_out_or_not(ask: Ask) -> None:
    """Who may reach that port alone learns nothing of what is on the other."""
    assert (await ask(f"/scep/{LEFT_OUT}?operation=GetCACaps", mtls=True)).status_code == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/scep/{PROFILE}", 200),
        ("/scep", 200),
        ("/scep/unheard", 404),
        ("/scep/lab2", 404),
        ("/scep/la", 404),
        ("/scep/LAB", 404),
        ("/", 404),
        ("/crl/lab.crl", 404),
        ("/healthz", 200),
    ],
)
async def test_everything_else_is_as_ever(ask: Ask, path: str, status: int) -> None:
    assert (await ask(f"{path}?operation=GetCACaps")).status_code == status


async def test_the_other_profiles_keep_the_gateway_ready(
    device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    world = await make_world(device, ra, ec_key)
    settings = replace(world.enroller.live.current, left_out={LEFT_OUT: REASON})
    chains = ChainBook.of(world.bus, [])

    assert Gateway(world.bus, Live(settings), chains, world.enroller, world.clock).ready() == ""


async def test_each_refusal_is_counted_under_its_reason(ask: Ask) -> None:
    def refused() -> float:
        return sum(
            counted("refused", profile=name, reason="profile_left_out") for name in ("", LEFT_OUT)
        )

    before = refused()
    await ask(f"/scep/{LEFT_OUT}?operation=GetCACaps")
    await ask(f"/scep/{PROFILE}?operation=GetCACaps")

    assert refused() == before + 1
