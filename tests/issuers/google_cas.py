"""A fake of Google Certificate Authority Service; google-auth obtains the tokens from it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from services.issuer.connectors.connector import Connector
from tests.issuers.building import build, secret_file
from tests.issuers.fake_google_cas import TOKEN, FakeGoogleCas, key_file
from tests.issuers.lab import Lab
from tests.issuers.orders import order
from tests.issuers.proxy import proxied
from tests.issuers.serving import serving


def connector(
    folder: Path, fake: FakeGoogleCas, url: str, token_uri: str, number: int = 0, **options: Any
) -> Connector:
    """The connector with a key of the service account, by number."""
    path = secret_file(folder, f"account-{number}.json", key_file(token_uri, number))
    values = {
        "project": "example-project", "location": "europe-west3", "pool": "devices",
        "authority": "ca-1", "credentials_path": path, "url": url,
    }  # fmt: skip
    return build(folder, "google-cas", fake.ca.certificate, values | options)


@asynccontextmanager
async def lab(folder: Path) -> AsyncIterator[Lab]:
    """See `Lab`; `folder` has a configuration, scepstream.toml."""
    fake = FakeGoogleCas()
    async with serving(fake.app) as port, proxied(port, r"^POST .*/certificates\?") as proxy:
        token_uri = f"http://127.0.0.1:{port}/token"
        found = connector(folder, fake, proxy.url, token_uri)
        denied = connector(folder, fake, proxy.url, token_uri, 1)
        private = [
            key_file(token_uri, number).split("PRIVATE KEY-----")[1][3:67] for number in (0, 1)
        ]
        refused = order(fake.ca.certificate, "device.forbidden.example")
        yield Lab(
            found, fake.ca.everything, fake.ca.is_revoked, proxy, refused=refused, denied=denied,
            secrets=(TOKEN, *private),
        )  # fmt: skip
        await found.close()
        await denied.close()
