"""What `--help` prints: all of it, for every command."""

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer.main

from cli.__main__ import app
from cli.deferred import Deferred, called
from tests.unit.cli.commands import command


def commands(found: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """(path, click command) of everything that can be called."""
    command = called(found)
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


def deferred(found: object) -> Iterator[Deferred]:
    """The commands that are imported when they are called."""
    for inner in getattr(found, "commands", {}).values():
        yield from [inner] if isinstance(inner, Deferred) else deferred(inner)


ROOT = typer.main.get_command(app)
ALL = dict(commands(ROOT))


def plain(text: str) -> str:
    """Text without frames, colours and line breaks."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", text).split())


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_prints_every_text_in_full(path: tuple[str, ...]) -> None:
    """Rich takes words in square brackets for markup and leaves them out."""
    printed = plain(command(*path, "--help", env={"COLUMNS": "400", "TERM": "dumb"}).stdout)
    shown = [
        each for each in getattr(ALL[path], "params", ()) if not getattr(each, "hidden", False)
    ]
    texts = [getattr(each, "help", "") or "" for each in shown]

    assert [text for text in texts if plain(text) not in printed] == []


@pytest.mark.parametrize("command", [*deferred(ROOT)], ids=lambda command: command.name)
def test_what_the_list_of_commands_says_of_one_is_what_its_own_help_says(
    command: Deferred,
) -> None:
    first, *_ = command.command.help.split("\n\n")

    assert command.help == " ".join(first.split())


@pytest.mark.parametrize("role", ["gateway", "validator", "issuer", "audit"])
def test_a_service_is_run_by_its_command_and_by_nothing_that_does_nothing(role: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"services.{role}"], capture_output=True, text=True, check=False
    )

    assert done.returncode != 0
    assert "cannot be directly executed" in done.stderr
