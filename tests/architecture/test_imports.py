"""What a process imports: each service its own code, and the list of commands none of them."""

import json
import subprocess
import sys

import pytest

OTHERS = {
    "gateway": {"services.validator", "services.issuer", "services.audit", "sqlalchemy", "alembic"},
    "validator": {"services.gateway", "services.issuer", "services.audit", "sqlalchemy", "alembic"},
    "issuer": {"services.gateway", "services.validator", "services.audit", "sqlalchemy", "alembic"},
    "audit": {"services.gateway", "services.issuer"},
}


def imported(*modules: str) -> set[str]:
    """Everything that a process has imported once it has these modules."""
    program = f"import json, sys, {', '.join(modules)}; print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("role", OTHERS)
def test_a_service_imports_no_other_service(role: str) -> None:
    """Memory and seconds of every start, and code that a process has no business with."""
    found = imported("cli.__main__", "cli.services", f"services.{role}.service")

    assert found & OTHERS[role] == set()


def test_the_list_of_commands_imports_none_of_them() -> None:
    found = {name for name in imported("cli.__main__") if name.startswith(("cli", "services"))}

    assert found == {"cli", "cli.__main__", "cli.deferred"}
