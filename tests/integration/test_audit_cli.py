"""`scepstream audit`: what happened to a device, from the record alone."""

import json
import os
import stat
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.requests import (
    Device,
    Endpoint,
    ask,
    enroll,
    listed,
    recorded,
    shown,
)
from tests.support.system import System, scepstream, wait_until

STORY = {
    "EnrollmentRequested": 1,
    "EnrollmentApproved": 1,
    "CertificateRecorded": 2,  # under its serial, and under its key
    "CertificateIssued": 1,
}


@dataclass(frozen=True)
class Past:
    """What was done before the record is asked."""

    system: System
    issued: Device
    refused: Device
    serial: str

    @property
    def config(self) -> tuple[str, str]:
        return "--config", str(self.system.config)


@pytest.fixture(scope="module")
def past(system: System, demo: Endpoint, legacy: Endpoint) -> Past:
    """One device that was enrolled on demo, one that was refused on legacy."""
    issued = Device.new()
    refused = Device(issued.identity)
    serial = f"{enroll(demo, issued).serial_number:x}"
    ask(legacy, refused.enrollment(legacy, refused.csr("wrong-challenge")))
    recorded(system, refused, "rejected")
    recorded(system, issued, "issued")
    return Past(system, issued, refused, serial)


@pytest.fixture(scope="module")
def everything(past: Past) -> list[dict[str, Any]]:
    """The whole list."""
    return listed(past.system)


@pytest.fixture(scope="module")
def events(past: Past) -> list[dict[str, Any]]:
    """The events of the enrollment that was issued; each stream is recorded by itself."""

    def whole() -> list[dict[str, Any]]:
        found = shown(past.system, past.issued.transaction.decode())
        return found if len(found) >= sum(STORY.values()) else []

    found = list(wait_until(whole, 20, "the whole story"))
    assert Counter(event["type"] for event in found) == STORY
    return found


@pytest.fixture(scope="module")
def story(events: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same by type."""
    return {event["type"]: event for event in events}


def test_the_list_tells_of_every_enrollment_newest_first(
    past: Past, everything: list[dict[str, Any]]
) -> None:
    times = [line["requested_at"] for line in everything]
    assert times == sorted(times, reverse=True)
    by_transaction = {line["transaction_id"]: line for line in everything}
    issued = by_transaction[past.issued.transaction.decode()]
    assert (issued["profile"], issued["state"], issued["result"]) == ("demo", "issued", "issued")
    assert issued["serial"].lstrip("0") == past.serial
    assert past.issued.name in issued["device"]
    refused = by_transaction[past.refused.transaction.decode()]
    assert (refused["profile"], refused["state"], refused["result"], refused["serial"]) == (
        "legacy",
        "rejected",
        "challenge_wrong",
        "",
    )


def test_the_list_is_a_table_for_people(past: Past) -> None:
    transaction = past.issued.transaction.decode()
    done = past.system.cli("audit", "list", "--search", transaction, *past.config)
    assert done.returncode == 0
    for heading in ("time (UTC)", "profile", "device", "state", "result", "serial"):
        assert heading in done.stdout
    assert "issued" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_list_is_as_long_as_asked(past: Past, everything: list[dict[str, Any]]) -> None:
    assert listed(past.system, "--limit", "1") == everything[:1]


def test_a_list_of_one_profile_holds_no_other(past: Past) -> None:
    found = listed(past.system, "--profile", "legacy")
    assert {line["profile"] for line in found} == {"legacy"}
    assert past.refused.transaction.decode() in {line["transaction_id"] for line in found}
    assert listed(past.system, "--profile", "nobody") == []


@pytest.mark.parametrize("by", ["transaction", "device", "serial", "enrollment"])
def test_a_search_finds_the_one_enrollment(past: Past, by: str) -> None:
    line = recorded(past.system, past.issued, "issued")
    wanted = {
        "transaction": line["transaction_id"],
        "device": past.issued.name[:-2].upper(),
        "serial": line["serial"].upper(),
        "enrollment": line["enrollment"],
    }
    assert listed(past.system, "--search", wanted[by]) == [line]


@pytest.mark.parametrize("search", ["no-such-device", "%"])
def test_a_search_that_fits_nothing_is_an_empty_list(past: Past, search: str) -> None:
    assert listed(past.system, "--search", search) == []


def test_the_story_of_a_certificate_has_every_event(
    past: Past, story: dict[str, dict[str, Any]]
) -> None:
    requested, approved = story["EnrollmentRequested"], story["EnrollmentApproved"]
    assert requested["client_address"] == "127.0.0.1"
    assert requested["gateway"] == approved["gateway"] == "gateway-0"
    assert requested["transaction_id"] == past.issued.transaction.decode()
    assert approved["facts"]["key_bits"] == 2048
    assert all(gate["passed"] for gate in approved["gates"])
    assert story["CertificateIssued"]["serial"].lstrip("0") == past.serial
    digests = {event["request_sha256"] for event in story.values() if event is not requested}
    assert len(digests) == 1


def test_every_event_of_a_story_names_its_subject_on_the_log(
    past: Past, events: list[dict[str, Any]], story: dict[str, dict[str, Any]]
) -> None:
    subjects = {kind: event["subject"] for kind, event in story.items()}
    prefix = recorded(past.system, past.issued, "issued")["enrollment"]
    assert subjects["EnrollmentRequested"] == f"{prefix}.request"
    assert subjects["EnrollmentApproved"] == f"{prefix}.verdict"
    assert subjects["CertificateIssued"] == f"{prefix}.outcome"
    recorded_as = {e["subject"] for e in events if e["type"] == "CertificateRecorded"}
    serial = story["CertificateIssued"]["serial"]
    key = story["EnrollmentApproved"]["facts"]["spki_sha256"]
    assert recorded_as == {f"cert.local.{serial}.issued", f"key.{key}.issued.local.{serial}"}


def test_a_refusal_is_told_with_every_gate_and_no_challenge(past: Past, legacy: Endpoint) -> None:
    requested, rejected = shown(past.system, past.refused.transaction.decode())
    assert requested["type"] == "EnrollmentRequested"
    assert (rejected["type"], rejected["reason"]) == ("EnrollmentRejected", "challenge_wrong")
    gates = {gate["gate"]: gate["passed"] for gate in rejected["gates"]}
    passed = {"key": True, "subject": True, "sans": True, "compromise": True}
    assert gates == passed | {"challenge": False}
    for secret in ("wrong-challenge", legacy.challenge):
        assert secret not in json.dumps([requested, rejected])


def test_a_story_is_readable_for_people(past: Past) -> None:
    done = past.system.cli("audit", "show", past.issued.transaction.decode(), *past.config)
    assert done.returncode == 0
    for event in STORY:
        assert event in done.stdout
    assert "client_address: 127.0.0.1" in done.stdout
    assert "ENROLL_0#" in done.stdout
    assert max(map(len, done.stdout.splitlines())) < 1000


@pytest.mark.parametrize(
    ("wanted", "form"),
    [("no-such-device", ()), ("no-such-device", ("--json",)), ("%", ()), ("", ())],
)
def test_what_is_not_on_record_is_said_so_with_status_1(
    past: Past, wanted: str, form: tuple[str, ...]
) -> None:
    done = past.system.cli("audit", "show", wanted, *form, *past.config)
    assert done.returncode == 1
    assert "no enrollment found" in done.stderr
    assert "Traceback" not in done.stderr


def certs(past: Past, *arguments: str) -> list[dict[str, Any]]:
    done = past.system.cli("certs", *arguments, "--json", *past.config)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_inventory_lists_what_was_issued_by_what_became_of_it(past: Past) -> None:
    found = certs(past, "list", "--profile", "demo", "--view", "valid")
    (row,) = (each for each in found if each["serial"] == past.serial)
    assert (row["state"], row["not_renewed"]) == ("valid", False)
    for wanted in (("--view", "expiring"), ("--view", "not_renewed"), ("--fleet", "none")):
        assert past.serial not in [each["serial"] for each in certs(past, "list", *wanted)]
    soon = certs(past, "list", "--view", "expiring", "--days", "400", "--issuer", "local")

    assert past.serial in [each["serial"] for each in soon]
    assert certs(past, "show", past.serial.upper()) == [row]
    done = scepstream("certs", "list", *past.config, env={**os.environ, "COLUMNS": "250"})
    assert (done.returncode, past.serial in done.stdout) == (0, True)
    for wanted, complaint in (("ff", "no certificate found: ff"), ("x", "serial")):
        done = past.system.cli("certs", "show", wanted, *past.config)
        assert (done.returncode, complaint in done.stderr) == (1, True)
        assert "Traceback" not in done.stderr


def test_a_missing_configuration_is_one_sentence_and_status_1(tmp_path: Path) -> None:
    for command in (("list",), ("show", "x")):
        done = scepstream("audit", *command, "--config", str(tmp_path / "none.toml"))
        assert done.returncode == 1
        assert "none.toml" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [("list",), ("show", "x"), ("verify",), ("checkpoint",)])
def test_a_missing_database_is_one_sentence_and_none_is_made(
    past: Past, tmp_path: Path, command: tuple[str, ...]
) -> None:
    missing = tmp_path / "none.db"
    environment = {**os.environ, "SCEPSTREAM_AUDIT_DATABASE_URL": f"sqlite:///{missing}"}
    done = scepstream("audit", *command, *past.config, env=environment)

    assert done.returncode == 1
    assert f"no database at {missing}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not missing.exists()


def test_the_database_is_for_its_owner_alone(past: Past) -> None:
    files = list(past.system.data.glob("audit.db*"))
    assert files
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
