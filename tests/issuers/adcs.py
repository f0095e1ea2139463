"""A fake of AD CS web enrollment behind HTTP Basic: English pages, certificates at once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from services.issuer.connectors.adcs import AdcsConnector
from tests.issuers.building import build, secret_file
from tests.issuers.fake_adcs import DENIED, TEMPLATE, Basic, FakeAdcs
from tests.issuers.lab import Lab
from tests.issuers.orders import order
from tests.issuers.proxy import proxied
from tests.issuers.serving import serving

USER: Final = "CORP\\scepstream"
PASSWORD: Final = "the-p4ssword-of-the-account"
WRONG: Final = "another-p4ssword"
PLACING: Final = r"^POST /certsrv/certfnsh\.asp"


def connector(
    folder: Path, fake: FakeAdcs, url: str, password: str = PASSWORD, **options: Any
) -> AdcsConnector:
    """The connector with a password, by default with HTTP Basic."""
    values = {
        "url": url,
        "template": TEMPLATE,
        "auth": "basic",
        "username": USER,
        "password_path": secret_file(folder, f"{len(password)}.txt", password),
    }
    values |= options
    given = {key: value for key, value in values.items() if value is not None}
    made = build(folder, "adcs", fake.ca.certificate, given)
    assert isinstance(made, AdcsConnector)
    return made


@asynccontextmanager
async def lab(folder: Path) -> AsyncIterator[Lab]:
    """See `Lab`; `folder` has a configuration, scepstream.toml."""
    fake = FakeAdcs()
    async with (
        serving(Basic(fake.app(), f"{USER}:{PASSWORD}")) as port,
        proxied(port, PLACING) as proxy,
    ):
        found = connector(folder, fake, proxy.url)
        denied = connector(folder, fake, proxy.url, WRONG)
        yield Lab(
            found, fake.ca.everything, fake.ca.is_revoked, proxy,
            refused=order(fake.ca.certificate, DENIED), denied=denied, revokes=False,
            secrets=(PASSWORD, WRONG),
        )  # fmt: skip
        await found.close()
        await denied.close()
