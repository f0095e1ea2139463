"""One validator among several: says that it is there, and reads anchors anew when ordered to."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

import structlog

from services.validator.challenges.signed import SIGNED, SignedAccess
from services.validator.challenges.token import AnchorPool
from services.validator.evaluate import Evaluator
from shared.bus.log import Log, report_forgery
from shared.config.load import SettingsError
from shared.log.envelope import Stored, UnreadableEventError, authenticate_as, sign
from shared.log.events.commands import CommandAnswered, ReloadOrdered
from shared.log.events.state import Heartbeat
from shared.log.roles import Role
from shared.log.streams import OPS
from shared.log.subjects import anchor_reload_command, reload_answer, replica_subject
from shared.observe.logs import log_failure
from shared.observe.metrics import measure_expiry
from shared.runtime.log_clock import LogClock
from shared.runtime.periodic import every

_log = structlog.get_logger()
_LOOK_SECONDS: Final = 5.0
_MARGIN_SECONDS: Final = 60


class NotHereError(Exception):
    """Raised for an order about a profile that takes no tokens here; the message says so."""


@dataclass
class Replica:
    """Orders are heard by a hint and looked for on the log, so that none is lost.

    `since` (Unix seconds) is when its settings had been read.
    """

    evaluator: Evaluator
    name: str
    clock: Callable[[], float]
    since: int
    log_clock: LogClock
    _seen: int | None = None
    _hinted: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Say and look, for ever."""
        await self.evaluator.bus.on_hint("command.*", self._on_hint)
        await every(_LOOK_SECONDS, self._look, name="replica", wake=self._hinted)

    async def _look(self) -> None:
        await self._obey()
        await self._say()

    def look_now(self) -> None:
        """The settings were read anew: say so."""
        self._hinted.set()

    def _on_hint(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """A hint only says "look": what it carries is not believed."""
        del subject, payload, headers
        self._hinted.set()

    async def _say(self) -> None:
        """Presence, which ends by itself soon after its replica does."""
        pools = self._pools()
        seen = Heartbeat(
            role=Role.VALIDATOR,
            name=self.name,
            since=self.since,
            anchors={profile: pool.sha256 for profile, pool in pools.items()},
        )
        subject = replica_subject(Role.VALIDATOR, self.name)
        signer = self.evaluator.settings.signer
        message = sign(seen, subject, signer)
        await self.log_clock.beat(message)
        self._measure(pools)

    def _measure(self, pools: Mapping[str, AnchorPool]) -> None:
        """Days until each anchor ends; those that were taken away are not measured any more."""
        ends = {
            f"{profile}: {anchor.subject}": float(anchor.not_after)
            for profile, pool in pools.items()
            for anchor in pool.all()
        }
        measure_expiry("anchor", ends, self.clock)

    def _pools(self) -> dict[str, AnchorPool]:
        access = self.evaluator.settings.access
        return {name: each.signed.pool for name, each in access.items() if each.signed}

    async def _obey(self) -> None:
        """Every order after the last one, in turn."""
        bus = self.evaluator.bus
        if self._seen is None:
            self._seen = await self._before()
        while stored := await bus.get_next(OPS, anchor_reload_command("*", "*"), self._seen + 1):
            await self._answer(stored)
            self._seen = stored.sequence

    async def _before(self) -> int:
        """The last order (sequence) from before this replica read its files, by a safe margin."""
        seen = 0
        while stored := await self.evaluator.bus.get_next(
            OPS, anchor_reload_command("*", "*"), seen + 1
        ):
            if stored.seconds >= self.since - _MARGIN_SECONDS:
                break
            seen = stored.sequence
        return seen

    async def _answer(self, stored: Stored) -> None:
        settings = self.evaluator.settings
        try:
            order = authenticate_as(ReloadOrdered, stored, settings.operators)
        except UnreadableEventError as error:
            report_forgery("command", stored.subject, error)
            return
        done, detail = await self._reload(order.profile)
        _log.info("anchors_reloaded" if done else "anchors_kept", profile=order.profile)
        answer = CommandAnswered(request_sha256=stored.sha256(), done=done, detail=detail)
        subject = reload_answer(stored.subject, self.name)
        # It may have been answered before a restart.
        await Log(self.evaluator.bus, settings.signer).append(subject, answer)

    async def _reload(self, profile: str) -> tuple[bool, str]:
        """Read all of the profile's bundles, then swap them in; on any error keep what was."""
        try:
            while True:
                before = self._signed(profile)
                pool = await asyncio.to_thread(before.files.read, self.clock())
                if self._signed(profile) is before:  # else a SIGHUP was faster: once more
                    break
        except (SettingsError, NotHereError) as error:
            return False, str(error)
        except Exception as error:  # noqa: BLE001 - one order must not hold up the next
            log_failure("reload_failed", error, profile=profile)
            return False, f"the anchors cannot be read: {type(error).__name__}"
        settings = self.evaluator.settings
        access = settings.access[profile].with_prepared(SIGNED, replace(before, pool=pool))
        self.evaluator.settings = replace(settings, access=settings.access | {profile: access})
        return True, _told(pool)

    def _signed(self, profile: str) -> SignedAccess:
        access = self.evaluator.settings.access.get(profile)
        if access is None or access.signed is None:
            raise NotHereError(f"profile {profile} takes no tokens on this replica")
        return access.signed


def _told(pool: AnchorPool) -> str:
    anchors = pool.all()
    first = min(anchor.not_after for anchor in anchors)
    return f"anchors: {len(anchors)}, the first ends {datetime.fromtimestamp(first, UTC):%Y-%m-%d}"
