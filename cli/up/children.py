"""Child processes, restarted when they die, and killed if the supervisor dies in any way."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from shared.runtime.process import CONFIGURATION_STATUS

_PR_SET_PDEATHSIG: Final = 1
_SETTLED_SECONDS: Final = 5.0
_MAX_BACKOFF: Final = 5.0
_STOP_SECONDS: Final = 25.0
_STDERR: Final = 2
_LIBC: Final = ctypes.CDLL(None, use_errno=True)

Notice = Callable[[str], None]


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when the supervisor dies; run in the child before exec."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def say(text: str) -> None:
    """Write a line to standard error; ignore a closed terminal or a full disk."""
    with contextlib.suppress(OSError, ValueError):
        print(f"scepstream up: {text}", file=sys.stderr, flush=True)


@dataclass
class Child:
    """One supervised process; `descriptors` are the sockets that it inherits.

    Between `start` and `stop` it is restarted whenever it ends. Other failures (its log,
    `on_restart`, starting the program) are reported once and retried. `refused` is the last log
    line of a process that ended soon after its start with a status in `refusals`, by default the
    status of an unusable configuration.
    """

    role: str
    name: str
    command: list[str]
    log: Path
    descriptors: tuple[int, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    on_restart: Callable[["Child"], None] = lambda _: None
    notice: Notice = say
    process: asyncio.subprocess.Process | None = None
    restarts: int = 0
    refusals: tuple[int, ...] = (CONFIGURATION_STATUS,)
    refused: str = ""
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _watcher: asyncio.Task[None] | None = None
    _said: set[str] = field(default_factory=set)

    @property
    def pid(self) -> int:
        """The process ID, 0 before the first start."""
        return self.process.pid if self.process else 0

    @property
    def ended(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self.process.returncode if self.process else None

    async def start(self) -> None:
        """Start the process, and restart it whenever it ends by itself."""
        await self._spawn()
        self._watcher = asyncio.create_task(self._watch())

    async def _spawn(self) -> None:
        parent = os.getpid()
        descriptor = self._open_log()
        try:
            self.process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                pass_fds=self.descriptors,
                env=self.environment or None,
                start_new_session=True,  # Ctrl-C is for the supervisor, which stops all in order
                preexec_fn=lambda: _die_with(parent),
            )
        finally:
            if descriptor != _STDERR:
                os.close(descriptor)

    def _open_log(self) -> int:
        """Return a descriptor of its log, or our own standard error if that cannot be opened."""
        try:
            self.log.parent.mkdir(mode=0o700, exist_ok=True)
            return os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            self._say(f"{self.name}: cannot open the log {self.log}: {error.strerror}")
            return _STDERR

    async def _watch(self) -> None:
        backoff = 0.0
        while not self._stopping.is_set():
            started = time.monotonic()
            if self.process is not None:
                await self.process.wait()
            if self._stopping.is_set():
                return
            settled = time.monotonic() - started > _SETTLED_SECONDS
            backoff = 0.0 if settled else min(max(backoff * 2, 0.1), _MAX_BACKOFF)
            if settled:
                self._said.clear()
            elif self.ended in self.refusals:
                self.refused = self.last_words()
            self._say(f"{self.name} ended ({_status(self.ended)}): restarting it")
            await self._start_again(backoff)

    async def _start_again(self, backoff: float) -> None:
        """Start it after `backoff` seconds, and retry until that succeeds or `stop` is called."""
        while not await self._stopped_within(backoff):
            try:
                await self._spawn()
            except Exception as error:  # noqa: BLE001 - only a stop ends supervision
                self._say(f"{self.name} cannot be started: {error}")
                backoff = min(max(backoff * 2, 0.1), _MAX_BACKOFF)
            else:
                self._started_again()
                return

    def _started_again(self) -> None:
        self.restarts += 1
        if self._stopping.is_set():
            self._signal(signal.SIGTERM)
        try:
            self.on_restart(self)
        except Exception as error:  # noqa: BLE001 - only a stop ends supervision
            self._say(f"{self.name} restarted, but a step after the restart failed: {error}")

    async def _stopped_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        return self._stopping.is_set()

    def _say(self, text: str) -> None:
        """Report an event; report it again only after the child has run for a while."""
        if text not in self._said:
            self._said.add(text)
            self.notice(text)

    async def restart(self) -> None:
        """Send SIGTERM, wait for it to drain, then SIGKILL; the watcher starts it again."""
        process = self.process
        if process is None:
            return
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()

    def reload(self) -> None:
        """Send SIGHUP, on which it reloads its configuration."""
        self._signal(signal.SIGHUP)

    async def stop(self) -> None:
        """Send SIGTERM, wait for it to drain, then SIGKILL."""
        self._stopping.set()
        if self.process is None:
            return
        ending = asyncio.ensure_future(self._end())
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await asyncio.shield(ending)
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await ending

    async def _end(self) -> None:
        """Wait for the watcher to end, and for a process that it has started meanwhile."""
        if self._watcher is not None:
            await self._watcher
        if self.process is not None:
            await self.process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)

    def last_words(self) -> str:
        """Return the last line of its log, which says why it did not start."""
        try:
            lines = self.log.read_text(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1] if lines else ""


def _status(status: int | None) -> str:
    """Describe how a process ended."""
    if status is None:
        return "not running"
    return f"signal {-status}" if status < 0 else f"exit status {status}"
