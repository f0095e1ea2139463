"""Child processes: started, restarted when they die, ended with the supervisor however it dies."""

import asyncio
import ctypes
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_SETTLED_SECONDS: Final = 5.0
_MAX_BACKOFF: Final = 5.0
_STOP_SECONDS: Final = 25.0
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def _die_with(parent: int) -> None:
    """In the child, before exec: the kernel kills it when the supervisor is gone."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


@dataclass
class Child:
    """One supervised process; `descriptors` are the sockets it inherits."""

    role: str
    name: str
    command: list[str]
    log: Path
    descriptors: tuple[int, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    on_restart: Callable[["Child"], None] = lambda _: None
    process: asyncio.subprocess.Process | None = None
    restarts: int = 0
    _stopping: bool = False
    _watcher: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Its process id, 0 before the first start."""
        return self.process.pid if self.process else 0

    async def start(self) -> None:
        """Start it, and again whenever it ends by itself."""
        await self._spawn()
        self._watcher = asyncio.create_task(self._watch())

    async def _spawn(self) -> None:
        self.log.parent.mkdir(mode=0o700, exist_ok=True)
        parent = os.getpid()
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
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
            os.close(descriptor)

    async def _watch(self) -> None:
        backoff = 0.0
        while self.process is not None:
            started = time.monotonic()
            await self.process.wait()
            if self._stopping:
                return
            settled = time.monotonic() - started > _SETTLED_SECONDS
            backoff = 0.0 if settled else min(max(backoff * 2, 0.1), _MAX_BACKOFF)
            await asyncio.sleep(backoff)
            if self._stopping:
                return
            await self._spawn()
            self.restarts += 1
            self.on_restart(self)

    async def stop(self) -> None:
        """SIGTERM, time to drain, then SIGKILL."""
        self._stopping = True
        if self.process is None:
            return
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self.process.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self.process.wait()
        if self._watcher is not None:
            await self._watcher

    def _signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)

    def last_words(self) -> str:
        """The last line of its log: why it would not start."""
        try:
            lines = self.log.read_text(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1] if lines else ""
