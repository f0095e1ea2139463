"""Rows that a range of the log changes, by table and key, before any database. Pure."""

from dataclasses import dataclass, field
from typing import Any

from services.audit.record.event_row import storable

Row = dict[str, Any]
Key = tuple[str, ...]


@dataclass
class Changes:
    """Rows to merge into their tables, by key; a missing column keeps the stored value.

    `counters` are added to the stored ones, and so are `issued` and `refused` of `devices`, and
    `answered` and `refused` of `commands`.
    """

    enrollments: dict[str, Row] = field(default_factory=dict)
    names: dict[Key, Row] = field(default_factory=dict)
    certificates: dict[Key, Row] = field(default_factory=dict)
    devices: dict[Key, Row] = field(default_factory=dict)
    counters: dict[tuple[int, str, str, str], int] = field(default_factory=dict)
    replicas: dict[Key, Row] = field(default_factory=dict)
    reloads: dict[Key, Row] = field(default_factory=dict)
    challenges: dict[Key, Row] = field(default_factory=dict)
    dead_letters: dict[tuple[str, int], Row] = field(default_factory=dict)
    orphans: dict[Key, Row] = field(default_factory=dict)
    retries: dict[tuple[str, int, int], Row] = field(default_factory=dict)
    commands: dict[str, Row] = field(default_factory=dict)


def see(replicas: dict[Key, Row], key: tuple[str, str], time: int) -> None:
    """Record that a replica was seen, at this time of the log (Unix nanoseconds)."""
    role, name = key[0], storable(key[1])
    seen = replicas.setdefault((role, name), {"role": role, "name": name, "first_seen": time})
    seen["last_seen"] = time
