"""A fake API server with cert-manager's CertificateRequests, which somebody has to approve."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AttributeOID

from services.issuer.connectors.connector import Order
from services.issuer.connectors.kubernetes import KubernetesConnector
from tests.issuers import kubernetes
from tests.issuers.fake_kubernetes import DENIED, ISSUER, NAMESPACE, TOKEN, FakeCluster
from tests.issuers.kubernetes import WRONG
from tests.issuers.lab import Lab
from tests.issuers.orders import CHALLENGE, order
from tests.issuers.proxy import proxied
from tests.issuers.serving import serving
from tests.support import pki


def usual_order(ca: x509.Certificate, name: str = "") -> Order:
    """An order whose CSR asks for no usages: cert-manager wants all of them in it, or none."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = order(ca, name, spki=pki.spki(key.public_key()))
    asked = x509.load_der_x509_csr(made.csr)
    names = asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    csr = (
        x509.CertificateSigningRequestBuilder(asked.subject)
        .add_extension(names, critical=False)
        .add_attribute(AttributeOID.CHALLENGE_PASSWORD, CHALLENGE.encode())
        .sign(key, hashes.SHA256())
    )
    return replace(made, csr=csr.public_bytes(Encoding.DER))


class CertManagerLab(Lab):
    """Orders that cert-manager's webhook lets pass."""

    def order(self) -> Order:
        return usual_order(self.ca)


def connector(
    folder: Path, cluster: FakeCluster, url: str, token: str = TOKEN
) -> KubernetesConnector:
    """The connector, with the token of an account."""
    return kubernetes.connector(
        folder, cluster, url, token, resource="certificaterequest", namespace=NAMESPACE,
        issuer_name=ISSUER["name"],
    )  # fmt: skip


@asynccontextmanager
async def lab(folder: Path) -> AsyncIterator[Lab]:
    """See `Lab`; `folder` has a configuration, scepstream.toml."""
    cluster = FakeCluster(automatic=False)
    ca = cluster.authority

    async def approve(handle: str) -> None:
        cluster.approve(handle)

    async with (
        serving(cluster.app) as port,
        proxied(port, r"^POST .*/certificaterequests$") as proxy,
    ):
        found = connector(folder, cluster, proxy.url)
        denied = connector(folder, cluster, proxy.url, WRONG)
        yield CertManagerLab(
            found, ca.everything, ca.is_revoked, proxy,
            refused=usual_order(ca.certificate, DENIED), denied=denied, approve=approve,
            pends=True, revokes=False, secrets=(TOKEN, WRONG),
        )  # fmt: skip
        await found.close()
        await denied.close()
