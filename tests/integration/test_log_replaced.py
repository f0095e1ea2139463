"""The log's store is put back to an older copy under a database that knows more."""

import json
import shutil
from pathlib import Path

import httpx

from tests.support.system import System, running, scepstream, wait_until


def enroll(system: System, name: str) -> None:
    command = ("enroll", system.url(), "--challenge", system.challenge(), "--cn", name)
    out = ("--ca-file", str(system.ca_file), "--out", str(system.data.parent / name))
    done = scepstream(*command, *out)
    assert done.returncode == 0, done.stderr


def audit(system: System, *command: str) -> tuple[int, str]:
    done = scepstream("audit", *command, "--config", str(system.config))
    return done.returncode, done.stdout + done.stderr


def missing(system: System) -> str:
    answer = httpx.get(f"{system.run['admin_url']}/readyz", timeout=5)
    return "" if answer.is_success else answer.text


def listed(system: System) -> str:
    return audit(system, "list", "--json")[1]


def test_an_older_log_is_told_and_the_database_can_be_made_to_agree_with_it(
    tmp_path: Path,
) -> None:
    data, copy, lost = tmp_path / "data", tmp_path / "copy", tmp_path / "lost.jsonl"
    with running(data) as system:
        enroll(system, "before")
        wait_until(lambda: "before" in listed(system), 30, "the record")
    shutil.copytree(data / "nats" / "jetstream", copy)
    with running(data) as system:
        enroll(system, "forgotten")
        wait_until(lambda: "forgotten" in listed(system), 30, "the record")
    shutil.rmtree(data / "nats" / "jetstream")
    shutil.copytree(copy, data / "nats" / "jetstream")

    with running(data) as system:  # devices are served although the audit service is not ready
        enroll(system, "after")
        assert "recorder of ENROLL_0" in missing(system)
        status, said = audit(system, "verify")
        assert status == 1
        assert "audit reconcile" in said

        status, said = audit(system, "reconcile", "--yes", "--lost", str(lost))
        assert status == 0, said
        kinds = [json.loads(line)["type"] for line in lost.read_text().splitlines()]
        assert "CertificateIssued" in kinds
        wait_until(lambda: not missing(system), 30, "the audit service to be ready")
        assert "after" in listed(system)
        assert "forgotten" not in listed(system)
        assert audit(system, "verify")[0] == 0
