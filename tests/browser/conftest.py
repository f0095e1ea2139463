"""What the tests of the page share: one browser, one system, and what happened on it before."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from playwright.sync_api import Browser, Page, sync_playwright

from cli.fake_microsoft.fake import FakeMicrosoft
from cli.up.authority import make_ca
from tests.browser.devices import AUDIENCE, Fleet, write_branch_anchor
from tests.browser.pages import Desktop, Watch
from tests.browser.past import ANCHOR_DAYS, CONTOSO, Past, add_token
from tests.support.prepared import add_profiles, prepared
from tests.support.system import System, running
from tests.support.tools import need

# Package and not session: playwright's loop must not run on under other suites' async tests.
SCOPE: Final = "package"
ARGUMENTS: Final = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", help="keep pictures of the page in this directory")


@pytest.fixture(scope=SCOPE)
def microsoft(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeMicrosoft]:
    """Microsoft's side of the tenant contoso."""
    with FakeMicrosoft(tmp_path_factory.mktemp("microsoft")) as found:
        yield found


@pytest.fixture(scope=SCOPE)
def system(tmp_path_factory: pytest.TempPathFactory, microsoft: FakeMicrosoft) -> Iterator[System]:
    """Two validators, and a profile for each thing that the page tells of profiles."""
    layout = prepared(tmp_path_factory.mktemp("browser") / "data")
    write_branch_anchor(layout.root / "connector" / "branch.pem", ANCHOR_DAYS)
    contoso = layout.root / "connector" / "contoso.pem"
    write_branch_anchor(contoso, 5 * ANCHOR_DAYS, "Connector of Contoso")
    ca = make_ca("ec:p256", time.time()).certificate
    (layout.root / "ca" / "clients.pem").write_bytes(ca.public_bytes(Encoding.PEM))
    add_profiles(
        layout,
        {
            "manual": {"approval": "manual"},
            "kiosks": {
                "renewal_window": "0s",
                "mtls_enabled": True,
                "mtls_client_ca_trust_bundle_path": "ca/clients.pem",
            },
            "branch": {
                "challenge_password": [],
                "intune_enabled": True,
                "intune_connector_cert_path": "connector/branch.pem",
                f'intune_tenant_cert_paths."{CONTOSO}"': "connector/contoso.pem",
                "intune_audience": AUDIENCE,
                "intune_per_device_rate_limit_24h": 0,
            },
            "windows": {"challenge_password": [], "intune_connection": "contoso"},
        },
    )
    layout.config.write_text(layout.config.read_text() + microsoft.configuration())
    options = ("--validators", "2", "--tls-port", "0", "--mtls-port", "0")
    with running(layout.root, *options) as found:
        yield found


@pytest.fixture(scope=SCOPE)
def tokens(system: System) -> dict[str, str]:
    """A token of each level that looks at the page."""
    return {
        level: add_token(system, name, level)
        for name, level in (("service-desk", "viewer"), ("pki-desk", "operator"))
    }


@pytest.fixture(scope=SCOPE)
def fleet(system: System) -> Fleet:
    return Fleet(system)


@pytest.fixture(scope=SCOPE)
def past(fleet: Fleet) -> Past:
    """What is on record before a test looks."""
    return Past.of(fleet)


@pytest.fixture(scope=SCOPE)
def browser() -> Iterator[Browser]:
    path = need("chromium", "chromium")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture(scope=SCOPE)
def desktop(browser: Browser, system: System, tokens: dict[str, str]) -> Desktop:
    return Desktop(browser, Watch(system.run["admin_url"]), tokens)


@pytest.fixture
def watch(desktop: Desktop) -> Watch:
    return desktop.watch


@pytest.fixture(autouse=True)
def _nothing_to_complain_of(watch: Watch) -> Iterator[None]:
    """In no test: an error in the console or in a script, a broken policy, another host."""
    yield
    assert watch.take() == []


@pytest.fixture
def operator(desktop: Desktop) -> Iterator[Page]:
    """A page of somebody who may give commands."""
    with desktop.page("operator") as found:
        yield found


@pytest.fixture
def viewer(desktop: Desktop) -> Iterator[Page]:
    """A page of somebody who may look."""
    with desktop.page("viewer") as found:
        yield found


@pytest.fixture
def stranger(desktop: Desktop) -> Iterator[Page]:
    """A page of nobody known."""
    with desktop.page() as found:
        yield found


@pytest.fixture
def pictures(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where pictures go: into `--screenshots`, where that was given."""
    wanted = request.config.getoption("--screenshots", default=None)
    if wanted is None:
        return tmp_path
    found = Path(wanted)
    found.mkdir(parents=True, exist_ok=True)
    return found
