import base64
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from services.issuer.connectors.connector import (
    AnswerLostError,
    CaUnavailableError,
    Issued,
    Order,
    Pending,
    Prepared,
    Recovery,
    Refused,
)
from services.issuer.connectors.kubernetes import KubernetesConnector
from shared.config.load import SettingsError
from shared.log.events.enrollment import TemplateExtension
from tests.issuers import cert_manager, kubernetes
from tests.issuers.cert_manager import usual_order
from tests.issuers.fake_kubernetes import TOKEN, FakeCluster
from tests.issuers.orders import CHALLENGE, again, order
from tests.issuers.serving import serving
from tests.unit.shared import configurations

SIGNING = "certificatesigningrequests"
MANAGED = "certificaterequests"


@dataclass
class World:
    """A cluster in which nothing is approved by itself, and connectors to it."""

    folder: Path
    cluster: FakeCluster
    url: str
    made: list[KubernetesConnector] = field(default_factory=list)

    def signing(self, **options: Any) -> KubernetesConnector:
        self.made.append(kubernetes.connector(self.folder, self.cluster, self.url, **options))
        return self.made[-1]

    def managed(self) -> KubernetesConnector:
        self.made.append(cert_manager.connector(self.folder, self.cluster, self.url))
        return self.made[-1]

    def order(self, **changes: Any) -> Order:
        return order(self.cluster.authority.certificate, **changes)

    def usual(self) -> Order:
        return usual_order(self.cluster.authority.certificate)


@pytest.fixture
async def world(
    tmp_path: Path, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey
) -> AsyncIterator[World]:
    configurations.write_all(tmp_path, rsa_key, ec_key)
    cluster = FakeCluster(automatic=False)
    async with serving(cluster.app) as port:
        made = World(tmp_path, cluster, f"http://127.0.0.1:{port}")
        yield made
        for connector in made.made:
            await connector.close()


async def placed(connector: KubernetesConnector, order: Order) -> str:
    """The name of an order's object."""
    result = await connector.issue(order, Prepared())
    assert isinstance(result, Pending), result
    return result.handle


def ends(der: bytes) -> float:
    return x509.load_der_x509_certificate(der).not_valid_after_utc.timestamp()


async def test_an_order_is_pending_until_the_cluster_has_signed_it(world: World) -> None:
    connector, order = world.signing(), world.order()
    name = await placed(connector, order)
    assert name == f"scepstream-{order.key}"
    assert await connector.find(again(order), name) == Pending(name)

    world.cluster.approve(name)
    assert isinstance(await connector.find(again(order), name), Issued)


async def test_an_order_that_is_placed_again_is_the_same_object(world: World) -> None:
    connector, order = world.signing(), world.order()
    assert await placed(connector, order) == await placed(connector, order)
    assert len(world.cluster.objects) == 1


async def test_less_is_asked_for_by_the_time_that_a_decision_may_take(world: World) -> None:
    connector, order = world.signing(decision_time="1d"), world.order()
    name = await placed(connector, order)
    world.cluster.approve(name)

    found = await connector.find(again(order), name)
    assert isinstance(found, Issued)
    assert 0 <= order.template.not_after - 86400 - ends(found.certificate) < 5


async def test_an_order_with_too_little_time_left_is_refused(world: World) -> None:
    late = world.order(not_after=int(time.time()) + 3600 + 300)
    result = await world.signing().issue(late, Prepared())

    assert isinstance(result, Refused)
    assert world.cluster.objects == {}


async def test_an_object_of_the_name_with_another_key_is_refused(world: World) -> None:
    connector, order, other = world.signing(), world.order(), world.order()
    name = await placed(connector, order)
    await placed(connector, other)
    objects = world.cluster.objects
    objects[SIGNING, name]["spec"] = objects[SIGNING, f"scepstream-{other.key}"]["spec"]

    for result in (await connector.issue(order, Prepared()), await connector.find(order, name)):
        assert isinstance(result, Refused)
        assert "another request" in result.detail


async def test_an_object_for_another_signer_is_refused(world: World) -> None:
    connector, order = world.signing(), world.order()
    name = await placed(connector, order)
    world.cluster.objects[SIGNING, name]["spec"]["signerName"] = "example.org/others"

    assert isinstance(await connector.find(again(order), name), Refused)


async def test_an_object_that_was_deleted_is_not_found(world: World) -> None:
    connector, order = world.signing(), world.order()
    name = await placed(connector, order)
    world.cluster.collect(name)

    assert await connector.find(again(order), name) is None


async def test_names_are_certain_only_where_objects_are_kept(world: World) -> None:
    signing = world.signing()
    assert signing.recovery is Recovery.SHORT_TOKEN
    assert signing.token_lifetime == 3600
    assert world.managed().recovery is Recovery.NAMED


@pytest.mark.parametrize(
    ("kind", "status", "reason"),
    [
        ("Denied", "True", "NotAllowed"),
        ("Failed", "True", "SignerValidationFailure"),
    ],
)
async def test_a_signing_request_that_fails_is_refused(
    world: World, kind: str, status: str, reason: str
) -> None:
    connector, order = world.signing(), world.order()
    name = await placed(connector, order)
    conditions = [{"type": kind, "status": status, "reason": reason}]
    world.cluster.objects[SIGNING, name]["status"]["conditions"] = conditions

    assert await connector.find(again(order), name) == Refused(f"{kind}: {reason}")


@pytest.mark.parametrize(
    ("kind", "status", "reason"),
    [
        ("InvalidRequest", "True", "Rejected"),
        ("Denied", "True", "Policy"),
        ("Ready", "False", "Failed"),
    ],
)
async def test_a_managed_request_that_fails_is_refused(
    world: World, kind: str, status: str, reason: str
) -> None:
    connector, order = world.managed(), world.usual()
    name = await placed(connector, order)
    conditions = [{"type": kind, "status": status, "reason": reason, "message": "no such\tpolicy"}]
    world.cluster.objects[MANAGED, name]["status"]["conditions"] = conditions

    assert await connector.find(again(order), name) == Refused(f"{kind}: no such\\x09policy")


async def test_a_managed_request_that_waits_is_pending(world: World) -> None:
    connector, order = world.managed(), world.usual()
    name = await placed(connector, order)
    conditions = [{"type": "Ready", "status": "False", "reason": "Pending", "message": "wait"}]
    world.cluster.objects[MANAGED, name]["status"] = {"conditions": conditions, "certificate": "eA"}

    assert await connector.find(again(order), name) == Pending(name)


async def test_a_refusal_does_not_quote_the_csr(world: World) -> None:
    """The webhook prints the CSR's bytes into its message; the CSR asks for some usages only."""
    result = await world.managed().issue(world.order(), Prepared())

    assert isinstance(result, Refused)
    assert "csr key usages do not match" in result.detail
    assert "0x2d" not in result.detail
    assert CHALLENGE not in result.detail


async def test_an_unknown_usage_is_refused_before_it_is_ordered(world: World) -> None:
    purpose = x509.ExtendedKeyUsage([x509.ObjectIdentifier("1.2.3.4")])
    usage = TemplateExtension(oid="2.5.29.37", critical=False, value=purpose.public_bytes())
    prepared = world.signing().prepare(world.order(extensions=(usage,)))

    assert isinstance(prepared, Refused)
    assert "1.2.3.4" in prepared.detail


@pytest.mark.parametrize("verb", ["create", "get"])
async def test_a_missing_permission_is_named(world: World, verb: str) -> None:
    world.cluster.allowed.remove(verb)
    with pytest.raises(CaUnavailableError, match=f"may not {verb} {SIGNING}"):
        await world.signing().check()


async def test_an_account_that_may_not_create_orders_nothing(world: World) -> None:
    world.cluster.allowed.remove("create")
    with pytest.raises(CaUnavailableError, match=r"403.*cannot create"):
        await world.signing().issue(world.order(), Prepared())


@pytest.mark.parametrize(
    "said",
    [
        'admission webhook "policy.example.org" denied the request: no such name',
        "forbidden: use of example.org/devices signer with system:masters group is not allowed",
        "forbidden: ValidatingAdmissionPolicy 'names' with binding 'names' denied request: no",
        'admission webhook "policy.example.org" denied the request: forbidden: User "x" cannot get',
    ],
)
async def test_what_admission_forbids_is_refused_in_its_words(world: World, said: str) -> None:
    world.cluster.forbids = said
    result = await world.signing().issue(world.order(), Prepared())

    assert isinstance(result, Refused)
    assert said in result.detail


@pytest.mark.parametrize(
    "said",
    [
        "forbidden: exceeded quota: few, requested: count/certificaterequests.cert-manager.io=1",
        "forbidden: unable to create new content in namespace pki because it is being terminated",
    ],
)
async def test_a_namespace_that_accepts_no_object_is_unavailable(world: World, said: str) -> None:
    world.cluster.forbids = said
    with pytest.raises(CaUnavailableError, match=said):
        await world.managed().issue(world.usual(), Prepared())


async def forbidden(_: Request, __: Exception) -> Response:
    return PlainTextResponse("blocked", 403)


async def test_an_answer_403_that_is_no_status_is_no_refusal(world: World) -> None:
    """A proxy's answer, for example."""
    connector = world.signing()
    app = Starlette(exception_handlers={404: forbidden})
    async with serving(app) as port:
        connector.http.base_url = f"http://127.0.0.1:{port}"
        with pytest.raises(CaUnavailableError, match="403"):
            await connector.issue(world.order(), Prepared())


async def test_an_order_that_admission_forbids_later_is_found(world: World) -> None:
    """Admission comes before the API server says that the object exists."""
    connector, order = world.signing(), world.order()
    name = await placed(connector, order)
    world.cluster.forbids = 'admission webhook "policy.example.org" denied the request: no'
    assert await connector.issue(order, Prepared()) == Pending(name)

    world.cluster.allowed.remove("get")
    with pytest.raises(AnswerLostError):
        await connector.issue(order, Prepared())


async def test_an_order_that_may_not_be_read_is_pending(world: World) -> None:
    world.cluster.allowed.remove("get")
    connector, order = world.signing(), world.order()

    assert await placed(connector, order) == await placed(connector, order)


async def test_a_cluster_without_cert_manager_is_unavailable(world: World) -> None:
    world.cluster.has_cert_manager = False
    async with serving(world.cluster.app) as port:
        world.url = f"http://127.0.0.1:{port}"
        connector, order = world.managed(), world.usual()
        with pytest.raises(CaUnavailableError, match="has no"):
            await connector.check()
        with pytest.raises(CaUnavailableError, match="has no"):
            await connector.issue(order, Prepared())
        with pytest.raises(CaUnavailableError, match="has no"):
            await connector.find(order)


async def test_the_token_is_read_again(world: World) -> None:
    connector = world.signing()
    token = next(world.folder.glob("*.token"))
    token.write_text("an0ther")
    with pytest.raises(CaUnavailableError, match="401"):
        await connector.check()
    token.write_text(TOKEN)
    assert await connector.check()
    token.unlink()
    with pytest.raises(CaUnavailableError, match=r"\.token"):
        await connector.check()


async def test_a_certificate_that_does_not_load_is_no_certificate(world: World) -> None:
    connector, order = world.signing(), world.order()
    name = await placed(connector, order)
    world.cluster.approve(name)
    odd = base64.b64encode(b"-----BEGIN NOTHING-----").decode()
    world.cluster.objects[SIGNING, name]["status"]["certificate"] = odd
    with pytest.raises(AnswerLostError):
        await connector.find(again(order), name)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"signer_name": None}, "needs signer_name"),
        ({"resource": "certificaterequest"}, "needs namespace and issuer_name"),
        ({"resource": "secret"}, "resource"),
        ({"token_path": None}, "token_path"),
        ({"signer_name": "no-domain"}, "signer_name"),
        ({"namespace": "../other"}, "namespace"),
    ],
)
async def test_options_that_do_not_fit_are_named(
    world: World, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        world.signing(**options)
