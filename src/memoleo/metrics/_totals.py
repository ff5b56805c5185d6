"""What happened in a stretch of time, as plain numbers that can be added up."""

from __future__ import annotations

from typing import Any

import msgspec

from memoleo.metrics._counters import summarized
from memoleo.metrics._sketch import Sketch

__all__ = ["RESERVED", "OperationTotals", "Totals", "merge_counts"]

RESERVED = "cache"
"""The key of `Metrics.get_stats` that holds the counters of the cache."""

_LATENCIES = ("p50_ms", "p95_ms", "p99_ms")
_OCCURRENCES = ("untimed_errors", "cancelled", "retries")

Counts = dict[str, float]


class OperationTotals:
    """What one operation did.

    Attributes
    ----------
    succeeded, failed
        its durations in milliseconds
    untimed_errors, cancelled, retries
        how many errors without a duration there were, calls stopped from outside, and further
        attempts
    """

    __slots__ = ("cancelled", "failed", "retries", "succeeded", "untimed_errors")

    def __init__(
        self,
        succeeded: Sketch | None = None,
        failed: Sketch | None = None,
        untimed_errors: int = 0,
        cancelled: int = 0,
        retries: int = 0,
    ) -> None:
        self.succeeded = Sketch() if succeeded is None else succeeded
        self.failed = Sketch() if failed is None else failed
        self.untimed_errors = untimed_errors
        self.cancelled = cancelled
        self.retries = retries

    def __bool__(self) -> bool:
        return bool(
            self.succeeded.count
            or self.failed.count
            or self.untimed_errors
            or self.cancelled
            or self.retries
        )

    def merge(self, other: OperationTotals) -> None:
        """Add what others counted."""
        self.succeeded.merge(other.succeeded)
        self.failed.merge(other.failed)
        self.untimed_errors += other.untimed_errors
        self.cancelled += other.cancelled
        self.retries += other.retries

    def summary(self) -> dict[str, float]:
        """Return the numbers as `Metrics.get_stats` shows them."""
        succeeded, failed = self.succeeded, self.failed
        return {
            "count": succeeded.count,
            "errors": failed.count + self.untimed_errors,
            **dict(zip(_LATENCIES, succeeded.quantiles((0.5, 0.95, 0.99)), strict=True)),
            "avg_ms": succeeded.mean,
            "max_ms": succeeded.max,
            "error_p50_ms": failed.quantile(0.5),
            "error_avg_ms": failed.mean,
            "error_max_ms": failed.max,
            "cancelled": self.cancelled,
            "retries": self.retries,
        }

    def to_bytes(self) -> bytes:
        """Return the totals as one block."""
        return _encode(
            [
                self.succeeded.to_data(),
                self.failed.to_data(),
                {name: getattr(self, name) for name in _OCCURRENCES if getattr(self, name)},
            ]
        )

    @classmethod
    def from_bytes(cls, block: bytes) -> OperationTotals:
        """Read what `to_bytes` wrote.

        Raises
        ------
        Exception
            it is no such block
        """
        succeeded, failed, occurrences = _decode(block)
        return cls(
            Sketch.from_data(succeeded),
            Sketch.from_data(failed),
            *[int(occurrences.get(name, 0)) for name in _OCCURRENCES],
        )


class Totals:
    """What a process, or many, did in a stretch of time.

    Attributes
    ----------
    operations
        per operation
    types
        the counters of each type of entries
    models
        the same for calls of a model, under its type and its name: a part of what `types` has
    """

    __slots__ = ("models", "operations", "types")

    def __init__(self) -> None:
        self.operations: dict[str, OperationTotals] = {}
        self.types: dict[str, Counts] = {}
        self.models: dict[tuple[str, str], Counts] = {}

    def __bool__(self) -> bool:
        return bool(self.operations or self.types or self.models)

    def merge(self, other: Totals) -> None:
        """Add what others counted."""
        for name, operation in other.operations.items():
            self.operations.setdefault(name, OperationTotals()).merge(operation)
        for type, counts in other.types.items():
            merge_counts(self.types.setdefault(type, {}), counts)
        for model, counts in other.models.items():
            merge_counts(self.models.setdefault(model, {}), counts)

    def stats(self) -> dict[str, Any]:
        """Return the numbers in the shape of `Metrics.get_stats`."""
        stats: dict[str, Any] = {
            name: operation.summary() for name, operation in sorted(self.operations.items())
        }
        stats[RESERVED] = {type: summarized(counts) for type, counts in sorted(self.types.items())}
        return stats


def merge_counts(counts: Counts, more: Counts) -> None:
    """Add counters to others of the same names."""
    for name, value in more.items():
        counts[name] = counts.get(name, 0) + value


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
