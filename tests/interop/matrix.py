"""The matrix of clients and operations: which test stands for which cell, and what came of it.

A test stands for a cell by `@pytest.mark.matrix(client, operation)` and the fixture `side`, whose
parameter is the form of the RA certificates.
"""

from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
BEGIN, END = "<!-- matrix: begin -->\n", "<!-- matrix: end -->\n"
NAME = "interop-matrix"

CLIENTS = {
    "scepclient": "`scepclient` 2.1 (Debian `scep`)",
    "pki": "`pki --scep` 5.9 (strongSwan)",
    "certmonger": "certmonger 0.79",
    "scepreq": "scepreq 0.1.1 (PyPI)",
    "own": "`scepstream enroll`",
}
OPERATIONS = ("enrol", "renew", "poll", "GetCert", "GetCRL", "refusal")
FORMS = ("split", "combined")

NO_QUERIES = "It has no command for GetCert and GetCRL."
NO_COMBINED = (
    "It does not encrypt to a certificate that may also sign: it encrypts to the CA's own, whose "
    "key no gateway has, and is refused. Give such clients split RA certificates."
)


class Cell(NamedTuple):
    """One thing that one client does with one form of RA certificates."""

    client: str
    operation: str
    form: str


CELLS = tuple(Cell(*parts) for parts in product(CLIENTS, OPERATIONS, FORMS))
ABSENT = {
    **{
        cell: NO_QUERIES
        for cell in CELLS
        if cell.client in {"scepclient", "pki", "certmonger"}
        and cell.operation in {"GetCert", "GetCRL"}
    },
    **{cell: NO_COMBINED for cell in CELLS if cell.client == "scepreq" and cell.form == "combined"},
}
EXPECTED = frozenset(CELLS) - ABSENT.keys()


def cell_of(item: pytest.Item) -> Cell | None:
    """The cell that a test stands for, if it does."""
    if (mark := item.get_closest_marker("matrix")) is None:
        return None
    assert isinstance(item, pytest.Function)
    client, operation = mark.args
    return Cell(client, operation, item.callspec.params["side"])


class Recorder:
    """A plugin: what this run saw of the matrix. `whole` where it collected the whole suite."""

    def __init__(self) -> None:
        self.cells: dict[str, Cell] = {}
        self.outcomes: dict[str, str] = {}
        self.whole = False
        self._deselected = False

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self.cells = {item.nodeid: cell for item in items if (cell := cell_of(item)) is not None}
        here = Path(__file__).parent
        found = {item.path for item in items if item.path.parent == here}
        self.whole = found == set(here.glob("test_*.py")) and not self._deselected
        items.sort(key=lambda item: item.path == here / "test_matrix.py")

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self._deselected = self._deselected or bool(items)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.nodeid in self.cells and (report.when == "call" or not report.passed):
            self.outcomes[report.nodeid] = report.outcome

    def pytest_sessionfinish(self) -> None:
        """Draw the table anew where every cell is known to be well."""
        if self.whole and self.good() == EXPECTED:
            redraw(PAGE, table(self.good()))

    @property
    def complete(self) -> bool:
        """Whether every test of the matrix was run here, none left out for want of its client."""
        outcomes = [self.outcomes.get(test, "skipped") for test in self.cells]
        return self.whole and "skipped" not in outcomes

    def good(self) -> set[Cell]:
        """The cells all of whose tests that were run passed."""
        return set(self.cells.values()) - {
            cell for test, cell in self.cells.items() if self.outcomes.get(test) != "passed"
        }


def redraw(page: Path, drawn: str) -> None:
    """Put a table between the two comments; an unchanged page is not written."""
    text = page.read_text()
    head, tail = text.partition(BEGIN)[0], text.partition(END)[2]
    new = f"{head}{BEGIN}{drawn}{END}{tail}"
    if new != text:
        page.write_text(new)


def section(page: Path) -> str:
    """What stands between the two comments."""
    text = page.read_text()
    assert text.count(BEGIN) == text.count(END) == 1
    return text.partition(BEGIN)[2].partition(END)[0]


def table(good: Iterable[Cell]) -> str:
    """The matrix as Markdown; a cell that is neither good nor absent is no cell."""
    good, notes = set(good), list(dict.fromkeys(ABSENT.values()))
    rows = [("client", "RA certificates", *OPERATIONS), ("---",) * (len(OPERATIONS) + 2)]
    for client, form in product(CLIENTS, FORMS):
        cells = [Cell(client, operation, form) for operation in OPERATIONS]
        drawn = [word(cell, good, notes) for cell in cells]
        rows.append((CLIENTS[client], form, *drawn))
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    numbered = [f"{number}. {note}" for number, note in enumerate(notes, 1)]
    return "\n".join(["", *lines, "", *numbered, "", ""])


def word(cell: Cell, good: set[Cell], notes: list[str]) -> str:
    if cell in ABSENT:
        return f"not in the client ({notes.index(ABSENT[cell]) + 1})"
    return "ok" if cell in good else "NOT SEEN"


def read(drawn: str) -> dict[Cell, str]:
    """The cells of a table."""
    rows = [line.strip("| ").split(" | ") for line in drawn.splitlines() if line.startswith("|")]
    names = {shown: client for client, shown in CLIENTS.items()}
    return {
        Cell(names[shown], operation, form): said
        for shown, form, *cells in rows[2:]
        for operation, said in zip(rows[0][2:], cells, strict=True)
    }
