"""Durations recorded from any thread, for less than it takes to lock."""

from __future__ import annotations

import threading

from memoleo.metrics._sketch import Sketch

__all__ = ["Recorder"]

_BATCH = 64


class Recorder:
    """A `Sketch` that any thread may add to.

    Recording appends to a list, which CPython does atomically with and without the GIL. Whoever
    finds the list full moves it into the sketch, unless somebody else is at it: nobody waits,
    nothing is lost, and what is pending is counted when somebody reads.
    """

    __slots__ = ("_busy", "_lock", "_pending", "_sketch")

    def __init__(self) -> None:
        # A signal handler may record, or read, while its own thread is folding: the lock is
        # re-entrant so that it can't hang, and `_busy` keeps it out of the half-updated sketch.
        self._lock = threading.RLock()
        self._busy = False
        self._pending: list[float] = []
        self._sketch = Sketch()

    def record(self, value: float) -> None:
        """Count a value."""
        pending = self._pending
        pending.append(value)
        if len(pending) >= _BATCH and self._lock.acquire(blocking=False):
            try:
                self._fold()
            finally:
                self._lock.release()

    def _fold(self) -> None:
        if self._busy:
            return
        self._busy = True
        try:
            # Others only append, so the first n stay the same until they are deleted here.
            pending = self._pending
            batch = pending[: len(pending)]
            del pending[: len(batch)]
            self._sketch.add(batch)
        finally:
            self._busy = False

    def sketch(self) -> Sketch:
        """Return a copy of what was counted so far."""
        copy = Sketch()
        with self._lock:
            self._fold()
            nested, self._busy = self._busy, True
            try:
                copy.merge(self._sketch)
            finally:
                self._busy = nested
        return copy

    def reset(self) -> None:
        """Forget what was counted."""
        with self._lock:
            self._fold()
            self._sketch = Sketch()

    def _after_fork(self) -> None:
        self._lock = threading.RLock()
        self._busy = False
        self._pending.clear()
        self._sketch = Sketch()
