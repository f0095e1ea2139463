"""A fake of AWS Private CA behind boto3's own client."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from services.issuer.connectors.connector import Connector
from tests.issuers.building import build, secret_file
from tests.issuers.fake_aws_pca import ARN, FakeAwsPca
from tests.issuers.lab import Lab
from tests.issuers.orders import order
from tests.issuers.proxy import proxied
from tests.issuers.serving import serving

KEY, SECRET, WRONG = "AKIDOFTHEISSUER", "s3cret-of-the-issuer", "s3cret-of-nobody"


def connector(
    folder: Path, fake: FakeAwsPca, url: str, secret: str = SECRET, **options: Any
) -> Connector:
    """The connector with a secret key, from a credentials file of its own."""
    text = f"[issuer]\naws_access_key_id = {KEY}\naws_secret_access_key = {secret}\n"
    path = secret_file(folder, f"{secret[-8:]}.credentials", text)
    values = {"authority_arn": ARN, "profile": "issuer", "credentials_path": path, "url": url}
    return build(folder, "aws-pca", fake.ca.certificate, values | options)


@asynccontextmanager
async def lab(folder: Path) -> AsyncIterator[Lab]:
    """See `Lab`; `folder` has a configuration, scepstream.toml."""
    fake = FakeAwsPca({KEY: SECRET})
    async with serving(fake.app) as port, proxied(port, "^POST /") as proxy:
        found = connector(folder, fake, proxy.url)
        denied = connector(folder, fake, proxy.url, WRONG)
        ends = int(fake.ca.certificate.not_valid_after_utc.timestamp())
        long = order(fake.ca.certificate, not_after=ends + 86400)
        yield Lab(
            found, fake.ca.everything, fake.ca.is_revoked, proxy, refused=long, denied=denied,
            secrets=(SECRET, WRONG),
        )  # fmt: skip
        await found.close()
        await denied.close()
