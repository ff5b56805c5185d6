"""Durations recorded from any thread, for less than it takes to lock."""

from __future__ import annotations

from memoleo._platform.locks import Lock
from memoleo.metrics._keeper import keeper
from memoleo.metrics._sketch import Sketch

__all__ = ["Recorder"]

_BATCH = 64


class Recorder:
    """A `Sketch` that any thread may add to.

    Recording appends to a list, which CPython does atomically with and without the GIL. Whoever
    finds the list full moves it into the sketch, unless somebody else is at it: nobody waits,
    nothing is lost, and what is pending is counted when somebody reads.

    Who keeps the numbers beyond the process takes what is new since the last time; that changes
    nothing for who reads them here, and neither does `reset` for who keeps them.
    """

    __slots__ = ("_batch", "_busy", "_lock", "_new", "_owed", "_pending", "_taken")

    def __init__(self) -> None:
        # A signal handler may record, or read, while its own thread is folding: the lock is
        # re-entrant so that it can't hang, and `_busy` keeps it out of the half-updated sketch.
        self._lock = Lock()
        self._busy = False
        self._pending: list[float] = []
        self._batch = 1
        self._new = Sketch()
        self._taken = Sketch()
        self._owed: Sketch | None = None

    def record(self, value: float) -> None:
        """Count a value."""
        pending = self._pending
        pending.append(value)
        if len(pending) >= self._batch and self._lock.acquire(blocking=False):
            try:
                self._fold()
            finally:
                self._lock.release()
            self._batch = _BATCH
            keeper.wake()

    def _fold(self) -> None:
        if self._busy:
            return
        self._busy = True
        try:
            # Others only append, so the first n stay the same until they are deleted here.
            pending = self._pending
            batch = pending[: len(pending)]
            del pending[: len(batch)]
            self._new.add(batch)
        finally:
            self._busy = False

    def sketch(self) -> Sketch:
        """Return a copy of what was counted so far."""
        copy = Sketch()
        with self._lock:
            self._fold()
            nested, self._busy = self._busy, True
            try:
                copy.merge(self._taken)
                copy.merge(self._new)
            finally:
                self._busy = nested
        return copy

    def take(self) -> Sketch:
        """Return what was counted since the last time."""
        with self._lock:
            self._fold()
            if self._busy:
                return Sketch()
            self._busy = True
            try:
                new, self._new = self._new, Sketch()
                self._taken.merge(new)
                owed, self._owed = self._owed, None
                if owed is not None:
                    new.merge(owed)
            finally:
                self._busy = False
        return new

    def reset(self) -> None:
        """Forget what was counted."""
        with self._lock:
            self._fold()
            if self._new.count:
                if self._owed is not None:
                    self._new.merge(self._owed)
                self._owed = self._new
            self._new, self._taken = Sketch(), Sketch()

    def wake_again(self) -> None:
        """Say with the next value that something is being counted."""
        self._batch = 1

    def _after_fork(self) -> None:
        self._batch = 1
        self._lock = Lock()
        self._busy = False
        self._pending.clear()
        self._new, self._taken, self._owed = Sketch(), Sketch(), None
