"""What libraries log becomes JSON lines, and never what a client sent."""

import json
import logging
from pathlib import Path

import pytest

from shared.observe.library_logs import LibraryLogs
from tests.unit.shared.runtime.test_connections import serving

SECRET = "s3cret-challenge"


def test_protocol_errors_and_failures_are_json_without_contents(tmp_path: Path) -> None:
    with serving(tmp_path / "log", 0, 100, 100) as server:
        for request in (f"GARBAGE {SECRET}", f"GET /fail?{SECRET} HTTP/1.1\r\nHost: x"):
            client = server.connect(f"{request}\r\n\r\n".encode())
            assert client.recv(65536).startswith((b"HTTP/1.1 400", b"HTTP/1.1 500"))
    text = (tmp_path / "log").read_text()
    lines = [json.loads(line) for line in text.splitlines()]

    assert SECRET not in text
    told = [(line["event"], line["logger"], line["level"]) for line in lines]
    assert told == [
        ("library_logged", "uvicorn.error", "warning"),
        ("library_logged", "uvicorn.error", "error"),
    ]
    assert lines[1]["error"] == "RuntimeError"
    assert "slow_server.py" in lines[1]["place"]
    assert all(line["service"] == "test" for line in lines)


def test_arguments_and_further_lines_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("a library")
    logger.addHandler(LibraryLogs())
    logger.propagate = False
    logger.error("broken: %s\ncontext: x", SECRET)
    logger.error(ValueError(SECRET))
    out = capsys.readouterr().out

    assert SECRET not in out
    assert "broken: %s" in out
    assert "context" not in out
    assert "ValueError" in out
