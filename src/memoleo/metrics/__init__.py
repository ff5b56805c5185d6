"""What the program and its caches did: latencies, errors, hits, and what they saved."""

from __future__ import annotations

from memoleo.metrics._counters import CacheCounters
from memoleo.metrics._metrics import Metrics, OperationStats, get_metrics
from memoleo.metrics._report import clear_metrics, read_metrics, read_savings
from memoleo.metrics._sketch import Sketch

__all__ = [
    "CacheCounters",
    "Metrics",
    "OperationStats",
    "Sketch",
    "clear_metrics",
    "get_metrics",
    "read_metrics",
    "read_savings",
]
