"""step-ca's API from `fake_step_ca.py`."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from joserfc.jwk import ECKey

from services.issuer.connectors.connector import Connector
from tests.issuers.building import build, secret_file
from tests.issuers.fake_step_ca import NAME, FakeStepCa
from tests.issuers.lab import Lab
from tests.issuers.orders import order
from tests.issuers.proxy import proxied
from tests.issuers.serving import serving


def private(key: ECKey) -> str:
    """The key as `step crypto jwk decrypt` writes it."""
    return json.dumps(key.as_dict(private=True), indent=2)


def connector(folder: Path, fake: FakeStepCa, url: str, key: ECKey | None = None) -> Connector:
    """The connector with the provisioner's key, or with another one."""
    key = key or fake.key
    path = secret_file(folder, f"{key.thumbprint()}.jwk", private(key))
    options = {"url": url, "provisioner": NAME, "provisioner_key_path": path}
    return build(folder, "step-ca", fake.ca.certificate, options)


@asynccontextmanager
async def lab(folder: Path) -> AsyncIterator[Lab]:
    """See `Lab`; `folder` has a configuration, scepstream.toml."""
    fake = FakeStepCa()
    async with (
        serving(fake.app()) as port,
        proxied(port, r"^POST /1\.0/sign$") as proxy,
    ):
        found = connector(folder, fake, proxy.url)
        other = ECKey.generate_key("P-256", {"kid": fake.key.kid})
        denied = connector(folder, fake, proxy.url, other)
        long = order(fake.ca.certificate)
        long = order(fake.ca.certificate, not_after=long.template.not_after + 86400 * 300)
        secrets = tuple(str(key.as_dict(private=True)["d"]) for key in (fake.key, other))
        yield Lab(
            found, fake.ca.everything, fake.ca.is_revoked, proxy,
            refused=long, denied=denied, secrets=secrets, knows_serials=False,
        )  # fmt: skip
        await found.close()
        await denied.close()
