"""Documents, help, code and pages use the words of the field: a net, not a proof."""

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from click import Command
from typer.main import get_command

from cli.__main__ import app
from cli.deferred import called

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "Makefile", *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))
)
CODE = sorted(
    str(path.relative_to(ROOT))
    for folder in ("services", "shared", "cli", "benchmarks")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".html", ".js", ".css")
)
# A word that readers had to translate, and what to write instead.
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
    r"\bwhoever comes\b": "the first, the second",
    r"\bis no (string|url|number|json|certificate|token|time)\b": "is not a",
    r"\bfor ever\b": "forever, until cancelled",
    r"\bstands? (there|here)\b": "is there",
    r"\btakes no\b": "does not accept",
    r"\bcomes twice\b": "is repeated",
    r"\bnothing runs\b": "not running",
    r"\bis not looked at\b": "is ignored",
    r"\bthe story of\b": "the history of",
    r"\bis heard of\b": "is known",
    r"\bdoes not hold\b": "is invalid",
    r"\bwants it\b": "requires it",
    r"\bnobody knows\b": "unknown",
}


def dialect(text: str) -> list[str]:
    """The retired words in a text, with what to write instead."""
    flat = " ".join(text.split())
    return [
        f"{found[0]!r}: write {instead}"
        for pattern, instead in RETIRED.items()
        for found in re.finditer(pattern, flat, re.IGNORECASE)
    ]


def texts(path: Path) -> str:
    """What people read of a file: docstrings, comments and string literals of Python, else all."""
    if path.suffix != ".py":
        return path.read_text()
    with tokenize.open(path) as file:
        comments = [
            t.string for t in tokenize.generate_tokens(file.readline) if t.type == tokenize.COMMENT
        ]
    literals = [
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return "\n\n".join((*comments, *literals))


def commands(command: Command, path: str = "scepstream") -> Iterator[tuple[str, Command]]:
    found = called(command)
    yield path, found
    for name, child in getattr(found, "commands", {}).items():
        yield from commands(child, f"{path} {name}")


COMMANDS = dict(commands(get_command(app)))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_are_written_in_the_words_of_the_field(document: str) -> None:
    assert dialect((ROOT / document).read_text()) == []


@pytest.mark.parametrize("path", CODE)
def test_code_is_written_in_the_words_of_the_field(path: str) -> None:
    assert dialect(texts(ROOT / path)) == []


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
