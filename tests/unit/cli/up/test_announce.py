"""What `up` says, and what it keeps to itself where nobody looks."""

from pathlib import Path
from typing import Any

import pytest

from cli.up.announce import announce
from cli.up.firststart import first_start
from cli.up.layout import Layout
from tests.support.world import NOW


@pytest.fixture
def run(tmp_path: Path) -> dict[str, Any]:
    layout = Layout(tmp_path / "data[/]")
    first_start(layout, "ec:p256", None, 4222, NOW)
    url = "http://127.0.0.1:1/scep"
    return {
        "profiles": {"demo": {"url": f"{url}/demo", "challenge": "s3cret-challenge"}},
        "urls": [url], "tls_urls": [], "mtls_urls": [], "admin_url": "http://127.0.0.1:2",
        "admin_token_file": str(layout.admin_token), "ca_file": str(layout.ca_cert),
    }  # fmt: skip


def test_challenges_are_printed_where_they_are_asked_for(
    run: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    announce(run, secrets=True)
    said = capsys.readouterr().out
    assert "--challenge s3cret-challenge --cn device-1" in said
    assert str(run["ca_file"]) in said  # a path is no markup


def test_elsewhere_the_file_that_holds_them_is_named(
    run: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    announce(run, secrets=False)
    said = capsys.readouterr().out
    assert "s3cret-challenge" not in said
    run_file = Path(run["admin_token_file"]).with_name("run.json")
    assert f"passwords  in {run_file}, or shown with --show-secrets\n" in said
    assert "--challenge CHALLENGE --cn device-1" in said
