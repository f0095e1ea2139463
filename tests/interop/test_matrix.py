"""The table in docs/conformance.md is what the clients were seen to do. Runs last."""

import os
from pathlib import Path

import pytest

from tests.interop.matrix import (
    ABSENT,
    BEGIN,
    CELLS,
    END,
    EXPECTED,
    NAME,
    PAGE,
    Recorder,
    read,
    redraw,
    section,
    table,
)


@pytest.fixture
def recorder(pytestconfig: pytest.Config) -> Recorder:
    found = pytestconfig.pluginmanager.get_plugin(NAME)
    assert isinstance(found, Recorder)
    return found


def test_every_cell_that_passed_is_ok_on_the_page(recorder: Recorder) -> None:
    on_page = read(section(PAGE))
    assert {cell for cell in recorder.good() if on_page.get(cell) != "ok"} == set()


def test_a_whole_run_draws_the_table_that_is_on_the_page(recorder: Recorder) -> None:
    """Where it does not, this run writes the new table: look at it, then commit it."""
    if recorder.complete:
        assert set(recorder.cells.values()) == EXPECTED
        assert section(PAGE) == table(recorder.good())


def test_no_cell_is_blank() -> None:
    on_page = read(section(PAGE))
    assert on_page.keys() == set(CELLS)
    assert {said for cell, said in on_page.items() if cell not in ABSENT} == {"ok"}
    assert all(on_page[cell].startswith("not in the client (") for cell in ABSENT)


def test_a_missing_cell_changes_the_table_and_the_same_cells_no_byte(tmp_path: Path) -> None:
    page, cell = tmp_path / "page.md", min(EXPECTED)
    page.write_text(f"before\n{BEGIN}{END}after\n")
    redraw(page, table(EXPECTED))
    first = page.read_bytes()
    assert first.startswith(b"before\n")
    assert first.endswith(b"after\n")
    assert read(section(page))[cell] == "ok"
    os.utime(page, ns=(0, 0))
    redraw(page, table(EXPECTED))
    assert page.read_bytes() == first
    assert page.stat().st_mtime_ns == 0
    redraw(page, table(EXPECTED - {cell}))
    assert read(section(page))[cell] == "NOT SEEN"
