"""The configuration reference: every key that a file may hold is in it."""

import pytest

from cli.reference import render


def section(heading: str) -> str:
    """The text below a heading, up to the next one."""
    _, found, after = render().partition(f"## {heading}\n")
    assert found
    return after.partition("\n## ")[0]


@pytest.mark.parametrize(
    ("heading", "rows"),
    [
        ("Top-level keys", ["| `version` | `1` |", '| `start` | `"all"` |']),
        (
            "`[[log.epochs]]`",
            ["| `effective_at` | `0.0` |", '| `shards` | `["0"]` |', "| `pinned` | none |"],
        ),
    ],
)
def test_keys_outside_the_main_tables_are_documented(heading: str, rows: list[str]) -> None:
    for row in rows:
        assert row in section(heading)


def test_fields_that_no_file_may_set_are_not_documented() -> None:
    assert "directory" not in section("Top-level keys")
    assert "left_out" not in section("Top-level keys")
