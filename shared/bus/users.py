"""The users of the bus: an nkey each, and the subjects it may publish and subscribe to.

Theory of operation. Accounts keep roles apart (docs/decisions/0001). Inside an account the server
would let every user publish and receive everything, including replies to other replicas. So each
user has two allow-lists, derived from the same table as the accounts:

* publish: the subjects of its grants, and the hints of its role. They include no inbox: only the
  server answers requests, so a reply cannot be forged.
* subscribe: the inbox of its own public key, and the hints that its role receives. They include no
  service: a request of another replica, and the reply subject in it, cannot be overheard.

Replicas of a role may share one key or have one each. A key of its own narrows both lists to the
replica's name: it cannot read others' replies and hints, nor write their heartbeats. The server
does not check a message's reply subject, so reply ids are secret (`JetStreamBus.request`):
otherwise, with a shared key, replies could be directed to known ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import nkeys

from shared.bus.grants import HINTS, grants
from shared.log.catalog import ANCHOR_RELOAD_ANSWER, HEARTBEAT
from shared.log.roles import Role
from shared.log.streams import REPLICAS


@dataclass(frozen=True, slots=True)
class User:
    """An nkey that the server accepts; `replica` names its replica, "" if the key is shared."""

    role: Role
    public_key: str
    replica: str = ""

    def own(self, subject: str) -> str:
        """Return a subject of the table, narrowed to the user's replica if it contains a name."""
        if not self.replica:
            return subject
        mine, probe = {"role": self.role}, {"role": f"probe-{self.role}"}
        own = {"name": self.replica}
        get = f"$JS.API.DIRECT.GET.{REPLICAS}."
        answers = ANCHOR_RELOAD_ANSWER
        narrowed = {
            "gw.*": f"gw.{self.replica}",
            HEARTBEAT.wildcard(**mine): HEARTBEAT.wildcard(**mine, **own),
            get + HEARTBEAT.wildcard(**mine): get + HEARTBEAT.wildcard(**mine, **own),
            HEARTBEAT.wildcard(**probe): HEARTBEAT.wildcard(**probe, **own),
            answers.wildcard(): answers.wildcard(replica=self.replica),
        }
        return narrowed.get(subject, subject)


def public_key_of(seed: str) -> str:
    """Return the public key of an nkey seed."""
    pair = nkeys.from_seed(bytearray(seed.encode()))
    return str(pair.public_key.decode())


def inbox_prefix(public_key: str) -> str:
    """Return the subject prefix under which a user's replies arrive."""
    return f"_INBOX.{public_key}"


def publishes(user: User, shards: Sequence[str]) -> list[str]:
    """Return every subject that a user may publish to."""
    granted = [grant.called for grant in grants(shards) if grant.role is user.role]
    hints = [hint.subject for hint in HINTS if hint.publisher is user.role]
    return [user.own(s) if s not in hints else s for s in dict.fromkeys((*granted, *hints))]


def subscribes(user: User) -> list[str]:
    """Return every subject that a user may subscribe to.

    A reader is any NATS client, whose inbox is below `_INBOX` by default. Readers can overhear each
    other's replies, all of which they may read anyway.
    """
    if user.role is Role.READER:
        return ["_INBOX.>"]
    hints = [user.own(hint.subject) for hint in HINTS if hint.listener is user.role]
    return [f"{inbox_prefix(user.public_key)}.>", *dict.fromkeys(hints)]
