"""Latencies, errors and cache counters of one process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from math import inf
from typing import Any

from memoleo._platform import renew_after_fork
from memoleo.errors import ConfigError
from memoleo.metrics._counters import CacheCounters
from memoleo.metrics._recorder import Recorder

__all__ = ["RESERVED", "Metrics", "OperationStats", "get_metrics"]

RESERVED = "cache"
"""The key of `Metrics.get_stats` that holds the counters of the cache."""

_LATENCIES = ("p50_ms", "p95_ms", "p99_ms")


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
        self._lock = threading.RLock()
        self._untimed_errors = 0
        self._cancelled = 0
        self._retries = 0

    def count(self, *, untimed_errors: int = 0, cancelled: int = 0, retries: int = 0) -> None:
        """Count what is too rare to need a lock-free way."""
        with self._lock:
            self._untimed_errors += untimed_errors
            self._cancelled += cancelled
            self._retries += retries

    def ended(self, ms: float, error: BaseException) -> None:
        """Count a call that raised: as cancelled if it was stopped from outside, else an error.

        Whatever is no `Exception` stops a call from outside: `asyncio.CancelledError`,
        `KeyboardInterrupt`, `SystemExit`, and the `GeneratorExit` of an abandoned generator.
        """
        if isinstance(error, Exception):
            self.failed.record(ms)
        else:
            self.count(cancelled=1)

    def summary(self) -> dict[str, float] | None:
        """Return the numbers as `Metrics.get_stats` shows them; `None` if nothing happened."""
        succeeded, failed = self.succeeded.sketch(), self.failed.sketch()
        with self._lock:
            errors = failed.count + self._untimed_errors
            cancelled, retries = self._cancelled, self._retries
        if not (succeeded.count or errors or cancelled or retries):
            return None
        return {
            "count": succeeded.count,
            "errors": errors,
            **dict(zip(_LATENCIES, succeeded.quantiles((0.5, 0.95, 0.99)), strict=True)),
            "avg_ms": succeeded.mean,
            "max_ms": succeeded.max,
            "error_p50_ms": failed.quantile(0.5),
            "error_avg_ms": failed.mean,
            "error_max_ms": failed.max,
            "cancelled": cancelled,
            "retries": retries,
        }

    def reset(self) -> None:
        """Count from zero again."""
        self.succeeded.reset()
        self.failed.reset()
        with self._lock:
            self._untimed_errors = self._cancelled = self._retries = 0

    def _after_fork(self) -> None:
        self._lock = threading.RLock()
        self.succeeded._after_fork()
        self.failed._after_fork()
        self.reset()


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
        renew_after_fork(self)

    def operation(self, name: str) -> OperationStats:
        """Return what is counted for an operation; the object stays the same for good.

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
        return self._operations.setdefault(name, OperationStats()) if found is None else found

    def cache(self, type: str) -> CacheCounters:
        """Return the counters of a type of entries; the object stays the same for good."""
        found = self._types.get(type)
        return self._types.setdefault(type, CacheCounters()) if found is None else found

    def record_latency(self, operation: str, ms: float) -> None:
        """Count a success that took so many milliseconds.

        Raises
        ------
        ConfigError
            the name is reserved, or `ms` is no finite number from 0 up
        """
        self.operation(operation).succeeded.record(_duration(ms))

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
        for name, operation in list(self._operations.items()):
            summary = operation.summary()
            if summary is not None:
                stats[name] = summary
        types = {type: counters.summary() for type, counters in list(self._types.items())}
        stats[RESERVED] = {type: counts for type, counts in types.items() if any(counts.values())}
        return stats

    def reset(self) -> None:
        """Count from zero again."""
        for operation in list(self._operations.values()):
            operation.reset()
        for counters in list(self._types.values()):
            counters.reset()

    def _after_fork(self) -> None:
        for operation in self._operations.values():
            operation._after_fork()


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
