"""Documents that are made from code are equal to what the code makes today."""

import re
from pathlib import Path

from cli import limits
from cli.asyncapi import document
from cli.reference import render
from cli.verify import render_asyncapi
from shared.bus.provision import server_config
from shared.log.catalog import EVENT_TYPES
from shared.log.roles import Role
from tests.unit.documents import EXAMPLE_USERS

ROOT = Path(__file__).parents[2]


def test_the_configuration_reference_is_that_of_the_classes() -> None:
    assert (ROOT / "docs/configuration.md").read_text() == render()


def test_the_page_of_limits_is_that_of_the_table() -> None:
    assert (ROOT / "docs/limits.md").read_text() == limits.render()


def test_the_asyncapi_document_is_that_of_the_events() -> None:
    assert (ROOT / "docs/asyncapi.json").read_text() == render_asyncapi()


def test_every_event_of_the_log_stands_in_the_asyncapi_document() -> None:
    """But for those that only validators and issuers keep for each other."""
    private = {"CaChain", "CrlPublished", "OcspResponseSigned", "ChallengeClaimed",
               "DeviceCounted", "Heartbeat", "GatewayHeartbeat", "StreamMeasured",
               "NoticeBegun", "LeaseTaken"}  # fmt: skip

    assert set(document()["components"]["messages"]) == set(EVENT_TYPES) - private


def test_the_example_of_the_servers_configuration_is_that_of_the_topology() -> None:
    expected = server_config(EXAMPLE_USERS, ["0"], Path("/var/lib/nats"), "127.0.0.1:4222", "100ms")
    assert (ROOT / "deploy/nats/nats-server.example.conf").read_text() == expected


def test_every_role_has_an_example_key() -> None:
    assert {user.role for user in EXAMPLE_USERS} == set(Role)


def test_links_between_documents_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?m)(?:`|^)make ([a-z]+)", (ROOT / "README.md").read_text()):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
