"""A validator's heartbeats, and the commands to reload its anchors."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Self

import structlog

from services.validator.challenges.signed import SIGNED, SignedAccess
from services.validator.challenges.token import AnchorPool
from services.validator.evaluate import Evaluator
from shared.bus.log import Log, read_authentic
from shared.config.load import SettingsError
from shared.limits import ANCHOR_CHARACTERS, HEARTBEAT_ANCHORS
from shared.log.envelope import Message, Stored, sign
from shared.log.events.commands import CommandAnswered, ReloadOrdered
from shared.log.events.state import Heartbeat, LoadedAnchor, TenantReport
from shared.log.roles import Role
from shared.log.streams import OPS
from shared.log.subjects import anchor_reload_command, reload_answer, replica_subject
from shared.observe.logs import log_failure
from shared.observe.metrics import measure_bundle_expiry, measure_expiry
from shared.runtime.heartbeat import HeartbeatLoop
from shared.runtime.log_clock import LogClock
from shared.runtime.process import now

_log = structlog.get_logger()
_MARGIN_SECONDS: Final = 60


class NotHereError(Exception):
    """Raised for a command about a profile that accepts no signed challenges on this replica."""


@dataclass(kw_only=True)
class ValidatorHeartbeats(HeartbeatLoop):
    """Reports a validator, and reloads anchors when operators command it."""

    evaluator: Evaluator
    clock: Callable[[], float]
    tenants: Callable[[], tuple[TenantReport, ...]] = tuple
    hint: str = "command.reload"
    _seen: int | None = None

    @classmethod
    def of(
        cls,
        evaluator: Evaluator,
        name: str,
        since: int,
        log_clock: LogClock,
        tenants: Callable[[], tuple[TenantReport, ...]],
    ) -> Self:
        """Return the heartbeats of this process; `since` is in Unix seconds."""
        return cls(
            bus=evaluator.bus,
            evaluator=evaluator,
            name=name,
            clock=now,
            since=since,
            log_clock=log_clock,
            tenants=tenants,
        )

    def message(self) -> Message:
        """Return the heartbeat, and export the expiry of anchors and credentials in it."""
        pools, tenants = self._pools(), self.tenants()
        self._measure(pools, tenants)
        seen = Heartbeat(
            role=Role.VALIDATOR,
            name=self.name,
            since=self.since,
            anchors={profile: pool.sha256 for profile, pool in pools.items()},
            tenants=tenants,
            loaded=_loaded(pools),
        )
        subject = replica_subject(Role.VALIDATOR, self.name)
        return sign(seen, subject, self.evaluator.live.current.signer)

    def _measure(self, pools: Mapping[str, AnchorPool], tenants: tuple[TenantReport, ...]) -> None:
        """Export the days until each anchor, each bundle's first anchor and each credential expire.

        Removed ones are no longer exported.
        """
        ends = {
            f"{profile}: {anchor.subject}": float(anchor.not_after)
            for profile, pool in pools.items()
            for anchor in pool.all()
        }
        measure_expiry("anchor", ends, self.clock)
        firsts = {
            (profile, _bundle_name(issuer)): min(float(anchor.not_after) for anchor in bundle)
            for profile, pool in pools.items()
            for issuer, bundle in pool.bundles().items()
            if bundle
        }
        measure_bundle_expiry(firsts, self.clock)
        used = {t.connection: float(t.credential_not_after) for t in tenants}
        measure_expiry("credential", {n: end for n, end in used.items() if end}, self.clock)

    def _pools(self) -> dict[str, AnchorPool]:
        access = self.evaluator.live.current.access
        return {name: each.signed.pool for name, each in access.items() if each.signed}

    async def carry_out(self) -> None:
        """Carry out every command after the last one, in order."""
        bus = self.evaluator.bus
        if self._seen is None:
            self._seen = await self._before()
        while stored := await bus.get_next(OPS, anchor_reload_command("*", "*"), self._seen + 1):
            await self._answer(stored)
            self._seen = stored.sequence

    async def _before(self) -> int:
        """Return the last command (sequence) that is older than this replica's files.

        A margin before `since` ensures that none is missed; some may be carried out again.
        """
        seen = 0
        while stored := await self.evaluator.bus.get_next(
            OPS, anchor_reload_command("*", "*"), seen + 1
        ):
            if stored.seconds >= self.since - _MARGIN_SECONDS:
                break
            seen = stored.sequence
        return seen

    async def _answer(self, stored: Stored) -> None:
        settings = self.evaluator.live.current
        command = read_authentic(ReloadOrdered, stored, settings.operators, "command")
        if command is None:
            return
        done, detail = await self._reload(command.profile)
        _log.info("anchors_reloaded" if done else "anchors_kept", profile=command.profile)
        answer = CommandAnswered(request_sha256=stored.sha256(), done=done, detail=detail)
        subject = reload_answer(stored.subject, self.name)
        # The command may have been answered before a restart: then nothing is appended.
        await Log(self.evaluator.bus, settings.signer).append(subject, answer)

    async def _reload(self, profile: str) -> tuple[bool, str]:
        """Read all of the profile's bundles, then swap them in; keep the old ones on any error."""
        try:
            while True:
                before = self._signed(profile)
                pool = await asyncio.to_thread(before.files.read, self.clock())
                if self._signed(profile) is before:  # else a SIGHUP was faster: retry
                    break
        except (SettingsError, NotHereError) as error:
            return False, str(error)
        except Exception as error:  # noqa: BLE001 - one command must not hold up the next
            log_failure("reload_failed", error, profile=profile)
            return False, f"the anchors cannot be read: {type(error).__name__}"
        settings = self.evaluator.live.current
        access = settings.access[profile].with_prepared(SIGNED, replace(before, pool=pool))
        self.evaluator.live.current = replace(settings, access=settings.access | {profile: access})
        return True, _summary(pool)

    def _signed(self, profile: str) -> SignedAccess:
        access = self.evaluator.live.current.access.get(profile)
        if access is None or access.signed is None:
            raise NotHereError(
                f"profile {profile} does not accept signed challenges on this replica"
            )
        return access.signed


def _bundle_name(issuer: str | None) -> str:
    """Return the label of a bundle in metrics."""
    return "common" if issuer is None else f"tenant {issuer[:ANCHOR_CHARACTERS]}"


def _loaded(pools: Mapping[str, AnchorPool]) -> tuple[LoadedAnchor, ...]:
    """Return the anchors to report: if there are too many, those that expire first."""
    found = [
        LoadedAnchor(
            profile=profile,
            subject=anchor.subject[:ANCHOR_CHARACTERS],
            sha256=anchor.sha256,
            not_before=anchor.not_before,
            not_after=anchor.not_after,
            issuer=None if issuer is None else issuer[:ANCHOR_CHARACTERS],
        )
        for profile, pool in pools.items()
        for issuer, bundle in pool.bundles().items()
        for anchor in bundle
    ]
    return tuple(sorted(found, key=lambda each: each.not_after)[:HEARTBEAT_ANCHORS])


def _summary(pool: AnchorPool) -> str:
    anchors = pool.all()
    first = min(anchor.not_after for anchor in anchors)
    date = f"{datetime.fromtimestamp(first, UTC):%Y-%m-%d}"
    return (
        f"1 anchor, expires {date}"
        if len(anchors) == 1
        else (f"{len(anchors)} anchors, first expires {date}")
    )
