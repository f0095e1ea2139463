"""A durable pull consumer kept filled: callbacks, heartbeats, a watchdog, restart on reconnect.

nats-py's fetch() in a loop costs four times as much and hangs when the server restarts.

Theory of operation. A pull is a request for a batch; the server delivers messages to its inbox
until the batch is complete or the pull expires.

* `limit` bounds the messages that this replica has requested or not yet settled, together. When
  half of that room is free, `_refill` sends another pull, so that few pulls carry many messages.
* A message does not say which pull it answers. Pulls are served in order, so each message counts
  against the oldest (see docs/decisions/0006-pulls-are-counted-not-matched.md).
* While a pull is open the server sends a heartbeat every 2 seconds. After three intervals of
  silence the watchdog subscribes to a new inbox and pulls again; messages delivered to the old one
  are delivered again after the acknowledgement wait.
* A pull that ends in an error (no consumer, no leader) is not repeated at once, which would be a
  busy loop. The watchdog repeats it, and `problem` says meanwhile why nothing is delivered.
* A lost pull or acknowledgement leads to a redelivery, never to a gap.
* A message without headers and payload ends the import through which its pull is answered
  (nats-server takes it for the end of the replies), and the rest of the pull is lost until the
  acknowledgement wait is over. No service writes such a message, but a stolen role key can.
  After one, the consumer pulls again at once, and for a minute one message a pull: the next empty
  ones then cost nothing. See docs/decisions/0048-empty-messages-end-a-pull.md.
"""

import asyncio
import json
import secrets
from dataclasses import dataclass, field
from typing import Final

import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from shared.bus.client import DESCRIPTION, STATUS, TolerantClient
from shared.bus.core import OnDelivery
from shared.log.envelope import NANOSECONDS, Stored
from shared.log.roles import Role
from shared.observe.metrics import BUS_LAG

_log = structlog.get_logger()
_EXPIRES_SECONDS: Final = 30
_HEARTBEAT_SECONDS: Final = 2
_CAUTIOUS_SECONDS: Final = 60.0
_CAUTIOUS_PULLS: Final = 64  # nats-server keeps 512 of all replicas
_MIN_ACK_TOKENS: Final = 9
MISSING: Final = "is missing"
_NOBODY: Final = "503"
_DELETED: Final = "consumer deleted"


@dataclass(slots=True)
class PulledDelivery:
    """A `Delivery` of a pull consumer; settled once, by ack or nak."""

    stored: Stored
    stream: str
    deliveries: int
    _reply: str
    _pull: "PullConsumption"
    _settled: bool = False

    async def ack(self, count: int = 1) -> None:
        """See `Delivery.ack`."""
        await self._settle(b"+ACK", count)

    async def nak(self, delay: float) -> None:
        """See `Delivery.nak`."""
        await self._settle(b"-NAK " + json.dumps({"delay": int(delay * NANOSECONDS)}).encode(), 1)

    async def in_progress(self) -> None:
        """See `Delivery.in_progress`."""
        await self._pull.send(self._reply, b"+WPI")

    async def _settle(self, answer: bytes, count: int) -> None:
        """Send ack or nak; if it is lost, a redelivery follows, which every handler tolerates."""
        if not self._settled:
            self._settled = True
            await self._pull.settled(count)
        await self._pull.send(self._reply, answer)


@dataclass
class PullConsumption:
    """A running pull consumer with up to `limit` messages requested or unsettled."""

    client: TolerantClient
    stream: str
    durable: str
    callback: OnDelivery
    limit: int
    _subscription: Subscription | None = None
    _asked: dict[str, int] = field(default_factory=dict)
    _unsettled: int = 0
    _last_heard: float = 0.0
    _cautious_until: float = 0.0
    _watchdog: asyncio.Task[None] | None = None
    _stopped: bool = False
    _problem: str = ""

    @property
    def problem(self) -> str:
        """Why nothing is delivered, as of the server's last reply; "" when nothing is wrong."""
        return "" if self._stopped else self._problem

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    async def start(self) -> None:
        """Subscribe, send the first pull and start the watchdog."""
        await self._subscribe()
        self._watchdog = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """See `Consumption.stop`."""
        if self._stopped:
            return
        self._stopped = True
        if self._watchdog is not None:
            self._watchdog.cancel()
        if self._subscription is not None and self.client.is_connected:
            await self._subscription.unsubscribe()

    async def resize(self, limit: int) -> None:
        """See `Consumption.resize`; new room is filled even if less than half is free."""
        self.limit = limit
        await self._refill(least=1)

    async def restart(self) -> None:
        """Drop all open pulls and start over on a new inbox: after a reconnect, or silence."""
        if self._stopped:
            return
        try:
            if self._subscription is not None:
                await self._subscription.unsubscribe()
            await self._subscribe()
        except NatsError as error:
            _log.info("pull_restart_failed", error=type(error).__name__)

    async def _subscribe(self) -> None:
        self._asked.clear()
        self._unsettled = 0
        self._last_heard = asyncio.get_running_loop().time()
        inbox = self.client.new_inbox()
        self._subscription = await self.client.listen(f"{inbox}.*", self._on_message)
        await self._refill()

    async def settled(self, count: int) -> None:
        """Count messages as settled; pull more when half the room is free."""
        self._unsettled = max(0, self._unsettled - count)
        await self._refill()

    async def _refill(self, least: int = 0) -> None:
        """Pull what there is room for, if that is at least `least` (0: half of the limit)."""
        wanted = self.limit - self._unsettled - sum(self._asked.values())
        if self._stopped or self._subscription is None:
            return
        if self._is_cautious():
            for _ in range(min(wanted, _CAUTIOUS_PULLS - len(self._asked))):
                await self._pull(1)
        elif wanted >= (least or self.limit / 2):
            await self._pull(wanted)

    def _is_cautious(self) -> bool:
        return asyncio.get_running_loop().time() < self._cautious_until

    async def _pull(self, wanted: int) -> None:
        """Ask for this many messages."""
        assert self._subscription is not None
        pull = secrets.token_hex(8)
        self._asked[pull] = wanted
        body = {
            "batch": wanted,
            "expires": _EXPIRES_SECONDS * NANOSECONDS,
            "idle_heartbeat": _HEARTBEAT_SECONDS * NANOSECONDS,
        }
        reply = self._subscription.subject.removesuffix("*") + pull
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self.stream}.{self.durable}"
        await self.send(subject, json.dumps(body).encode(), reply)

    async def send(self, subject: str, payload: bytes, reply: str = "") -> None:
        """Publish if connected; a lost pull is repeated, a lost acknowledgement redelivered."""
        if not self.client.is_connected:
            return
        try:
            await self.client.publish(subject, payload, reply)
        except NatsError as error:
            _log.info("bus_send_failed", error=type(error).__name__)

    async def _on_message(self, msg: Msg) -> None:
        self._last_heard = asyncio.get_running_loop().time()
        if msg.reply.startswith("$JS.ACK."):
            self._recovered()
            self._count_down()
            self._unsettled += 1
            if self.durable != Role.AUDIT:  # audit reports its lag itself, by what it has stored
                BUS_LAG.labels(self.stream, self.durable).set(_pending(msg.reply))
            self.callback(_delivery(msg, self))
            if not msg.data and not msg.headers:
                await self._end_of_pull()
            return
        headers = msg.headers or {}
        status = headers.get(STATUS, "")
        if status == "100":
            self._recovered()
            return
        self._asked.pop(msg.subject.rpartition(".")[2], None)  # anything else ends this pull
        if status not in ("404", "408"):
            # The watchdog pulls again; doing so at once would be a busy loop.
            self._ended(status, headers.get(DESCRIPTION, ""))
            return
        self._recovered()
        await self._refill()

    async def _end_of_pull(self) -> None:
        """Pull again after an empty message, unless it was the only one of its pull."""
        was_cautious = self._is_cautious()
        self._cautious_until = asyncio.get_running_loop().time() + _CAUTIOUS_SECONDS
        if not was_cautious:
            _log.warning("empty_message", durable=self.durable, stream=self.stream)
            await self.restart()

    def _ended(self, status: str, description: str) -> None:
        """Record that the server ended a pull: the consumer is gone or has no leader now."""
        missing = status == _NOBODY or description.lower().startswith(_DELETED)
        problem = f"consumer {self.durable} of {self.stream} {MISSING if missing else description}"
        if problem != self._problem:
            log = _log.error if missing else _log.warning
            log("pull_ended", status=status, durable=self.durable, stream=self.stream,
                detail=problem)  # fmt: skip
        self._problem = problem

    def _recovered(self) -> None:
        if self._problem:
            _log.info("pull_recovered", durable=self.durable, stream=self.stream)
        self._problem = ""

    def _count_down(self) -> None:
        """Count a message against the oldest pull, since pulls are served in order.

        A message does not show which pull it answers: it arrives under its own subject.
        """
        oldest = next(iter(self._asked), None)
        if oldest is None:
            return
        self._asked[oldest] -= 1
        if self._asked[oldest] <= 0:
            del self._asked[oldest]

    async def _watch(self) -> None:
        """Pull again after silence, and after a pull that ended in an error."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_HEARTBEAT_SECONDS)
            if not self.client.is_connected:
                continue
            if self._asked and loop.time() - self._last_heard > 3 * _HEARTBEAT_SECONDS:
                _log.warning("pull_silent", durable=self.durable)
                self._problem = f"consumer {self.durable} of {self.stream} does not answer"
                await self.restart()
            else:
                await self._refill()


def _pending(reply: str) -> int:
    """Return how many messages are pending after this one, from its acknowledgement subject."""
    tokens = reply.split(".")
    return int(tokens[8 if len(tokens) == _MIN_ACK_TOKENS else 10])


def _delivery(msg: Msg, pull: PullConsumption) -> PulledDelivery:
    """Build a delivery from a message, whose acknowledgement subject says where it is stored.

    $JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<deliveries>.<seq>.<cseq>.<time>.<pending>
    """
    tokens = msg.reply.split(".")
    first = 2 if len(tokens) == _MIN_ACK_TOKENS else 4
    stream, _, deliveries, sequence, _, time = tokens[first : first + 6]
    stored = Stored(msg.subject, msg.data, msg.headers or {}, int(sequence), int(time))
    return PulledDelivery(stored, stream, int(deliveries), msg.reply, pull)
