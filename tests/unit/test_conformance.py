"""The page on conformance names tests that exist, and leaves no section out."""

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/conformance.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))
SECTIONS = [
    "2.1",
    "2.2",
    "2.3",
    "2.4",
    "2.5",
    "2.6",
    "2.7",
    "2.8",
    "2.9",
    "3.1",
    "3.2",
    "3.2.1.1",
    "3.2.1.2",
    "3.2.1.3",
    "3.2.1.4",
    "3.2.1.5",
    "3.2.2",
    "3.3.1",
    "3.3.2.1",
    "3.3.2.2",
    "3.3.2.3",
    "3.3.3",
    "3.3.4",
    "3.4",
    "3.5",
    "3.5.1",
    "3.5.2",
    "4.1",
    "4.2",
    "4.2.1.1",
    "4.2.1.2",
    "4.3",
    "4.3.1",
    "4.4",
    "4.4.1",
    "4.5",
    "4.5.1",
    "4.6",
    "4.6.1",
    "4.7",
    "4.7.1",
]


def rows(heading: str) -> list[list[str]]:
    """The cells of each row of the table under a heading."""
    part = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_every_test_that_the_page_names_exists(path: str, name: str) -> None:
    tree = ast.parse((ROOT / path).read_text())
    found = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert name in found


def test_no_section_is_left_out() -> None:
    assert [row[0] for row in rows("RFC 8894, section by section")] == SECTIONS


@pytest.mark.parametrize(
    "heading", ["RFC 8894, section by section", "What devices need on the wire"]
)
def test_every_row_names_a_test(heading: str) -> None:
    assert rows(heading)
    for row in rows(heading):
        assert "::test_" in row[-1], row[0]
