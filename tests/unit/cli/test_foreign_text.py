"""Text that devices and connectors chose, on its way to an operator's terminal."""

import contextlib
import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.enroll.console import fail
from cli.enroll.console import say as step
from cli.output import heading, json_line, say, show_table
from cli.up.firststart import first_start
from cli.up.layout import Layout
from services.audit.record.write import store
from services.audit.store.engine import migrate, open_engine
from shared.log.stages import Stage
from shared.observe.logs import configure_logging, log_failure
from shared.text.printable import HIDDEN
from shared.x509.dn import write_dn
from tests.support.world import NOW
from tests.unit.cli.commands import command
from tests.unit.services.audit.stories import (
    STREAM,
    approved,
    enrollment,
    event,
    requested,
    stored,
)

pytestmark = pytest.mark.slow

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)
# What rich itself writes to a terminal for bold type and rules; nothing else may be obeyed.
STYLE: Final = re.compile(r"\x1b\[[0-9;]*m")
EVIL: Final = "x[/]y[bold]\x1b]52;c;aGk=\x07\u202egpj\u2066\x9b31m\x7f:smile:"


def printed(text: str) -> str:
    """By every writer that commands have."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        say(text)
        say(text, err=True)
        heading(text, text)
        show_table(("a", "b"), [(text, text)])
        show_table(("a", "b"), [(text, text)], plain=True)
        json_line({text: text})
        step("got", text)
        fail(1, text)
    return out.getvalue()


@given(ANY_TEXT)
def test_no_text_is_obeyed_or_hidden_by_any_writer(text: str) -> None:
    shown = printed(text)
    shown.encode()
    assert HIDDEN.search(shown.replace("\n", "")) is None


@given(st.text(st.sampled_from("[/]bold:smile# \\@=()"), max_size=30))
def test_markup_is_text(text: str) -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        heading(text, "|")
    assert out.getvalue() == f"{text}|\n"


def test_a_log_line_is_ascii_without_controls(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("audit", "audit-0")
    log_failure("answer_read_failed", ValueError(EVIL), detail=EVIL)
    line = capsys.readouterr().err
    assert json.loads(line)["detail"] == EVIL
    assert line.removesuffix("\n").isascii()
    assert line.removesuffix("\n").isprintable()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record of a held, an approved and a failed device with such names."""
    layout = Layout(tmp_path_factory.mktemp("foreign") / "data")
    first_start(layout, "ec:p256", None, 4222, NOW)
    engine = open_engine(f"sqlite:///{layout.root}/audit.db")
    migrate(engine)
    failed = event("IssuanceFailed", detail=EVIL)
    found = [
        requested(1, 1, transaction_id=EVIL),
        approved(2, 1, write_dn([("CN", EVIL)])),
        requested(3, 2),
        approved(4, 2, f"CN={EVIL}"),  # as an earlier version would have written it
        requested(5, 3),
        stored(6, enrollment(3).subject(Stage.OUTCOME), failed),
    ]
    store(engine, STREAM, found)
    engine.dispose()
    return layout.config


def on_terminal(*arguments: str) -> str:
    """What a command writes to a terminal, without type styles."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "cli", *arguments],
        stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | {"TERM": "xterm-256color"},
    ) as process:  # fmt: skip
        os.close(theirs)
        os.write(ours, b"\n")  # to a question which one is meant: none
        written = b""
        with contextlib.suppress(OSError):  # EIO: the other side is closed
            while part := os.read(ours, 65536):
                written += part
    os.close(ours)
    assert process.returncode in (0, 1), written
    return STYLE.sub("", written.decode()).replace("\r\n", "\n")


@pytest.mark.parametrize(
    "arguments", [("list",), ("list", "--json"), ("show", "T2"), ("show", "T3"), ("show", EVIL[:3])]
)
def test_a_terminal_obeys_no_name_of_a_device(config: Path, arguments: tuple[str, ...]) -> None:
    shown = on_terminal("audit", *arguments, "--config", str(config))
    assert HIDDEN.search(shown.replace("\n", "")) is None
    assert "Traceback" not in shown
    if arguments[-1] != EVIL[:3]:
        assert "x[/]y" in shown.replace("\n", "")


def test_what_is_told_without_the_log_says_that_it_is_incomplete(config: Path) -> None:
    done = command("audit", "show", "T3", "--json", "--config", str(config))
    requested, failed = map(json.loads, done.stdout.splitlines())

    assert requested == {
        "transaction_id": "T3", "incomplete": True, "type": "EnrollmentRequested",
        "subject": enrollment(3).subject(Stage.REQUEST),
    }  # fmt: skip
    assert failed["detail"] == EVIL
    assert "incomplete" not in failed


def test_a_list_in_a_file_is_json_of_the_very_names(config: Path) -> None:
    done = command("audit", "list", "--json", "--config", str(config))
    assert [json.loads(line)["device"] for line in done.stdout.splitlines()][1:] == [
        f"CN={EVIL}",
        write_dn([("CN", EVIL)]),
    ]
