"""The connector `command`: programs that are killed, slow, wrong, or say odd things."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from structlog.testing import capture_logs

from services.issuer.connectors.command import _MAX_OUTPUT, CommandConnector
from services.issuer.connectors.connector import (
    AnswerLostError,
    CaUnavailableError,
    Issued,
    Pending,
    Prepared,
    Recovery,
    Refused,
    RevocationRefusedError,
)
from shared.config.load import SettingsError
from shared.log.events.commands import RevocationReason
from shared.log.events.enrollment import TemplateExtension
from tests.issuers import command
from tests.issuers.building import build
from tests.issuers.orders import CHALLENGE, again, order
from tests.support import pki
from tests.unit.shared import configurations

SECRET: Final = "s3cret-0f-the-ca"
FOREVER: Final = 30  # seconds that a program would run if nobody killed it


@pytest.fixture
def folder(tmp_path: Path, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey) -> Path:
    configurations.write_all(tmp_path, rsa_key, ec_key)
    return tmp_path


@pytest.fixture
def ca(ec_key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    return pki.make_root(ec_key, "Program CA")


def script(folder: Path, body: str, mode: int = 0o755) -> Path:
    path = folder / "program.sh"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(mode)
    return path


def connector(
    folder: Path, ca: x509.Certificate, body: str, lease: str = "10s", **options: Any
) -> CommandConnector:
    values = {"program": str(script(folder, body)), "working_directory": str(folder)} | options
    made = build(folder, "command", ca, values, lease=lease)
    assert isinstance(made, CommandConnector)
    return made


def says(**members: Any) -> str:
    """A program that reads its input and writes this answer."""
    return f"cat > input.json\ncat <<'END'\n{json.dumps(members)}\nEND"


def refusal(folder: Path, ca: x509.Certificate, options: dict[str, Any]) -> str:
    with pytest.raises(SettingsError) as error:
        build(folder, "command", ca, options)
    return str(error.value)


def signed(key: ec.EllipticCurvePrivateKey) -> str:
    made = pki.make_certificate(key.public_key(), key, issuer="Program CA")
    return made.public_bytes(Encoding.PEM).decode()


async def gone(pid: int) -> bool:
    """Whether a process ends within a few seconds; a zombie that nobody reaps has ended."""
    for _ in range(200):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
            if state != "Z":
                await asyncio.sleep(0.02)
                continue
        return True
    return False


async def pid_in(path: Path) -> int:
    async with asyncio.timeout(10):
        while not path.exists() or not path.read_text().endswith("\n"):
            await asyncio.sleep(0.01)
    return int(path.read_text())


async def test_a_program_learns_what_to_sign(folder: Path, ca: x509.Certificate) -> None:
    names = x509.SubjectAlternativeName(
        [
            x509.DNSName("a.example"),
            x509.RFC822Name("a@a.example"),
            x509.UniformResourceIdentifier("urn:uuid:1"),
            x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x0c\x01a"),
        ]
    )
    made = connector(folder, ca, says(status="pending", handle="4711") + '\necho "$@" > arguments')
    asked = order(ca)
    others = tuple(e for e in asked.template.extensions if e.oid != "2.5.29.17")
    san = TemplateExtension(oid="2.5.29.17", critical=False, value=names.public_bytes())
    asked = order(ca, "a.example", extensions=(*others, san))

    assert await made.issue(asked, Prepared()) == Pending("4711")
    assert (folder / "arguments").read_text() == f"issue {asked.key}\n"
    found = json.loads((folder / "input.json").read_text())
    assert found["version"] == 1
    assert found["verb"] == "issue"
    assert found["key"] == asked.key
    assert found["enrollment"] == asked.enrollment
    assert found["subject"] == "CN=a.example"
    assert found["key_usages"] == ["digitalSignature", "keyEncipherment"]
    assert found["extended_key_usages"] == [pki.CLIENT_AUTH]
    assert found["subject_alt_names"] == [
        {"type": "dns", "value": "a.example"},
        {"type": "email", "value": "a@a.example"},
        {"type": "uri", "value": "urn:uuid:1"},
        {"type": "other", "oid": "1.2.3", "value_der": "DAFh"},
    ]
    assert found["not_after"] > found["not_before"]
    assert found["not_before"].endswith("Z")
    csr = x509.load_pem_x509_csr(found["csr"].encode())
    assert csr.public_bytes(Encoding.DER) == asked.csr


async def test_status_gets_the_handle_and_no_csr(folder: Path, ca: x509.Certificate) -> None:
    made = connector(folder, ca, says(status="pending", handle="4712"))
    asked = again(order(ca))

    assert await made.find(asked, "4711") == Pending("4712")
    found = json.loads((folder / "input.json").read_text())
    assert found["verb"] == "status"
    assert found["handle"] == "4711"
    assert "csr" not in found


async def test_the_environment_is_closed(
    folder: Path, ca: x509.Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEAKED", "from-the-issuer")
    body = "env > environment\n" + says(status="ok")
    await connector(folder, ca, body, environment={"CA_PIN": SECRET}).check()
    found = dict(line.split("=", 1) for line in (folder / "environment").read_text().splitlines())

    assert found.keys() - {"PWD", "SHLVL", "_", "OLDPWD"} == {"PATH", "LANG", "TZ", "CA_PIN"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("kill -9 $$", "signal 9"),
        ("exit 3", "exit status 3"),
        (says(status="refused", reason="no") + "\nexit 1", "exit status 1"),
        (":", "not the expected JSON"),
        ('printf \'{"status": "issu\'', "not the expected JSON"),
        ('printf \'{"status": "issued"}{}\'', "not the expected JSON"),
        ("printf '[]'", "not the expected JSON"),
        ("printf '\\377'", "not the expected JSON"),
        (says(status=5), "not the expected JSON"),
        (says(status="done"), "unknown status"),
        (says(status="absent"), "unknown status"),
        (says(status="issued"), "does not parse"),
        (says(status="issued", certificate="-----BEGIN"), "does not parse"),
        (says(status="pending", handle="x" * 401), "handle is too long"),
        (says(status="pending", handle="a b"), "handle is too long or not printable"),
        (f"head -c {_MAX_OUTPUT + 1} /dev/zero", "longer than"),
        ("yes", "longer than"),
    ],
)
async def test_what_is_no_answer_leaves_the_outcome_unknown(
    folder: Path, ca: x509.Certificate, body: str, said: str
) -> None:
    made = connector(folder, ca, body)
    with pytest.raises(AnswerLostError, match=said):
        await made.issue(order(ca), Prepared())
    if "absent" not in body:
        with pytest.raises(AnswerLostError, match=said):
            await made.find(again(order(ca)))


@pytest.mark.parametrize("acted", ["before", "never"])
async def test_status_shows_whether_a_program_had_acted_before_it_was_killed(
    folder: Path, ca: x509.Certificate, ec_key: ec.EllipticCurvePrivateKey, acted: str
) -> None:
    acts = acted == "before"
    pem = signed(ec_key)
    issued = json.dumps({"status": "issued", "certificate": pem})
    body = f"""
if [ "$1" = issue ]; then
    {f"printf '%s' '{issued}' > $2" if acts else ":"}
    kill -9 $$
fi
if [ -f "$2" ]; then cat "$2"; else printf '{{"status": "absent"}}'; fi
"""
    made = connector(folder, ca, body)
    asked = order(ca)
    with pytest.raises(AnswerLostError):
        await made.issue(asked, Prepared())
    der = x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)

    assert await made.find(again(asked)) == (Issued(der) if acts else None)


async def test_the_same_key_gives_one_certificate_even_at_once(folder: Path) -> None:
    root = command.prepare(folder / "little-ca")
    made = command.connector(folder, root)
    asked = order(root)
    results = await asyncio.gather(*(made.issue(asked, Prepared()) for _ in range(3)))

    assert len(set(results)) == 1


async def test_a_slow_program_dies_with_the_processes_that_it_started(
    folder: Path, ca: x509.Certificate
) -> None:
    body = f"sleep {FOREVER} & echo $! > child\necho $$ > parent\nwait"
    made = connector(folder, ca, body, lease="1s")
    with pytest.raises(AnswerLostError, match="no answer within 1"):
        await made.issue(order(ca), Prepared())

    assert await gone(await pid_in(folder / "child"))
    assert await gone(await pid_in(folder / "parent"))


async def test_a_child_that_keeps_the_output_open_dies_though_the_program_has_ended(
    folder: Path, ca: x509.Certificate
) -> None:
    body = says(status="refused", reason="no") + f"\nsleep {FOREVER} & echo $! > child"
    made = connector(folder, ca, body, lease="1s")
    with pytest.raises(AnswerLostError, match="no answer within 1"):
        await made.issue(order(ca), Prepared())

    assert await gone(await pid_in(folder / "child"))


async def test_a_program_that_writes_too_much_is_killed_with_its_children(
    folder: Path, ca: x509.Certificate
) -> None:
    made = connector(folder, ca, f"sleep {FOREVER} & echo $! > child\nyes")
    with pytest.raises(AnswerLostError, match="longer than"):
        await made.issue(order(ca), Prepared())

    assert await gone(await pid_in(folder / "child"))


async def test_a_program_that_nobody_waits_for_is_killed(
    folder: Path, ca: x509.Certificate
) -> None:
    made = connector(folder, ca, f"sleep {FOREVER} & echo $! > child\nwait")
    task = asyncio.create_task(made.issue(order(ca), Prepared()))
    child = await pid_in(folder / "child")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await gone(child)


async def test_a_program_that_neither_reads_nor_stops_complaining_is_heard(
    folder: Path, ca: x509.Certificate
) -> None:
    body = 'head -c 3000000 /dev/zero >&2\nprintf \'{"status": "refused", "reason": "no"}\''

    assert await connector(folder, ca, body).issue(order(ca), Prepared()) == Refused("no")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("kill -9 $$", "signal 9"),
        ("yes", "longer than"),
        (f"sleep {FOREVER} & echo $! > child\nwait", "no answer within 1"),
        (f"(setsid sleep {FOREVER} & echo $! > child)\n:", "no answer within 1"),
    ],
)
@pytest.mark.parametrize("make_loop", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_programs_end_under_every_event_loop(
    folder: Path,
    ca: x509.Certificate,
    make_loop: Callable[[], asyncio.AbstractEventLoop],
    body: str,
    said: str,
) -> None:
    made = connector(folder, ca, body, lease="1s")
    with asyncio.Runner(loop_factory=make_loop) as runner:
        for _ in range(3 if "yes" in body or "kill" in body else 1):
            with pytest.raises(AnswerLostError, match=said):
                runner.run(made.issue(order(ca), Prepared()))
        if "setsid" not in body and "sleep" in body:
            assert runner.run(gone(int((folder / "child").read_text())))
    if "setsid" in body:
        os.kill(int((folder / "child").read_text()), signal.SIGKILL)


async def test_exit_75_says_that_nothing_was_done(folder: Path, ca: x509.Certificate) -> None:
    made = connector(folder, ca, "exit 75")
    with pytest.raises(CaUnavailableError, match="issue now"):
        await made.issue(order(ca), Prepared())
    with pytest.raises(CaUnavailableError, match="status now"):
        await made.find(again(order(ca)))


async def test_a_ca_that_is_busy_says_when_to_come_back(folder: Path, ca: x509.Certificate) -> None:
    made = connector(folder, ca, says(status="unavailable", reason="busy", retry_after=7))
    with pytest.raises(CaUnavailableError, match="busy") as raised:
        await made.issue(order(ca), Prepared())
    assert raised.value.retry_after == 7


async def test_a_program_that_cannot_be_started_ordered_nothing(
    folder: Path, ca: x509.Certificate
) -> None:
    made = connector(folder, ca, ":")
    made.options.program.unlink()
    with pytest.raises(CaUnavailableError, match="does not start: No such file"):
        await made.issue(order(ca), Prepared())


async def test_a_refusal_is_one_line_without_secrets(folder: Path, ca: x509.Certificate) -> None:
    reason = f"not for you\n\x1b[1m{CHALLENGE} {SECRET} {'QUJD' * 20} " + "ab " * 400
    made = connector(folder, ca, says(status="refused", reason=reason), environment={"PIN": SECRET})
    result = await made.issue(order(ca), Prepared())

    assert isinstance(result, Refused)
    assert result.detail.startswith("not for you")
    assert result.detail.isprintable()
    assert len(result.detail) <= 300
    for secret in (CHALLENGE, SECRET, "QUJDQUJD"):
        assert secret not in result.detail


async def test_a_refusal_without_words_is_a_sentence(folder: Path, ca: x509.Certificate) -> None:
    made = connector(folder, ca, says(status="refused"))

    assert await made.issue(order(ca), Prepared()) == Refused(
        "the program refused, and gave no reason"
    )


async def test_one_line_of_a_failure_is_logged_without_secrets(
    folder: Path, ca: x509.Certificate
) -> None:
    body = f"echo Traceback >&2; echo 'bad {SECRET} {CHALLENGE}' >&2; cat >&2; exit 2"
    made = connector(folder, ca, body, environment={"PIN": SECRET})
    asked = order(ca)
    with capture_logs() as logs, pytest.raises(AnswerLostError) as raised:
        await made.issue(asked, Prepared())

    (entry,) = logs
    assert entry["event"] == "ca_program_failed"
    assert entry["verb"] == "issue"
    assert entry["code"] == 2
    shown = repr(logs) + str(raised.value)
    for secret in (SECRET, CHALLENGE, "MIIB", "BEGIN CERTIFICATE REQUEST-----\\n"):
        assert secret not in shown
    assert entry["said"].isprintable()


async def test_nothing_is_logged_of_a_program_that_works(
    folder: Path, ca: x509.Certificate
) -> None:
    made = connector(folder, ca, "echo noise >&2\n" + says(status="pending"))
    with capture_logs() as logs:
        assert await made.issue(order(ca), Prepared()) == Pending("")
    assert logs == []


async def test_a_program_without_the_promise_is_blind(folder: Path, ca: x509.Certificate) -> None:
    made = connector(folder, ca, says(status="pending"), idempotent=False)

    assert made.recovery is Recovery.BLIND
    with pytest.raises(AnswerLostError, match="no handle"):
        await made.issue(order(ca), Prepared())
    assert connector(folder, ca, ":").recovery is Recovery.NAMED


async def test_a_revocation_is_passed_on(folder: Path, ca: x509.Certificate) -> None:
    made = connector(folder, ca, says(status="revoked"))
    await made.revoke("0a", "ab" * 32, RevocationReason.SUPERSEDED)
    found = json.loads((folder / "input.json").read_text())

    assert found["serial"] == "0a"
    assert found["ca_spki_sha256"] == "ab" * 32
    assert found["reason"] == "superseded"
    with pytest.raises(RevocationRefusedError, match="too late"):
        await connector(folder, ca, says(status="refused", reason="too late")).revoke(
            "0a", "ab" * 32, RevocationReason.SUPERSEDED
        )
    with pytest.raises(AnswerLostError, match="revoke"):
        await connector(folder, ca, says(status="issued")).revoke(
            "0a", "ab" * 32, RevocationReason.SUPERSEDED
        )


async def test_a_program_of_another_ca_fails_the_check(folder: Path, ca: x509.Certificate) -> None:
    other = pki.make_root(ec.generate_private_key(ec.SECP256R1()), "Other CA")
    shown = other.public_bytes(Encoding.PEM).decode()
    for members, said in (
        ({"status": "ok", "chain": [shown]}, "not the CA of ca_cert_path"),
        ({"status": "ok", "chain": ["nothing"]}, "does not parse"),
        ({"status": "refused", "reason": "no licence"}, "no licence"),
    ):
        with pytest.raises(CaUnavailableError, match=said):
            await connector(folder, ca, says(**members)).check()
    with pytest.raises(CaUnavailableError, match=r"check failed.*exit status 1"):
        await connector(folder, ca, "exit 1").check()
    assert "does not show" in await connector(folder, ca, says(status="ok")).check()


def test_a_program_that_others_may_change_is_refused(folder: Path, ca: x509.Certificate) -> None:
    for mode in (0o775, 0o757):
        said = refusal(folder, ca, {"program": str(script(folder, ":", mode))})
        assert f"is writable by others (mode {mode:04o})" in said
    if os.geteuid() == 0:
        path = script(folder, ":")
        os.chown(path, 4711, 4711)
        assert "belongs to another user" in refusal(folder, ca, {"program": str(path)})


def test_options_that_do_not_fit_are_named(folder: Path, ca: x509.Certificate) -> None:
    program = str(script(folder, ":"))
    (folder / "plain").write_text("")
    for options, said in (
        ({}, "program: required"),
        ({"program": "program.sh"}, "program: program.sh is not an absolute path"),
        ({"program": str(folder / "nothing")}, "No such file"),
        ({"program": str(folder)}, "not an executable file"),
        ({"program": str(folder / "plain")}, "not an executable file"),
        ({"program": program, "arguments": ["a\x00"]}, "arguments.0: "),
        ({"program": program, "environment": {"A B": SECRET}}, "environment.A B"),
        ({"program": program, "environment": {"A": f"{SECRET}\x00"}}, "NUL character"),
        ({"program": program, "working_directory": "."}, "working_directory: . is not"),
        ({"program": program, "shell": True}, "shell: no such option"),
    ):
        found = refusal(folder, ca, options)
        assert said in found
        assert SECRET not in found


def test_the_values_of_variables_are_not_shown(folder: Path, ca: x509.Certificate) -> None:
    assert SECRET not in repr(connector(folder, ca, ":", environment={"PIN": SECRET}))
