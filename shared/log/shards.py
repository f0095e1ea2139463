"""The shard of the log that holds an enrollment, now and before a change of the map. Pure."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

# How long before an epoch takes effect its shards must exist.
SOON_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Epoch:
    """A shard map and its start, in Unix seconds; `pinned` maps a profile to a fixed shard."""

    effective_at: float
    shards: tuple[str, ...]
    pinned: dict[str, str] = field(default_factory=dict)

    def shard(self, profile: str, transaction: str) -> str:
        """Return the shard of a transaction: pinned by profile, else hashed by transaction."""
        if profile in self.pinned:
            return self.pinned[profile]
        digest = hashlib.sha256(transaction.encode()).digest()
        return self.shards[int.from_bytes(digest[:8], "big") % len(self.shards)]


def shards_for(
    epochs: Sequence[Epoch], profile: str, transaction: str, now: float, window: float
) -> tuple[str, ...]:
    """Return the shard to append to, then those of epochs that ended at most `window` seconds ago.

    Raises ValueError if no epoch is in effect.
    """
    newest_first = sorted(
        (e for e in epochs if e.effective_at <= now), key=lambda e: e.effective_at, reverse=True
    )
    if not newest_first:
        raise ValueError("no shard map is in effect")
    found = [newest_first[0].shard(profile, transaction)]
    for newer, older in pairwise(newest_first):
        if newer.effective_at + window < now:
            break
        found.append(older.shard(profile, transaction))
    return tuple(dict.fromkeys(found))


def all_shards(epochs: Sequence[Epoch]) -> tuple[str, ...]:
    """Return every shard that any epoch names, in order of first mention."""
    return tuple(
        dict.fromkeys(s for epoch in epochs for s in (*epoch.shards, *epoch.pinned.values()))
    )


def begun(epochs: Sequence[Epoch], now: float) -> tuple[Epoch, ...]:
    """Return the epochs that started by `now`; enrollments may be open on the shards of each."""
    return tuple(epoch for epoch in epochs if epoch.effective_at <= now)
