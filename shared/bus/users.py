"""Who connects to the bus: an nkey each, and what it may publish and subscribe to.

Theory of operation. Accounts keep roles apart (docs/decisions/0001); inside an account the server
would let everybody publish and hear everything, replies to other replicas included. So each user
has two allow-lists, made from the same table as the accounts:

* publish: the subjects of its grants, and the hints of its role. No inbox is among them: nobody
  but the server answers a request, so an answer cannot be forged.
* subscribe: the inbox of its own public key, and the hints that its role hears. No service is
  among them: a request of another replica, and the reply subject in it, cannot be overheard.

Replicas of a role may share one key, or have one each. A key of its own narrows both lists to the
replica's name: others' replies and hints cannot be read with it, nor their heartbeats written.
The reply subject of a message is not checked by the server, so reply ids are secrets
(`JetStreamBus.request`): with a key that is shared, answers could else be led to known ids.
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
    """An nkey that the server lets in; `replica` names the one whose own key it is."""

    role: Role
    public_key: str
    replica: str = ""

    def own(self, subject: str) -> str:
        """A subject of the table, narrowed to the replica where it names one."""
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
    """The public key of an nkey seed."""
    pair = nkeys.from_seed(bytearray(seed.encode()))
    return str(pair.public_key.decode())


def inbox_prefix(public_key: str) -> str:
    """The subject below which a user's replies arrive."""
    return f"_INBOX.{public_key}"


def publishes(user: User, shards: Sequence[str]) -> list[str]:
    """Every subject that a user may publish."""
    granted = [grant.called for grant in grants(shards) if grant.role is user.role]
    hints = [hint.subject for hint in HINTS if hint.publisher is user.role]
    return [user.own(s) if s not in hints else s for s in dict.fromkeys((*granted, *hints))]


def subscribes(user: User) -> list[str]:
    """Every subject that a user may subscribe to.

    A reader is any NATS client, whose inbox is `_INBOX.>` unless told otherwise: readers may
    overhear what they all may read.
    """
    if user.role is Role.READER:
        return ["_INBOX.>"]
    hints = [user.own(hint.subject) for hint in HINTS if hint.listener is user.role]
    return [f"{inbox_prefix(user.public_key)}.>", *dict.fromkeys(hints)]
