"""Retries that don't wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from memoleo import _pausing

__all__ = ["no_waiting"]


class _NoWaiting(_pausing.Pausing):
    def __init__(self, clock: Callable[[], float] | None) -> None:
        self.waits: list[float] = []
        self._waited = 0.0
        self._clock = clock

    def elapsed(self) -> float:
        return (self._clock or time.monotonic)() + self._waited

    def now(self) -> float:
        return (self._clock or time.time)() + self._waited

    def pause(self, seconds: float) -> None:
        self.waits.append(seconds)
        self._waited += seconds

    async def apause(self, seconds: float) -> None:
        import asyncio

        self.pause(seconds)
        await asyncio.sleep(0)


@contextmanager
def no_waiting(clock: Callable[[], float] | None = None) -> Iterator[list[float]]:
    """Let `retried` go on at once instead of waiting, in every thread and task.

    Time passes for it as if it had waited, so that deadlines hold.

    Parameters
    ----------
    clock
        returns seconds; left out, the real clocks

    Yields
    ------
    list of float
        the seconds of each wait, as they come
    """
    instead = _NoWaiting(clock)
    before = _pausing.replace(instead)
    try:
        yield instead.waits
    finally:
        _pausing.replace(before)
