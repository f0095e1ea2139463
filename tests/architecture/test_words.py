"""Documents and command help use the words of the field, not a dialect of ours: a net, no proof."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click import Command
from typer.main import get_command

from cli.__main__ import app

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/operations.md",
    "docs/challenges.md",
    "docs/security.md",
    "docs/configuration.md",
)
# What a reader had to translate: the word, and what is written instead.
RETIRED = {
    r"\banew\b": "again, re-",
    r"\b(is|are) told\b": "receives, is notified",
    r"\btaken? back\b": "revoke, cancel",
    r"\bdriven? again\b": "retry",
    r"\b(goes|go) on\b": "continue",
    r"\b(gives?|given) orders\b": "run commands",
    r"\bstands? on the log\b": "is on the log",
    r"\bthis once\b": "once",
    r"\bkept nowhere\b": "not stored",
    r"\bbelieved?s?\b": "trust",
    r"\bwhat is none\b": "anything else",
}


def dialect(text: str) -> list[str]:
    """The retired words in a text, with what to write instead."""
    flat = " ".join(text.split())
    return [
        f"{found[0]!r}: write {instead}"
        for pattern, instead in RETIRED.items()
        for found in re.finditer(pattern, flat, re.IGNORECASE)
    ]


def commands(command: Command, path: str = "scepstream") -> Iterator[tuple[str, Command]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, f"{path} {name}")


COMMANDS = dict(commands(get_command(app)))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_are_written_in_the_words_of_the_field(document: str) -> None:
    assert dialect((ROOT / document).read_text()) == []


@pytest.mark.parametrize("path", COMMANDS)
def test_help_is_written_in_the_words_of_the_field(path: str) -> None:
    command = COMMANDS[path]
    texts = [command.help or "", *(getattr(each, "help", "") or "" for each in command.params)]

    assert [found for text in texts for found in dialect(text)] == []


def test_the_net_catches_what_it_is_made_for() -> None:
    caught = dialect("Whoever is told to drive\nit reads it anew, this once.")

    assert caught == [
        "'anew': write again, re-",
        "'is told': write receives, is notified",
        "'this once': write once",
    ]
