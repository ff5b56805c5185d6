"""The numbers in the formats of Prometheus and OpenMetrics.

Names and units follow https://prometheus.io/docs/practices/naming/: seconds and bytes, and
``_total`` on what only grows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from memoleo._version import version
from memoleo.metrics._totals import OperationTotals
from memoleo.serve._view import View

try:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.metrics_core import HistogramMetricFamily, Metric
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError(
        "Prometheus' format needs prometheus-client: pip install 'memoleo[serve]'"
    ) from error

__all__ = ["MemoleoCollector", "exposition"]

_OUTCOMES = ("hits", "stale", "shared", "misses")
_COUNTERS = {
    "errors": ("errors", "Computations that raised"),
    "stale_if_error": ("stale_if_error", "Failed computations for which an old entry was served"),
    "corrupt": ("corrupt_entries", "Entries that did not verify or decode"),
    "refused": ("refused_results", "Results that were not stored"),
    "unseeded": ("unseeded_answers", "Stored answers that a model would not give again"),
    "failures": ("backend_failures", "Operations of the store that failed"),
    "evicted": ("evicted_entries", "Entries removed for lack of room"),
    "expired": ("expired_entries", "Entries found past their time"),
    "bytes_stored": ("stored_bytes", "Bytes of results that were stored"),
    "bytes_served": ("served_bytes", "Bytes of results that were answered from the cache"),
    "verified": ("verified_hits", "Hits that were computed again for comparison"),
    "differed": ("differing_hits", "Verified hits whose result differed"),
    "tokens_saved": ("saved_tokens", "Tokens that answers without a computation would have cost"),
}
_OPERATION_COUNTERS = {
    "errors": "Operations that raised",
    "retries": "Further attempts at operations",
    "cancelled": "Operations stopped from outside",
}
_QUANTILES = (0.5, 0.95, 0.99)
_BOUNDS = (0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds: from a hit in memory to a long answer of a model."""


class MemoleoCollector(Collector):
    """Reads the numbers when a registry asks for them.

    Parameters
    ----------
    view
        what reads them
    """

    def __init__(self, view: View) -> None:
        self._view = view

    def describe(self) -> list[Metric]:
        """Say nothing beforehand: registering must not read the store."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield what there is to say now."""
        totals = self._view.totals()
        yield InfoMetricFamily("memoleo", "Which memoleo this is", {"version": version()})
        yield from _of_types(totals.types)
        yield from _of_operations(totals.operations)
        up = self._view.is_readable()
        yield GaugeMetricFamily("memoleo_store_up", "Whether the store can be read", up)
        if up:
            yield from _of_the_store(self._view.stats())


def exposition(view: View, accept: str) -> tuple[bytes, str]:
    """Return the text of all numbers, and its content type.

    Parameters
    ----------
    view
        what reads them
    accept
        the Accept header of who asks: OpenMetrics for those who take it, else the text format
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MemoleoCollector(view))
    encode, kind = choose_encoder(accept)
    return encode(registry), kind


def _of_types(types: dict[str, dict[str, float]]) -> Iterator[Metric]:
    lookups = CounterMetricFamily(
        "memoleo_cache_lookups", "Lookups by how they ended", labels=("type", "outcome")
    )
    for type, counts in types.items():
        for outcome in _OUTCOMES:
            lookups.add_metric((type, outcome), counts.get(outcome, 0))
    yield lookups
    saved = CounterMetricFamily(
        "memoleo_cache_saved_seconds",
        "Time that answers without a computation would have cost",
        labels=("type",),
    )
    for type, counts in types.items():
        saved.add_metric((type,), counts.get("saved_ms", 0.0) / 1000)
    yield saved
    for name, (suffix, text) in _COUNTERS.items():
        family = CounterMetricFamily(f"memoleo_cache_{suffix}", text, labels=("type",))
        for type, counts in types.items():
            family.add_metric((type,), counts.get(name, 0))
        yield family


def _of_operations(operations: dict[str, OperationTotals]) -> Iterator[Metric]:
    durations = HistogramMetricFamily(
        "memoleo_operation_duration_seconds",
        "Durations of successful operations",
        labels=("operation",),
    )
    quantiles = GaugeMetricFamily(
        "memoleo_operation_duration_quantile_seconds",
        "Quantiles of these durations since counting began, within 1 %",
        labels=("operation", "quantile"),
    )
    for operation, totals in operations.items():
        sketch = totals.succeeded
        counts = sketch.up_to([1000 * bound for bound in _BOUNDS])
        buckets = [(str(bound), count) for bound, count in zip(_BOUNDS, counts, strict=True)]
        durations.add_metric(
            (operation,), [*buckets, ("+Inf", sketch.count)], sum_value=sketch.sum / 1000
        )
        for quantile, ms in zip(_QUANTILES, sketch.quantiles(_QUANTILES), strict=True):
            quantiles.add_metric((operation, str(quantile)), ms / 1000)
    yield durations
    yield quantiles
    for name, text in _OPERATION_COUNTERS.items():
        family = CounterMetricFamily(f"memoleo_operation_{name}", text, labels=("operation",))
        for operation, totals in operations.items():
            family.add_metric((operation,), totals.summary()[name])
        yield family


def _of_the_store(stats: dict[str, Any]) -> Iterator[Metric]:
    entries = GaugeMetricFamily("memoleo_store_entries", "Entries by type", labels=("type",))
    for type, count in stats["by_type"].items():
        entries.add_metric((type,), count)
    yield entries
    for name, key, text in (
        ("memoleo_store_size_bytes", "total_bytes", "Size of what is stored"),
        ("memoleo_store_limit_bytes", "max_bytes", "What the store may grow to"),
        ("memoleo_store_file_bytes", "file_bytes", "Size of the store's file"),
    ):
        if isinstance(stats.get(key), (int, float)):
            yield GaugeMetricFamily(name, text, stats[key])
    yield GaugeMetricFamily("memoleo_enabled", "Whether anything is cached", stats["enabled"])
