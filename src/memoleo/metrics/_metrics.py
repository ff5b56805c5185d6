"""Latencies, errors and cache counters of one process."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf
from typing import Any

from memoleo._platform.forks import renew_after_fork
from memoleo._platform.locks import Lock
from memoleo.backends._urls import open_backend
from memoleo.config import _settings
from memoleo.errors import ConfigError
from memoleo.metrics._counters import CacheCounters
from memoleo.metrics._keeper import keeper
from memoleo.metrics._ledger import Ledger, evictions_of, ledger_at, place_of
from memoleo.metrics._names import OTHER, admits, whole
from memoleo.metrics._recorder import Recorder
from memoleo.metrics._tally import Tally
from memoleo.metrics._totals import RESERVED, OperationTotals, Totals

__all__ = ["RESERVED", "Metrics", "OperationStats", "get_metrics"]


class OperationStats:
    """What one operation did: its latencies, its failures, its retries.

    Attributes
    ----------
    succeeded, failed
        recorders of the durations in milliseconds; `record` adds one
    """

    def __init__(self) -> None:
        self.succeeded = Recorder()
        self.failed = Recorder()
        # Re-entrant, since a signal handler may call into memoleo while its thread holds it.
        self._lock = Lock()
        self._new = OperationTotals()
        self._taken = OperationTotals()
        self._owed = OperationTotals()

    def count(self, *, untimed_errors: int = 0, cancelled: int = 0, retries: int = 0) -> None:
        """Count what is too rare to need a lock-free way."""
        with self._lock:
            self._new.untimed_errors += untimed_errors
            self._new.cancelled += cancelled
            self._new.retries += retries
        keeper.wake()

    def ended(self, ms: float, error: BaseException) -> None:
        """Count a call that raised: as cancelled if it was stopped from outside, else an error.

        Whatever is no `Exception` stops a call from outside: `asyncio.CancelledError`,
        `KeyboardInterrupt`, `SystemExit`, and the `GeneratorExit` of an abandoned generator.
        """
        if isinstance(error, Exception):
            self.failed.record(ms)
        else:
            self.count(cancelled=1)

    def totals(self) -> OperationTotals:
        """Return a copy of what was counted so far."""
        totals = OperationTotals(self.succeeded.sketch(), self.failed.sketch())
        with self._lock:
            totals.merge(self._taken)
            totals.merge(self._new)
        return totals

    def take(self) -> OperationTotals:
        """Return what was counted since the last time; see `Recorder`."""
        totals = OperationTotals(self.succeeded.take(), self.failed.take())
        with self._lock:
            new, self._new = self._new, OperationTotals()
            owed, self._owed = self._owed, OperationTotals()
            self._taken.merge(new)
        totals.merge(new)
        totals.merge(owed)
        return totals

    def reset(self) -> None:
        """Count from zero again."""
        self.succeeded.reset()
        self.failed.reset()
        with self._lock:
            self._owed.merge(self._new)
            self._new, self._taken = OperationTotals(), OperationTotals()

    def _after_fork(self) -> None:
        self._lock = Lock()
        self.succeeded._after_fork()
        self.failed._after_fork()
        self._new, self._taken, self._owed = (OperationTotals() for _ in range(3))


class Metrics:
    """Latencies per operation and counters per type of entries, in constant memory for each.

    Safe from any thread. A forked child counts from zero, so that the numbers of several
    processes can be added up.

    Parameters
    ----------
    clock
        returns seconds; `timed` and `timer` measure with it
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self._operations: dict[str, OperationStats] = {}
        self._types: dict[str, CacheCounters] = {}
        self._ledgers: list[Ledger] = []
        self._has_caches = False
        # Re-entrant, since a signal handler may call into memoleo while its thread holds it.
        self._lock = Lock()
        renew_after_fork(self)

    def operation(self, name: str) -> OperationStats:
        """Return what is counted for an operation; the object stays the same for good.

        After `MOST` names it is that of `OTHER`.

        Raises
        ------
        ConfigError
            the name is reserved, or no text
        """
        given: object = name
        if not isinstance(given, str) or not name:
            raise ConfigError(f"the name of an operation is text, not {name!r}")
        if name == RESERVED:
            raise ConfigError(
                f"the operation name {RESERVED!r} is reserved for the cache's own counters: "
                "take another, such as 'cache_lookup'"
            )
        found = self._operations.get(name)
        if found is None:
            if name != OTHER and not admits(self._operations, "operations"):
                return self.operation(OTHER)
            found = self._operations.setdefault(whole(name), OperationStats())
            if self is _default:
                keeper.add(self)
        return found

    def cache(self, type: str) -> CacheCounters:
        """Return the counters of a type of entries; the object stays the same for good."""
        found = self._types.get(type)
        if found is None:
            if type != OTHER and not admits(self._types, "types of entries"):
                return self.cache(OTHER)
            found = self._types.setdefault(type, CacheCounters())
        return found

    def keep_for(self, cache: Any, backend: Any) -> tuple[Tally, Ledger]:
        """Return where a cache counts, and what keeps that beyond the process.

        Operations are kept beside every cache in use that lives in a file.

        Parameters
        ----------
        cache
            what is counted for as long as it exists
        backend
            where its entries live
        """
        tally = Tally(self.cache, evictions_of(backend))
        ledger = ledger_at(place_of(backend))
        ledger.join(cache, tally)
        # Nobody waits for ever for a lock, and appending is safe without it.
        alone = self._lock.acquire(timeout=1.0)
        try:
            self._has_caches = True
            if ledger not in self._ledgers:
                self._ledgers.append(ledger)
        finally:
            if alone:
                self._lock.release()
        keeper.add(self)
        return tally, ledger

    def flush(self, patience: float = 1.0) -> bool:
        """Write down what was counted since the last time; whether more may come.

        Nothing needs to call it: it happens every few seconds, and when the process ends.

        Parameters
        ----------
        patience
            seconds to wait for others that are writing; with 0 it is left for the next time
        """
        if not self._lock.acquire(timeout=patience):
            return True
        try:
            self._collect(patience)
            if _persists():
                for ledger in self._ledgers:
                    ledger.write(patience=patience)
            for ledger in [ledger for ledger in self._ledgers if not ledger.is_needed]:
                self._ledgers.remove(ledger)
            return bool(self._ledgers) or self is _default
        finally:
            self._lock.release()

    def collect(self) -> None:
        """Hand over what was counted since the last time to what keeps it, without writing."""
        if self._lock.acquire(timeout=1.0):
            try:
                self._collect(1.0)
            finally:
                self._lock.release()

    def _collect(self, patience: float) -> None:
        if not self._ledgers and self is _default and not self._has_caches:
            self._ledgers = _default_ledgers()
        if not self._ledgers:
            return
        operations = Totals()
        for name, operation in list(self._operations.items()):
            totals = operation.take()
            if totals:
                operations.operations[name] = totals
        for ledger in self._ledgers:
            ledger.take(operations, patience=patience)

    def record_latency(self, operation: str, ms: float) -> None:
        """Count a success that took so many milliseconds.

        Raises
        ------
        ConfigError
            the name is reserved, or `ms` is no finite number from 0 up
        """
        # The plain case in place: recording must not be felt, and each call would be a tenth.
        found = self._operations.get(operation) if type(operation) is str else None
        if found is None:
            found = self.operation(operation)
        found.succeeded.record(ms if type(ms) is float and 0.0 <= ms < inf else _duration(ms))

    def record_error(self, operation: str, ms: float | None = None) -> None:
        """Count a failure, and its duration apart from those of successes.

        Raises
        ------
        ConfigError
            the name is reserved, or `ms` is no finite number from 0 up
        """
        if ms is None:
            self.operation(operation).count(untimed_errors=1)
        else:
            self.operation(operation).failed.record(_duration(ms))

    def record_retry(self, operation: str) -> None:
        """Count a further attempt at an operation.

        Raises
        ------
        ConfigError
            the name is reserved
        """
        self.operation(operation).count(retries=1)

    def get_stats(self) -> dict[str, Any]:
        """Return all numbers as plain data.

        Returns
        -------
        dict
            ``{operation: {"count", "errors", "p50_ms", "p95_ms", "p99_ms", "avg_ms", "max_ms",
            "error_p50_ms", "error_avg_ms", "error_max_ms", "cancelled", "retries"},
            "cache": {type: {"hits", "misses", "hit_rate", "lookups", …}}}``. `count` and the
            latencies are those of successes; quantiles are within 1 % of the true ones.
        """
        stats: dict[str, Any] = {}
        for ledger in list(self._ledgers):
            ledger.look()
        for name, operation in list(self._operations.items()):
            totals = operation.totals()
            if totals:
                stats[name] = totals.summary()
        types = {type: counters.summary() for type, counters in list(self._types.items())}
        stats[RESERVED] = {type: counts for type, counts in types.items() if any(counts.values())}
        return stats

    def reset(self) -> None:
        """Count from zero again, in this process.

        What is kept beside caches stays, and what was counted until now still gets there;
        `memoleo.metrics.clear_metrics` forgets that.
        """
        for operation in list(self._operations.values()):
            operation.reset()
        for counters in list(self._types.values()):
            counters.reset()

    def _after_fork_in_parent(self) -> None:
        for operation in list(self._operations.values()):
            operation.succeeded.wake_again()
            operation.failed.wake_again()

    def _after_fork(self) -> None:
        self._lock = Lock()
        for operation in self._operations.values():
            operation._after_fork()


def _persists() -> bool:
    try:
        settings = _settings.current()
    except ConfigError:
        # Whoever asks for the settings to be used is told what is wrong with them.
        return False
    return settings.enabled and settings.metrics.persist


def _default_ledgers() -> list[Ledger]:
    """Return what keeps operations of a program without a cache: the ledger of the default one."""
    try:
        place = place_of(open_backend(_settings.default_url()))
    except Exception:
        return []
    if place is None:
        return []
    ledger = ledger_at(place)
    ledger.stand_alone()
    return [ledger]


def _duration(ms: float) -> float:
    try:
        if 0 <= ms < inf:
            return float(ms)
    except TypeError:
        pass
    raise ConfigError(f"ms={ms!r} is not a duration: give finite milliseconds, 0 or more")


_default = Metrics()


def get_metrics() -> Metrics:
    """Return the metrics that everything uses by default."""
    return _default
