"""Whoever holds a role's key plants what it may write: bytes that no service would ever write."""

import contextlib
import random
from collections.abc import Iterable, Iterator
from itertools import islice

import pytest

from shared.log.roles import ACCOUNTS, Role
from tests.security.plants import HEADS, Planter, payloads
from tests.security.rights import hinted
from tests.security.siege import Siege
from tests.security.wire import ClosedError, frame

WRITERS = [role for role in ACCOUNTS if role is not Role.READER]
KINDS = (
    Planter.odd_subjects,
    Planter.odd_heads,
    Planter.odd_payloads,
    Planter.strangers_events,
)


def plant(siege: Siege, role: Role, frames: Iterable[bytes]) -> int:
    """Send them all, on a new connection wherever the server has hung up.

    Returns how many the server took without complaint.
    """
    taken, nats = 0, siege.connect(role)
    for batch in _batches(frames):
        try:
            nats.send(*batch)
            nats.flush()
            taken += len(batch) - len(nats.errors)
            nats.errors.clear()
        except ClosedError:
            nats.close()
            nats = siege.connect(role)
            taken += sum(_alone(siege, role, each) for each in batch)
    nats.close()
    return taken


def _alone(siege: Siege, role: Role, each: bytes) -> bool:
    """Send one on a connection of its own; whether the server took it."""
    with contextlib.suppress(ClosedError), siege.connect(role) as nats:
        nats.send(each)
        nats.flush()
        return not nats.errors
    return False


def _batches(frames: Iterable[bytes]) -> Iterator[list[bytes]]:
    rest = iter(frames)
    while batch := list(islice(rest, 50)):
        yield batch


@pytest.mark.parametrize("role", WRITERS)
def test_planted_messages_stop_nobody(siege: Siege, role: Role) -> None:
    """Odd subjects, headers and payloads, and events under a stranger's signature."""
    with siege.attacked():
        planter = Planter(role)
        for kind in KINDS:
            assert plant(siege, role, kind(planter)) > 20
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
            assert plant(siege, role, frames) > 20


def _hints() -> Iterator[tuple[bytes, bytes]]:
    for head in HEADS:
        yield b"{}", head
    for payload in payloads(random.Random(0)):
        yield payload, b""
