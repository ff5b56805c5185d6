"""Counters that many threads write without a lock, and that still add up."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

from memoleo._platform.forks import renew_after_fork
from memoleo._platform.locks import Lock
from memoleo.metrics._keeper import keeper

__all__ = ["FIELDS", "CacheCounters", "Cell", "Pace", "summarized"]

FIELDS = (
    "hits",
    "misses",
    "stale",
    "errors",
    "stale_if_error",
    "corrupt",
    "refused",
    "unseeded",
    "shared",
    "failures",
    "expired",
    "evicted",
    "saved_ms",
    "hit_ms",
    "tokens_saved",
    "bytes_stored",
    "bytes_served",
    "would_hit",
    "would_miss",
    "would_save_ms",
    "verified",
    "differed",
)


class Pace:
    """How many milliseconds a hit takes, as it was last measured; 0 if it never was."""

    __slots__ = ("ms",)

    def __init__(self) -> None:
        self.ms = 0.0


class Cell:
    """One thread's share of the counters; only that thread writes to it.

    Every lookup ends as exactly one of `hits`, `stale`, `shared` and `misses`.

    Attributes
    ----------
    hits
        lookups answered by a fresh entry
    stale
        lookups answered by an entry past its TTL, while a refresh runs
    shared
        lookups answered by a computation that another caller had under way
    misses
        lookups for which the function ran
    errors
        runs of the function that raised
    stale_if_error
        failed runs for which an entry past its TTL was served instead
    corrupt
        entries found that did not verify or decode; such a lookup is a miss as well
    refused
        results not stored: `cache_if` said no, or they can't be encoded
    unseeded
        answers of a model stored although it was asked to sample without a seed, and would answer
        differently next time
    failures
        operations of the backend that failed
    expired
        entries found past their time; such a lookup is a miss as well
    evicted
        entries that this process removed for lack of room
    saved_ms, tokens_saved
        what the answers without a run would have cost, in milliseconds and in tokens; those who
        waited for another's run saved the less time
    hit_ms
        what the hits themselves took, estimated from samples
    bytes_stored, bytes_served
        the encoded size of what was stored, and of what was answered without a run
    would_hit, would_miss, would_save_ms
        the same for what `memoleo.observe()` only watched
    verified, differed
        hits that were computed again to be compared, and those whose result was another
    """

    __slots__ = (*(name for name in FIELDS if name != "hit_ms"), "_pace", "_presence")

    hits: int
    misses: int
    stale: int
    errors: int
    stale_if_error: int
    corrupt: int
    refused: int
    unseeded: int
    shared: int
    failures: int
    expired: int
    evicted: int
    saved_ms: float
    tokens_saved: int
    bytes_stored: int
    bytes_served: int
    would_hit: int
    would_miss: int
    would_save_ms: float
    verified: int
    differed: int

    def __init__(self, presence: weakref.ref[_Presence], pace: Pace) -> None:
        for name in FIELDS:
            if name != "hit_ms":
                setattr(self, name, 0)
        self._presence = presence
        self._pace = pace

    @property
    def hit_ms(self) -> float:
        return self.hits * self._pace.ms

    @property
    def in_use(self) -> bool:
        """Whether somebody can still write to it."""
        return self._presence() is not None

    def values(self) -> tuple[float, ...]:
        """Return the counters in the order of `FIELDS`."""
        return tuple([getattr(self, name) for name in FIELDS])


class _Presence:
    """Lives as long as its thread and its counters: only the thread's locals hold it."""

    __slots__ = ("__weakref__",)


class _Local(threading.local):
    cell: Cell

    def __init__(self, new_cell: Callable[[_Presence], Cell]) -> None:
        self.presence = _Presence()
        self.cell = new_cell(self.presence)


class CacheCounters:
    """The counters of one type of entries.

    Hot code takes the thread's own cell and adds to it::

        cell = counters.local.cell
        cell.hits += 1
        cell.saved_ms += 12.5

    Take the cell anew for each call, and never hand it to another thread; `local` stays the same
    for good. The sums are exact: no increment is lost to another thread, to a thread's end, or
    to `reset`.
    """

    def __init__(self, parent: CacheCounters | None = None) -> None:
        self._parent = parent
        # Re-entrant, since a signal handler may call into memoleo while its thread holds it.
        self._lock = Lock()
        # Each cell with what it held when counting began; a cell may serve a parent as well.
        self._cells: dict[Cell, tuple[float, ...]] = {}
        self._gone = [0.0] * len(FIELDS)
        self.pace = Pace()
        self._in_use = False
        self.local = _Local(self._new_cell)
        self._in_use = True
        renew_after_fork(self)

    def child(self) -> CacheCounters:
        """Return counters of a part: what they count, these count too.

        Resetting one leaves the other as it is, and what a part counted outlives it.
        """
        return CacheCounters(self)

    def _new_cell(self, presence: _Presence) -> Cell:
        cell = Cell(weakref.ref(presence), self.pace)
        counters: CacheCounters | None = self
        while counters is not None:
            with counters._lock:
                counters._collect()
                counters._cells[cell] = _ZEROS
            counters = counters._parent
        if self._in_use:
            keeper.wake()
        return cell

    def _collect(self) -> None:
        """Take over the cells of threads that have ended, so that they don't pile up."""
        for cell in [cell for cell in self._cells if not cell.in_use]:
            _add(self._gone, cell.values(), self._cells.pop(cell, _ZEROS))

    def snapshot(self) -> dict[str, float]:
        """Return the sum of each counter over all threads; counts are ints, times floats."""
        with self._lock:
            return self._sums(start_anew=False)

    def take(self) -> dict[str, float]:
        """Return the snapshot, and count from zero again: no increment is lost in between."""
        with self._lock:
            return self._sums(start_anew=True)

    def _sums(self, *, start_anew: bool) -> dict[str, float]:
        self._collect()
        sums = list(self._gone)
        for cell, since in list(self._cells.items()):
            values = cell.values()
            _add(sums, values, since)
            if start_anew:
                self._cells[cell] = values
        if start_anew:
            self._gone = [0.0] * len(FIELDS)
        return {
            name: value if name.endswith("_ms") else int(value)
            for name, value in zip(FIELDS, sums, strict=True)
        }

    def summary(self) -> dict[str, float]:
        """Return the snapshot with `lookups` and `hit_rate`; see `summarized`."""
        return summarized(self.snapshot())

    def reset(self) -> None:
        """Count from zero again; the cells stay, since their threads may be writing to them."""
        with self._lock:
            self._gone = [0.0] * len(FIELDS)
            for cell in list(self._cells):
                self._cells[cell] = cell.values()

    def _after_fork(self) -> None:
        self._lock = Lock()
        self.reset()


_ZEROS = (0,) * len(FIELDS)
_NOTHING: dict[str, float] = {name: 0.0 if name.endswith("_ms") else 0 for name in FIELDS}


def _add(sums: list[float], values: tuple[float, ...], since: tuple[float, ...]) -> None:
    for place, (value, before) in enumerate(zip(values, since, strict=True)):
        sums[place] += value - before


def summarized(counts: dict[str, float]) -> dict[str, float]:
    """Return counters with `lookups` and `hit_rate` beside them, and `saved_ms` less `hit_ms`.

    `hit_rate` is the percentage of lookups that were answered without running the function for
    them: ``100 * (hits + stale + shared) / (hits + stale + shared + misses)``.
    """
    rest = {**_NOTHING, **counts}
    answered = rest["hits"] + rest["stale"] + rest["shared"]
    lookups = answered + rest["misses"]
    rest["saved_ms"] = max(0.0, rest["saved_ms"] - rest["hit_ms"])
    return {
        "hits": rest.pop("hits"),
        "misses": rest.pop("misses"),
        "hit_rate": 100.0 * answered / lookups if lookups else 0.0,
        "lookups": lookups,
        **rest,
    }
