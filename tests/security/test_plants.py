"""Whoever holds a role's key plants what it may write: bytes that no service would ever write."""

import contextlib
import random
from collections.abc import Iterable, Iterator

import pytest

from shared.bus.topology import ACCOUNTS, Role
from tests.security.plants import HEADS, Planter, payloads
from tests.security.rights import hinted
from tests.security.siege import Siege
from tests.security.wire import ClosedError, frame

WRITERS = [role for role in ACCOUNTS if role is not Role.READER]
KINDS = (Planter.odd_subjects, Planter.odd_heads, Planter.odd_payloads)


def plant(siege: Siege, role: Role, frames: Iterable[bytes]) -> int:
    """Send them all, on a new connection wherever the server has hung up; how many were sent."""
    sent, nats = 0, siege.connect(role)
    for each in frames:
        sent += 1
        try:
            nats.send(each)
            if sent % 50 == 0:
                nats.flush()
        except ClosedError:
            nats.close()
            nats = siege.connect(role)
    with contextlib.suppress(ClosedError):
        nats.flush()
    nats.close()
    return sent


@pytest.mark.parametrize("role", WRITERS)
def test_planted_messages_stop_nobody(siege: Siege, role: Role) -> None:
    """Odd subjects, odd headers, odd payloads, on every subject that the role may write."""
    with siege.attacked():
        for kind in KINDS:
            assert plant(siege, role, kind(Planter(role))) > 20
    siege.assert_proof_holds()


def test_planted_hints_stop_nobody(siege: Siege) -> None:
    """A hint is heard by gateways at once, and nothing of it is true."""
    names = [b"gateway-0", b"gateway-1", b"local", b"ra", b"reload", b"challenge", b"\xff"]
    with siege.attacked():
        for role, pattern in ((each, p) for each in WRITERS for p in hinted(each)):
            subjects = [pattern.replace("*", "").encode() + name for name in names]
            frames = [
                frame(subject, payload, head=head)
                for subject in subjects
                for payload, head in _hints()
            ]
            plant(siege, role, frames)


def _hints() -> Iterator[tuple[bytes, bytes]]:
    for head in HEADS:
        yield b"{}", head
    for payload in payloads(random.Random(0)):
        yield payload, b""
