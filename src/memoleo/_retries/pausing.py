"""How retries wait, and by which clocks: the one place that a test replaces."""

from __future__ import annotations

import time

from memoleo._retries.budget import RetryBudget
from memoleo.config._sections import Networking

__all__ = ["Pausing", "current", "replace"]


class Pausing:
    """Real time, and what may be spent in it."""

    def __init__(self) -> None:
        normal = Networking()
        self.budget = RetryBudget(normal.retry_budget, normal.retry_budget_per_second)

    def elapsed(self) -> float:
        """Return seconds of a clock that nobody sets."""
        return time.monotonic()

    def now(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def pause(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    async def apause(self, seconds: float) -> None:
        """Wait, while other tasks run."""
        import asyncio

        await asyncio.sleep(seconds)


_current = Pausing()


def current() -> Pausing:
    """Return what is in use."""
    return _current


def replace(pausing: Pausing) -> Pausing:
    """Use another from now on, in every thread, and return the one before."""
    global _current
    before, _current = _current, pausing
    return before
