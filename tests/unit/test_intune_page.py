"""docs/intune.md agrees with the code: its configuration loads, its tables are complete."""

import re
import shutil
import subprocess
import time
import tomllib
from pathlib import Path

from services.validator.microsoft.clouds import CLOUDS
from services.validator.microsoft.connection import read_connection
from services.validator.microsoft.hints import AADSTS
from services.validator.microsoft.verdicts import VERDICTS
from shared.config.load import load
from shared.log.reasons import Reason
from tests.support.prepared import prepared

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/intune.md").read_text()
ZEROS = "0" * 64


def blocks(language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", PAGE, re.DOTALL | re.MULTILINE)


def rows(first: str) -> dict[str, str]:
    """The second cell of each table row whose first cell matches."""
    return dict(re.findall(rf"^ *\| `?({first})`? \| `?([^|`]+?)`? \|", PAGE, re.MULTILINE))


def test_the_configuration_of_the_page_loads(tmp_path: Path) -> None:
    layout = prepared(tmp_path / "data")
    pin = tomllib.loads(layout.config.read_text())["profiles"]["demo"]["ca_spki_sha256"]
    (example,) = blocks("toml")
    layout.config.write_text(layout.config.read_text() + "\n" + example.replace(ZEROS, pin))
    (make_key,) = (each for each in blocks("sh") if each.lstrip().startswith("openssl req"))
    assert shutil.which("openssl")
    subprocess.run(["sh", "-e", "-c", make_key], cwd=layout.root, check=True, capture_output=True)

    configuration = load(layout.config, {})
    connection = read_connection(configuration, "contoso")

    assert configuration.profiles["laptops"].intune_connection == "contoso"
    (credential,) = connection.credentials
    assert credential.not_after > time.time() + 360 * 86400


def test_every_code_of_intune_has_its_row_and_reason() -> None:
    found = rows(r"[A-Z][A-Za-z]{9,}")

    assert {code: found[code] for code in VERDICTS} == {
        code: verdict.reason for code, verdict in VERDICTS.items()
    }


def test_every_number_of_entra_has_its_row() -> None:
    assert {int(each) for each in re.findall(r"^\| AADSTS(\d+) \|", PAGE, re.MULTILINE)} == {
        *AADSTS
    }


def test_every_reason_of_a_code_is_explained() -> None:
    explained = rows("[a-z_]+")
    used = {verdict.reason for verdict in VERDICTS.values()}

    assert used <= explained.keys()
    assert {Reason.NOT_CONFIRMED, Reason.SERVICE_UNAVAILABLE} <= explained.keys()


def test_every_cloud_is_named_with_its_hosts() -> None:
    for name, cloud in CLOUDS.items():
        (row,) = re.findall(rf"^\| `{name}`.*$", PAGE, re.MULTILINE)
        for url in (cloud.login_url, cloud.graph_url, *cloud.service_hosts):
            assert url.removeprefix("https://").rstrip("/") in row


def test_every_alert_of_the_page_is_a_rule() -> None:
    section = PAGE[PAGE.index("## Metrics and alerts") : PAGE.index("## Limits")]
    alerts = (ROOT / "deploy/prometheus/alerts.yml").read_text()
    named = set(re.findall(r"`([A-Z][A-Za-z]+)`", section))

    assert named
    assert all(f"alert: {name}\n" in alerts for name in named)
