"""A fake API server with CertificateSigningRequests, whose controllers approve and sign at once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from services.issuer.connectors.kubernetes import KubernetesConnector
from tests.issuers.building import build, secret_file
from tests.issuers.fake_kubernetes import DENIED, SIGNER, TOKEN, FakeCluster
from tests.issuers.lab import Lab
from tests.issuers.orders import order
from tests.issuers.proxy import proxied
from tests.issuers.serving import serving

WRONG: Final = "eyJhbGciOiJSUzI1NiJ9.n0body.signature"


def connector(
    folder: Path, cluster: FakeCluster, url: str, token: str = TOKEN, **options: Any
) -> KubernetesConnector:
    """The connector, with the token of an account; options that are None are left out."""
    values = {
        "url": url, "token_path": secret_file(folder, f"{token[-16:]}.token", token),
        "resource": "certificatesigningrequest", "signer_name": SIGNER, **options,
    }  # fmt: skip
    present = {key: value for key, value in values.items() if value is not None}
    made = build(folder, "kubernetes", cluster.authority.certificate, present)
    assert isinstance(made, KubernetesConnector)
    return made


@asynccontextmanager
async def lab(folder: Path) -> AsyncIterator[Lab]:
    """See `Lab`; `folder` has a configuration, scepstream.toml."""
    cluster = FakeCluster()
    ca = cluster.authority
    async with (
        serving(cluster.app) as port,
        proxied(port, r"^POST .*/certificatesigningrequests$") as proxy,
    ):
        found = connector(folder, cluster, proxy.url)
        denied = connector(folder, cluster, proxy.url, WRONG)
        yield Lab(
            found, ca.everything, ca.is_revoked, proxy, refused=order(ca.certificate, DENIED),
            denied=denied, revokes=False, secrets=(TOKEN, WRONG),
        )  # fmt: skip
        await found.close()
        await denied.close()
