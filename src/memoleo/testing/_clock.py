"""A clock that only moves when it is told to."""

from __future__ import annotations

import threading

__all__ = ["FakeClock"]


class FakeClock:
    """Seconds since the epoch, for `Cache(clock=…)`.

    Parameters
    ----------
    now
        the time it starts at, in seconds
    """

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now
        self._lock = threading.Lock()

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> float:
        """Move on, or back if negative; return the new time."""
        with self._lock:
            self._now += seconds
            return self._now
