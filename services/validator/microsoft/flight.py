"""One piece of work at a time for each key: others who ask for it wait for the same result."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")


@dataclass
class SingleFlight(Generic[_T]):
    """Runs work in tasks of its own, so that a caller who gives up does not end it for others."""

    _tasks: dict[str, asyncio.Task[_T]] = field(default_factory=dict, init=False)

    async def do(self, key: str, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Return the result of the work that is under way for this key; start it if none is."""
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(work())
            task.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(task)

    def _ended(self, key: str, task: asyncio.Task[_T]) -> None:
        self._tasks.pop(key, None)
        if not task.cancelled():
            task.exception()  # read, or asyncio reports an error that nobody waits for any more

    async def close(self) -> None:
        """End all work."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
