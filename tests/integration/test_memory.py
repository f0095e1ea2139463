"""What the processes of a running system have in their memory."""

from pathlib import Path

from tests.support.system import System, running


def holds(pid: int, secret: bytes) -> bool:
    """Whether a process has these bytes in memory that it can write."""
    with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, rights, *_ = line.split()
            if not rights.startswith("rw"):
                continue
            first, last = (int(part, 16) for part in place.split("-"))
            memory.seek(first)
            try:
                if secret in memory.read(last - first):
                    return True
            except OSError:
                continue  # a mapping of the kernel's own
    return False


def with_the_challenge(system: System) -> set[str]:
    """The roles whose processes hold a static challenge."""
    secret = system.challenge("demo").encode()
    return {
        role
        for role in ("gateway", "validator", "issuer", "audit")
        for pid in system.run["pids"][role]
        if holds(pid, secret)
    }


def test_a_static_challenge_is_in_the_memory_of_no_gateway(tmp_path: Path) -> None:
    """Before any device has sent it."""
    with running(tmp_path / "data", "--gateways", "2") as system:
        found = with_the_challenge(system)
        assert "validator" in found
        assert "gateway" not in found
