"""What the linters do not say: sizes, docstrings, lock files, and that contracts bite."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("cli", "services", "shared")
MAX_CODE = 400
MAX_FUNCTION = 50
# Put together here, or this file would hold what it looks for.
UNFINISHED = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3)) + r")\b")


def sources(*folders: str) -> list[Path]:
    return sorted(p for folder in folders for p in (ROOT / folder).rglob("*.py"))


def product() -> list[Path]:
    """The product's modules; migrations are history and stay as they were."""
    return [p for p in sources(*PACKAGES) if "versions" not in p.parts]


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_there_is_a_product_to_look_at() -> None:
    assert len(product()) > 50


def lines_of_code(path: Path) -> int:
    """Lines that are neither blank nor part of a docstring: documentation is not to be saved on."""
    text = path.read_text()
    lines = {number for number, line in enumerate(text.splitlines(), 1) if line.strip()}
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Expr(ast.Constant(str())):
                lines -= set(range(node.lineno, (node.end_lineno or 0) + 1))
    return len(lines)


def test_a_file_holds_one_idea_and_not_four_hundred_lines_of_code() -> None:
    lengths = {name(p): lines_of_code(p) for p in product()}

    assert {p: n for p, n in lengths.items() if n > MAX_CODE} == {}


def test_no_function_is_longer_than_one_can_see() -> None:
    long = {
        f"{name(path)}:{found.name}": length
        for path in product()
        for found in functions(ast.parse(path.read_text()))
        if (length := (found.end_lineno or 0) - found.lineno + 1) > MAX_FUNCTION
    }

    assert long == {}


def test_every_module_says_in_one_line_what_it_is() -> None:
    without = []
    for path in sources(*PACKAGES):
        docstring = ast.get_docstring(ast.parse(path.read_text()), clean=True)
        first = (docstring or "").partition("\n\n")[0]
        if not first or "\n" in first or not first.endswith("."):
            without.append(name(path))

    assert without == []


def test_nothing_is_left_unfinished() -> None:
    folders = (*PACKAGES, "tests", "benchmarks")
    found = [name(p) for p in sources(*folders) if UNFINISHED.search(p.read_text())]

    assert found == []


WRITING = re.compile(r"\bbus\.(append|put|replace)\(")


def test_of_the_audit_service_only_commands_write_to_the_bus_by_hand() -> None:
    writers = {name(p) for p in sources("services/audit") if WRITING.search(p.read_text())}

    assert {each for each in writers if "/commands/" not in each} == set()


LOCKS = ("requirements.lock", "requirements-build.lock", "requirements-dev.lock")


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_names_no_place_and_every_hash(lock: str) -> None:
    text = (ROOT / lock).read_text()
    pinned = re.findall(r"^[\w.\[\],-]+==", text, re.MULTILINE)

    assert "://" not in text
    assert len(pinned) > 5
    assert text.count("--hash=sha256:") >= len(pinned)


def test_what_builds_or_is_not_used_is_no_part_of_what_runs() -> None:
    text = (ROOT / "requirements.lock").read_text()
    pinned = set(re.findall(r"^([\w.-]+)==", text, re.MULTILINE))

    assert not pinned & {"hatchling", "editables", "trove-classifiers", "pluggy", "uv", "pip"}
    assert not pinned & {"watchfiles", "websockets", "python-dotenv", "pyyaml"}
    assert pinned >= {"uvicorn", "httptools"}


def lint_imports(directory: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("lint-imports")
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(directory), "PYTHONPATH": str(directory)}
    return subprocess.run(
        [program, "--no-cache"],
        cwd=directory, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("services/validator/gates.py", "import time", "Pure modules stay pure"),
        (
            "services/validator/gates.py",
            "import services.issuer.ceilings",
            "Services do not know each other",
        ),
        (
            "services/audit/proof/diff.py",
            "import sqlalchemy",
            "SQL only where the audit service stores, records and queries",
        ),
        (
            "services/audit/query/search.py",
            "import services.audit.commands.revoke",
            "The audit service in layers",
        ),
        (
            "services/audit/record/consumer.py",
            "import shared.bus.log",
            "Of the audit service only commands and checkpoints append to the log",
        ),
        (
            "shared/log/subjects.py",
            "import shared.bus.core",
            "The wings of shared in layers",
        ),
        ("shared/x509/names.py", "import cli.up.layout", "Command line over services over shared"),
    ],
)
def test_a_planted_import_breaks_its_contract(
    tmp_path: Path, module: str, line: str, broken: str
) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("*.pyc"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    planted = tmp_path / module
    planted.write_text(f"{planted.read_text()}\n{line}\n")
    run = lint_imports(tmp_path)
    importer, imported = module.removesuffix(".py").replace("/", "."), line.removeprefix("import ")

    assert run.returncode == 1, run.stdout + run.stderr
    assert f"{broken} BROKEN" in run.stdout
    assert f"{importer} -> {imported}" in run.stdout
