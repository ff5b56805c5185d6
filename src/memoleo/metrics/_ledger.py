"""What the programs of one cache did: written down beside it, or held for this process alone."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from memoleo._events import Spell, extras, logger
from memoleo._platform.forks import renew_after_fork
from memoleo._platform.locks import Lock
from memoleo.errors import BackendError
from memoleo.metrics._spans import IN_MEMORY, Place, minute_of, outdated, widened
from memoleo.metrics._tally import Tally
from memoleo.metrics._totals import Totals

if TYPE_CHECKING:
    from memoleo.metrics._ledger_file import LedgerFile

__all__ = ["Ledger", "evictions_of", "farthest", "ledger_at", "path_beside", "place_of"]


_TURN = 5.0


class Ledger:
    """Takes over what was counted, and keeps it until it is written down.

    Parameters
    ----------
    path
        the metrics file; `None` to keep everything in memory
    beside
        a file without which the ledger isn't written either: its folder may be gone, and is not
        to be made again; `None` if it may be made
    """

    def __init__(self, path: str | None, beside: str | None = None) -> None:
        self.path = path
        self._beside = beside
        self._file = None if path is None else _file_at(path)
        self._pending: dict[Place, Totals] = {}
        # What another thread's turn left no time for; appending needs no lock.
        self._inbox: list[tuple[Place, Totals]] = []
        self._members: list[tuple[weakref.ref[Any], Tally]] = []
        self._lock = threading.Lock()
        self._spell = Spell(f"keeping metrics in {path} fails")
        renew_after_fork(self)

    def join(self, cache: Any, tally: Tally) -> None:
        """Keep what a cache counts, for as long as it exists."""
        self._members.append((weakref.ref(cache), tally))

    def look(self) -> None:
        """Have its caches count what their stores have evicted."""
        for _, tally in list(self._members):
            tally.look()

    def stand_alone(self) -> None:
        """Write also where there is no cache yet, and make the folder."""
        self._beside = None

    @property
    def is_needed(self) -> bool:
        """Whether one of its caches still exists, or something is not written yet."""
        if any(cache() is not None for cache, _ in self._members):
            return True
        return self._file is not None and bool(self._pending or self._inbox)

    def take(self, operations: Totals, *, patience: float = 1.0) -> None:
        """Take over what its caches counted, and what operations did meanwhile.

        Parameters
        ----------
        operations
            what was recorded since the last time
        patience
            seconds to wait for another thread that has the ledger
        """
        now = time.time()
        if operations:
            self._inbox.append((minute_of(now), operations))
        if not self._lock.acquire(timeout=patience):
            return
        try:
            gone = [pair for pair in self._members if pair[0]() is None]
            for _, tally in list(self._members):
                counted = Totals()
                tally.take(counted)
                if counted:
                    self._inbox.append((minute_of(now), counted))
            for pair in gone:
                self._members.remove(pair)
            self._sort(now)
        finally:
            self._lock.release()

    def write(self, *, patience: float = 1.0) -> None:
        """Write down what was taken over; what can't be written is kept for the next time.

        Parameters
        ----------
        patience
            seconds to wait for others that are writing
        """
        if self._file is None or not self._pending or not self._may_write():
            return
        if self._spell.skips() and not patience:
            return
        from memoleo.metrics._ledger_file import BusyLedger

        if not self._lock.acquire(timeout=patience):
            return
        started = time.monotonic()
        try:
            self._file.add(self._pending, time.time(), patience)
            self._pending = {}
            self._spell.worked()
        except BusyLedger as error:
            logger.debug("%s", error, extra=extras("busy", path=self.path))
        except Exception as error:
            self._spell.failed(error, time.monotonic() - started)
        finally:
            self._lock.release()

    def read(self, since: float, until: float) -> list[tuple[Place, Totals]]:
        """Return what happened in a stretch of time, as far as it can be read.

        Raises
        ------
        BackendError
            the file can't be read
        """
        with self._turn():
            self._sort(time.time())
            found = [] if self._file is None else self._file.read(since, until)
            for place, totals in self._pending.items():
                if place.start + place.span > since and place.start < until:
                    copy = Totals()
                    copy.merge(totals)
                    found.append((place, copy))
        return found

    def clear(self) -> None:
        """Forget everything.

        Raises
        ------
        BackendError
            the file can't be written
        """
        with self._turn():
            if self._file is not None:
                self._file.clear()
            self._pending, self._inbox = {}, []

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        # Nobody waits for ever: an interrupt may have come just after the lock was taken.
        if not self._lock.acquire(timeout=_TURN):
            raise BackendError(f"{self.path or 'the metrics in memory'}: another thread has them")
        try:
            yield
        finally:
            self._lock.release()

    def _sort(self, now: float) -> None:
        """Merge what came in with the rest, and keep that small however long it has to wait."""
        while self._inbox:
            place, totals = self._inbox.pop(0)
            self._pending.setdefault(place, Totals()).merge(totals)
        for span, before in outdated(now, IN_MEMORY):
            for place in [one for one in self._pending if one.span == span and one.start < before]:
                old = self._pending.pop(place)
                self._pending.setdefault(widened(place), Totals()).merge(old)

    def _may_write(self) -> bool:
        return self._beside is None or os.path.exists(self._beside)

    def _after_fork(self) -> None:
        # The parent writes down what it counted.
        self._lock = threading.Lock()
        self._pending, self._inbox = {}, []


def _file_at(path: str) -> LedgerFile:
    # Whoever has no file doesn't pay for what it takes to write one.
    from memoleo.metrics._ledger_file import LedgerFile

    return LedgerFile(path)


def path_beside(cache_path: str) -> str:
    """Return the path of the metrics file of a cache in a file."""
    return f"{cache_path}.metrics"


def farthest(backend: Any) -> Any:
    """Return the store that entries are evicted from for good."""
    return backend.tiers[-1] if _is_a("memoleo.backends.tiered", backend) else backend


def place_of(backend: Any) -> str | None:
    """Return the path of the file that the farthest store of a backend of ours lives in."""
    store = farthest(backend)
    if not _is_a("memoleo.backends.sqlite", store):
        return None
    path: str = store.path
    return path


def evictions_of(backend: Any) -> dict[str, int] | None:
    """Return what a store of ours counts of its evictions; `None` if it isn't ours."""
    store = farthest(backend)
    ours = ("memoleo.backends.sqlite", "memoleo.backends.memory")
    return store.evictions if any(_is_a(module, store) for module in ours) else None


def _is_a(module: str, backend: Any) -> bool:
    # By name, since importing the classes would load sqlite3 for who only has memory; and a
    # backend of somebody's own is asked for nothing beyond its contract.
    return any(each.__module__ == module for each in type(backend).__mro__)


def ledger_at(cache_path: str | None) -> Ledger:
    """Return the ledger beside the cache in a file, one for a process; `None` for memory."""
    if cache_path is None:
        return Ledger(None)
    path = path_beside(cache_path)
    with _lock:
        found = _ledgers.get(path)
        if found is None:
            found = _ledgers[path] = Ledger(path, beside=cache_path)
        return found


_ledgers: weakref.WeakValueDictionary[str, Ledger] = weakref.WeakValueDictionary()
_lock = Lock()
