"""What the integration tests share: three running systems and their profiles."""

import time
import tomllib
from collections.abc import Iterator

import pytest
import tomli_w
from cryptography.hazmat.primitives.serialization import Encoding

from cli.fake_microsoft.fake import FakeMicrosoft
from cli.up.authority import make_ca, pem
from cli.up.layout import Layout, write_private
from tests.integration.intune_devices import CONNECTIONS, KINDS, PROFILES, Intune
from tests.support.prepared import add_kinds, add_profiles, configure, prepared
from tests.support.requests import Endpoint
from tests.support.system import System, running

PROXY = "127.0.0.9"
LONG_CHALLENGE = "MIIHzAYJ+/8=" * 1365 + "ABC="


@pytest.fixture(scope="session")
def demo(system: System) -> Endpoint:
    """The profile that follows today's rules."""
    return Endpoint.of(system, "demo")


@pytest.fixture(scope="session")
def legacy(system: System) -> Endpoint:
    """The profile that also takes SHA-1 and DES."""
    return Endpoint.of(system, "legacy")


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Three gateways, on TLS and mTLS too, and a profile for each switch there is."""
    layout = prepared(tmp_path_factory.mktemp("wide") / "data")
    add_kinds(
        layout,
        {
            "dying": {"max_ttl": "2m", "backdate": "50m"},  # in its last third from the start
            "blink": {"max_ttl": "1s"},
            "longest": {"max_ttl": "1000d"},  # longer than the issuer signs
        },
    )
    add_profiles(
        layout,
        {
            "anytime": {"renewal_window": "0s"},
            "reusing": {"renewal_window": "0s", "renewal_key_reuse": True, "renewal_names": "any"},
            "asking": {"renewal_window": "0s", "renewal_challenge": True},
            "final": {"renewal": False},
            "stapling": {"staple_ocsp": True},
            "dying": {"profile_id": "dying"},
            "blink": {"profile_id": "blink"},
            "longest": {"profile_id": "longest"},
            "grace": {"profile_id": "blink", "renewal_grace": "1h"},
            "manual": {"approval": "manual", "renewal_window": "0s"},
            "long": {
                "challenge_password": LONG_CHALLENGE,
                "message_limit": 262144,
                "renewal_window": "0s",
            },
            "password": {"password_recipients": True, "renewal_window": "0s"},
            "north": _site(layout, "north"),
            "south": _site(layout, "south"),
        },
    )
    configure(layout.config, "gateway", trusted_proxies=[PROXY])
    configure(layout.config, "issuers.local", ocsp_validity="4d")
    ports = ("--tls-port", "0", "--mtls-port", "0")
    with running(layout.root, "--gateways", "3", *ports) as found:
        yield found


@pytest.fixture(scope="session")
def intune_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Intune]:
    """Two gateways, and profiles with connections to the tenants of a fake of Microsoft."""
    layout = prepared(tmp_path_factory.mktemp("intune") / "data")
    add_kinds(layout, KINDS)
    add_profiles(layout, PROFILES)
    configure(layout.config, "issuers.local", ocsp_validity="1d", allow_sid=True)
    with FakeMicrosoft(tmp_path_factory.mktemp("microsoft")) as fake:
        tenants = tomllib.loads(fake.configuration())["intune"]
        for name, (tenant, keys) in CONNECTIONS.items():
            tenants[name] = tenants[tenant] | keys | {"revocations": False}
        text = layout.config.read_text() + tomli_w.dumps({"intune": tenants})
        write_private(layout.config, text.encode())
        with running(layout.root, "--gateways", "2") as system:
            yield Intune(system, fake)


@pytest.fixture
def intune(intune_system: Intune) -> Intune:
    """The system with Intune, after the faults and scripted answers of other tests."""
    intune_system.fake.clear_faults()
    for route in ("validate", "success", "failure"):
        intune_system.fake.answer(route)
    return intune_system


def _site(layout: Layout, name: str) -> dict[str, object]:
    """A profile whose mTLS sibling takes the clients of a CA of its own."""
    ca = make_ca("ec:p256", time.time())
    write_private(layout.root / "ca" / f"{name}.pem", ca.certificate.public_bytes(Encoding.PEM))
    write_private(layout.root / "ca" / f"{name}.key", pem(ca.key))
    return {"mtls_enabled": True, "mtls_client_ca_trust_bundle_path": f"ca/{name}.pem"}
