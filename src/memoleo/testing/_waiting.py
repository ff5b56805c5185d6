"""Retries that don't wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from memoleo._retries import pausing

__all__ = ["no_waiting"]


class _NoWaiting(pausing.Pausing):
    def __init__(self, clock: Callable[[], float] | None, passes: bool) -> None:
        super().__init__()
        self.waits: list[float] = []
        self._waited = 0.0
        self._clock = clock
        self._passes = passes

    def elapsed(self) -> float:
        return (self._clock or time.monotonic)() + self._waited

    def now(self) -> float:
        return (self._clock or time.time)() + self._waited

    def pause(self, seconds: float) -> None:
        self.waits.append(seconds)
        if self._passes:
            self._waited += seconds

    async def apause(self, seconds: float) -> None:
        import asyncio

        self.pause(seconds)
        await asyncio.sleep(0)


@contextmanager
def no_waiting(
    clock: Callable[[], float] | None = None, *, passes: bool = True
) -> Iterator[list[float]]:
    """Let `retried` go on at once instead of waiting, in every thread and task.

    Time passes for it as if it had waited, so that deadlines hold, and each host has its full
    budget of retries. When it ends, everything is as it was before; it nests.

    Parameters
    ----------
    clock
        returns seconds; left out, the real clocks
    passes
        whether time passes by the waits; if not, only the clock moves it

    Yields
    ------
    list of float
        the seconds of each wait, as they come
    """
    instead = _NoWaiting(clock, passes)
    before = pausing.replace(instead)
    try:
        yield instead.waits
    finally:
        pausing.replace(before)
