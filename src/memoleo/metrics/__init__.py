"""What the program and its caches did: latencies, errors, hits, and what they saved."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memoleo.metrics._counters import CacheCounters
    from memoleo.metrics._metrics import Metrics, OperationStats, get_metrics
    from memoleo.metrics._report import clear_metrics, read_metrics, read_savings
    from memoleo.metrics._sketch import Sketch

_HOMES = {
    "CacheCounters": "_counters",
    "Metrics": "_metrics",
    "OperationStats": "_metrics",
    "Sketch": "_sketch",
    "clear_metrics": "_report",
    "get_metrics": "_metrics",
    "read_metrics": "_report",
    "read_savings": "_report",
}

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


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
