"""The commands of README and documents, run as they stand but for addresses, secret and place."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from shared.config.load import load
from tests.support.system import System, wait_until
from tests.support.tools import need

ROOT = Path(__file__).parents[2]
PLAIN_URL = "http://127.0.0.1:8080/scep"


def commands(word: str, page: str = "README.md") -> list[str]:
    """A page's lines of shell that begin with this word, continuation lines joined."""
    text = (ROOT / page).read_text().replace("\\\n", " ")
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    return [line for line in blocks.splitlines() if line.startswith(word)]


def run(line: str, system: System, directory: Path) -> subprocess.CompletedProcess[str]:
    line = line.replace(PLAIN_URL, system.run["scep_url"])
    line = line.replace("CHALLENGE", system.challenge()).replace("data/", f"{system.data}/")
    program = f"{shlex.quote(sys.executable)} -m cli"
    line = line.replace(".venv/bin/scepstream", program)
    line = (
        f"{program} {line.removeprefix('scepstream ')}" if line.startswith("scepstream ") else line
    )
    environment = {**os.environ, "SCEPSTREAM_CONFIG": str(system.config), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["sh", "-e", "-c", line], cwd=directory, env=environment, timeout=120,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_our_own_client_and_the_record(system: System, tmp_path: Path) -> None:
    enroll, signed, listing, show = commands(".venv/bin/scepstream")

    for line, device in ((enroll, "device-1"), (signed, "device-2")):
        enrolled = run(line, system, tmp_path)
        assert enrolled.returncode == 0, enrolled.stderr
        assert (tmp_path / device / "cert.pem").exists()

    def recorded() -> bool:
        return "CertificateIssued" in run(show, system, tmp_path).stdout

    wait_until(recorded, 30, "the enrollment in the record")
    listed = run(listing, system, tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert "issued" in listed.stdout


def test_strongswan(system: System, tmp_path: Path) -> None:
    need("pki", "strongswan-pki")
    for line in commands("pki"):
        done = run(line, system, tmp_path)
        assert done.returncode == 0, done.stderr
    assert "BEGIN CERTIFICATE" in (tmp_path / "cert.pem").read_text()


def test_challenges_are_made_listed_and_taken_back_as_the_page_tells(
    system: System, tmp_path: Path
) -> None:
    *before, cancel = commands("scepstream", "docs/challenges.md")
    for line in before:
        done = run(line, system, tmp_path)
        assert done.returncode == 0, (line, done.stderr)
    listed = run(f"{before[-1]} --json", system, tmp_path).stdout.splitlines()
    (made,) = (each for each in map(json.loads, listed) if each["cn"] == "printer-7")
    done = run(cancel.replace("ID", made["id"]), system, tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_consumer_of_the_page_replays_the_log(system: System, tmp_path: Path) -> None:
    """As a stranger runs it: a file of its own, the reader's key, plain nats-py."""
    (enroll, *_) = commands(".venv/bin/scepstream")
    assert run(enroll.replace("device-1", "device-9"), system, tmp_path).returncode == 0
    page = (ROOT / "docs/consumers.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "consumer.py").write_text(program)
    url, seed = load(system.config, {}).bus.url[0], system.data / "keys" / "reader.nkey"
    done = subprocess.run(
        [sys.executable, "consumer.py", url, seed],
        cwd=tmp_path, timeout=60, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "issued " in done.stdout
