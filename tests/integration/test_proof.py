"""Replay, verify and export against a running system: what was changed is found, and where."""

import asyncio
import json
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import nats
import pytest

from shared.config.keys import read_event_signer, read_nkey
from shared.config.load import load
from shared.log.envelope import sign
from shared.log.roles import Role
from tests.support import golden
from tests.support.prepared import add_profiles, command, prepared
from tests.support.requests import Device, Endpoint, ask, ended, enroll, recorded
from tests.support.rows import tables
from tests.support.system import System, running, scepstream, wait_until
from tests.support.tokens import token

Change = Callable[[sqlite3.Connection], str]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One with every kind of event in it, and a checkpoint."""
    layout = prepared(tmp_path_factory.mktemp("proof") / "data")
    add_profiles(layout, {"manual": {"approval": "manual"}})
    with running(layout.root) as found:
        populate(found)
        yield found


def populate(system: System) -> None:
    demo, corp, manual = (Endpoint.of(system, name) for name in ("demo", "corp", "manual"))
    config = ("--config", str(system.config))
    for _ in range(4):
        certificate = enroll(demo, Device.new())
        enroll(corp, device := Device.new(), csr=device.csr(token(system, device)))
    serial = f"{certificate.serial_number:x}"
    assert command("ca", "revoke", serial, "--reason", "keyCompromise", *config).returncode == 0
    refused = Device.new()
    ask(demo, refused.enrollment(demo, refused.csr("wrong")))
    held = Device.new()
    ask(manual, request := held.enrollment(manual))
    recorded(system, held, "held")
    assert command("approve", held.transaction.decode(), *config).returncode == 0
    ended(manual, request)
    assert command("challenge", "new", "--profile", "corp", *config).returncode == 0
    assert command("anchors", "reload", "--profile", "corp", *config).returncode == 0
    recorded(system, held, "issued")
    recorded(system, refused, "rejected")
    assert command("audit", "checkpoint", *config).returncode == 0


def verified(config: Path) -> tuple[int, list[str]]:
    """(exit status, findings) of `audit verify`."""
    done = scepstream("audit", "verify", "--all", "--config", str(config))
    assert done.stdout.splitlines(), done.stderr
    return done.returncode, done.stdout.splitlines()


def test_an_honest_log_and_database_hold(system: System) -> None:
    status, (summary,) = verified(system.config)

    assert status == 0
    assert summary.startswith("verified: ")
    assert "0 checkpoints" not in summary


@pytest.fixture(scope="module")
def grown(system: System, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint before which an enrollment began that ended after it, as another did."""
    config, path = ("--config", str(system.config)), tmp_path_factory.mktemp("after") / "kept.txt"
    held = Device.new()
    manual = Endpoint.of(system, "manual")
    ask(manual, request := held.enrollment(manual))
    recorded(system, held, "held")
    path.write_text(command("audit", "checkpoint", *config).stdout)
    assert command("approve", held.transaction.decode(), *config).returncode == 0
    ended(manual, request)
    enroll(Endpoint.of(system, "demo"), device := Device.new())
    for each in (held, device):
        recorded(system, each, "issued")
    return path


def verified_after(config: Path, checkpoint: Path) -> tuple[int, list[str]]:
    done = scepstream("audit", "verify", "--after", str(checkpoint), "--config", str(config))
    assert done.stdout.splitlines(), done.stderr
    return done.returncode, done.stdout.splitlines()


def test_the_keys_of_all_certificates_are_compared(system: System) -> None:
    done = command("audit", "keys", "--config", str(system.config))

    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"no shared primes: [1-9]\d* RSA keys?\n", done.stdout)


def test_what_follows_a_checkpoint_is_verified_by_itself(system: System, grown: Path) -> None:
    """Also of an enrollment that began before it."""
    status, (summary,) = verified_after(system.config, grown)
    _, (whole,) = verified(system.config)

    assert status == 0, summary
    events = [int(line.removeprefix("verified: ").split()[0]) for line in (summary, whole)]
    assert 5 + 5 <= events[0] < events[1] / 2


AFTER: dict[str, str] = {
    "an event's payload": (
        "update events set payload = x'7b7d' where sequence ="
        " (select max(sequence) from events where type = 'CertificateIssued')"
        " and type = 'CertificateIssued'"
    ),
    "a request's digest": (
        "update events set digest = x'00' where sequence ="
        " (select max(sequence) from events where type = 'EnrollmentRequested')"
        " and type = 'EnrollmentRequested'"
    ),
    "an event": (
        "delete from events where stream = 'CERTS' and sequence ="
        " (select max(sequence) from events where stream = 'CERTS')"
    ),
    "a digest": "update positions set digest = 'ab' where stream = 'CERTS'",
    "the position": "update positions set sequence = 1 where stream = 'CERTS'",
    "an invented event": (
        "insert into events select stream, sequence + 100000, subject, type, recorded_at, profile,"
        " enrollment, transaction_id, device, result, serial, digest, headers, payload from events"
        " where sequence = 1 and stream = 'CERTS'"
    ),
}


@pytest.mark.parametrize("kind", AFTER)
def test_a_change_after_the_checkpoint_is_found(
    system: System, grown: Path, tmp_path: Path, kind: str
) -> None:
    config = copied(system, tmp_path)
    with closing(sqlite3.connect(config.parent / "audit.db")) as connection, connection:
        assert connection.execute(AFTER[kind]).rowcount == 1
    status, findings = verified_after(config, grown)

    assert status == 1
    places = ("events ", "positions CERTS", "CERTS: the database ends at 1, before the checkpoint")
    assert findings[0].startswith(places), findings


def test_a_checkpoint_of_another_log_does_not_fit(
    system: System, grown: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.txt"
    lines = [line.split() for line in grown.read_text().splitlines()]
    other.write_text("".join(f"{name} {sequence} {'ab' * 32}\n" for name, sequence, _ in lines))
    status, findings = verified_after(system.config, other)

    assert status == 1
    assert any(finding.startswith("positions ENROLL_0") for finding in findings)


@pytest.mark.parametrize("text", ["ENROLL_0 1", "ELSEWHERE 1 -", "ENROLL_0 x -", "\xff"])
def test_a_file_without_checkpoints_is_refused_in_a_sentence(
    system: System, tmp_path: Path, text: str
) -> None:
    path = tmp_path / "kept.txt"
    path.write_bytes(text.encode("latin-1"))
    done = scepstream("audit", "verify", "--after", str(path), "--config", str(system.config))

    assert done.returncode == 2
    assert "--after" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_replay_equals_the_live_model_table_by_table(system: System, tmp_path: Path) -> None:
    into = f"sqlite:///{tmp_path}/new.db"
    config = ("--config", str(system.config))
    for _ in range(2):  # the second finds nothing to do
        assert command("audit", "replay", "--into", into, *config).returncode == 0

    assert tables(into) == tables(f"sqlite:///{system.data}/audit.db")


def test_a_replay_of_one_profile_has_that_profile_alone(system: System, tmp_path: Path) -> None:
    into = f"sqlite:///{tmp_path}/corp.db"
    options = ("--profile", "corp", "--config", str(system.config))
    first, second = (command("audit", "replay", "--into", into, *options) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0)
    assert f"stored {len(tables(into)['events'])} events in " in first.stdout
    assert "stored 0 events in " in second.stdout
    found, live = tables(into), tables(f"sqlite:///{system.data}/audit.db")

    corp = [row for row in live["enrollments"] if row[1] == "corp"]
    assert found["enrollments"] == corp
    assert len(corp) == 4


@pytest.mark.parametrize("form", ["jsonl", "cloudevents"])
def test_an_export_holds_every_event_once(system: System, form: str) -> None:
    done = command("audit", "export", "--format", form, "--config", str(system.config))
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    live = tables(f"sqlite:///{system.data}/audit.db")["events"]

    assert done.returncode == 0
    assert len(lines) >= len(live)
    assert {line["subject"] for line in lines} >= {row[2] for row in live}
    assert all(line["data"] for line in lines)


def run(statement: str, named: str) -> Change:
    """A change by SQL, and what the finding must name."""

    def change(connection: sqlite3.Connection) -> str:
        cursor = connection.execute(statement)
        assert cursor.rowcount != 0, statement
        return named

    return change


IN_SQL: dict[str, Change] = {
    "a refusal becomes a success": run(
        "update enrollments set state = 'issued' where state = 'rejected'", "enrollments"
    ),
    "a reason is changed": run(
        "update enrollments set reason = 'poison' where state = 'rejected'", "reason"
    ),
    "a device is renamed": run(
        "update enrollments set device = 'CN=other' where profile = 'corp'", "device is CN=other"
    ),
    "an enrollment is removed": run(
        "delete from enrollments where state = 'rejected'", "row is missing"
    ),
    "an enrollment is invented": run(
        "insert into enrollments (enrollment, profile, state, requested_at)"
        " values ('enroll.0.demo.x.y.0', 'demo', 'issued', 1)",
        "not derived from the log",
    ),
    "a time is moved": run(
        "update enrollments set requested_at = requested_at + 1", "requested_at"
    ),
    "an event's payload is altered": run(
        "update events set payload = x'7b7d' where type = 'CertificateIssued'", "payload"
    ),
    "the digest of a request is altered": run(
        "update events set digest = x'00' where type = 'EnrollmentRequested'", "digest"
    ),
    "an event is removed": run("delete from events where sequence = 1", "events"),
    "an event is invented": run(
        "insert into events select stream, sequence + 100000, subject, type, recorded_at, profile,"
        " enrollment, transaction_id, device, result, serial, digest, headers, payload from events"
        " where sequence = 1",
        "events",
    ),
    "a signature is altered": run(
        "update events set headers = '{}' where type = 'CertificateIssued'", "headers"
    ),
    "a certificate is removed": run("delete from certificates where revoked_at is null", "missing"),
    "a revocation is undone": run(
        "update certificates set revoked_at = null where revoked_at is not null", "revoked_at"
    ),
    "a certificate is given to another": run(
        "update certificates set subject = 'CN=other'", "subject is CN=other"
    ),
    "a counter is lowered": run("update counters set count = count - 1", "counters"),
    "a device's count is raised": run("update devices set issued = issued + 1", "devices"),
    "an operator is changed": run("update reloads set operator = 'nobody'", "reloads"),
    "a challenge is removed": run("delete from challenges", "challenges"),
    "the position is moved back": run(
        "update positions set sequence = sequence - 1 where stream = 'CERTS'", "CERTS"
    ),
    "the digest is changed": run("update positions set digest = 'ab'", "digest"),
    "a name is hidden": run("delete from names where name like 'device-%'", "names"),
}


@pytest.mark.parametrize("kind", IN_SQL)
def test_a_change_in_sql_is_found_and_named(system: System, tmp_path: Path, kind: str) -> None:
    config = copied(system, tmp_path)
    with closing(sqlite3.connect(config.parent / "audit.db")) as connection, connection:
        named = IN_SQL[kind](connection)
    status, findings = verified(config)

    assert status == 1
    assert any(named in finding for finding in findings), findings
    assert findings[-1].startswith("verification failed")


def copied(system: System, folder: Path) -> Path:
    """The configuration with a database of its own: a copy."""
    with (
        closing(sqlite3.connect(system.data / "audit.db")) as live,
        closing(sqlite3.connect(folder / "audit.db")) as copy,
    ):
        live.backup(copy)
    for name in ("keys", "ca", "ra", "connector"):
        shutil.copytree(system.data / name, folder / name)
    return Path(shutil.copy(system.config, folder / "scepstream.toml"))


FORGED = ("unsigned", "another key", "another role", "of another request", "replayed elsewhere")


@pytest.mark.parametrize("how", FORGED)
def test_an_event_forged_on_the_bus_is_found_and_named(tmp_path: Path, how: str) -> None:
    with running(tmp_path / "data") as system:
        demo = Endpoint.of(system, "demo")
        enroll(demo, device := Device.new())
        line = recorded(system, device, "issued")
        subject = f"{line['enrollment'][:-1]}7.verdict"
        asyncio.run(forge(system, subject, line["enrollment"], how))
        recorded(system, device, "issued")
        enroll(demo, Device.new())  # the database has gone past the forged one when this is in it
        recorded(system, device, "issued")
        status, findings = verified_once(system, subject)

    assert status == 1
    assert subject in findings[0], findings


def verified_once(system: System, subject: str) -> tuple[int, list[str]]:
    """As `verified`, once the database has the forged event."""

    def there() -> bool:
        with closing(sqlite3.connect(system.data / "audit.db")) as connection:
            query = "select count(*) from events where subject = ?"
            return bool(connection.execute(query, (subject,)).fetchone()[0])

    wait_until(there, 20, "the forged event in the database")
    return verified(system.config)


async def forge(system: System, subject: str, enrollment: str, how: str) -> None:
    """By whoever holds the provisioner's key: the log's own account."""
    configuration = load(system.config, {})
    seed = read_nkey(system.data / "keys" / f"{Role.PROVISIONER}.nkey")
    event = golden.EVENTS["EnrollmentRejected", 1][1]
    signers = {"another key": golden.SIGNER}
    path = "issuer" if how == "another role" else "validator"
    signer = signers.get(how) or read_event_signer(system.data / "keys" / f"{path}-signing.key")
    message = sign(event, subject, signer)
    if how == "unsigned":
        message.headers.pop("Scepstream-Signature")
    client = await nats.connect(list(configuration.bus.url), nkeys_seed_str=seed)
    if how == "replayed elsewhere":
        stored = await client.request(
            f"$JS.API.DIRECT.GET.ENROLL_0.{enrollment}.verdict", b"", timeout=5
        )
        headers = {k: v for k, v in (stored.headers or {}).items() if k.startswith("Scepstream-")}
        await client.request(subject, stored.data, timeout=5, headers=headers)
    else:
        await client.request(subject, message.payload, timeout=5, headers=message.headers)
    await client.close()


def test_a_replay_that_is_killed_again_and_again_goes_on_to_the_same_rows(
    system: System, tmp_path: Path
) -> None:
    into = f"sqlite:///{tmp_path}/new.db"
    command_line = [sys.executable, "-m", "cli", "audit", "replay", "--into", into]
    rng = random.Random(4)
    for _ in range(8):
        process = subprocess.Popen([*command_line, "--config", str(system.config)])
        with suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.5, 2.5))
        process.kill()
        process.wait()
    assert (
        command("audit", "replay", "--into", into, "--config", str(system.config)).returncode == 0
    )

    assert tables(into) == tables(f"sqlite:///{system.data}/audit.db")
