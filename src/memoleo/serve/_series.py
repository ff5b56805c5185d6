"""What happened in a period, laid out for tables and charts."""

from __future__ import annotations

from typing import Any

from memoleo.metrics._totals import RESERVED

__all__ = ["PERIODS", "first_of", "laid_out"]

PERIODS = {
    "hour": (60, 60),
    "day": (3600, 24),
    "week": (3600, 7 * 24),
    "month": (86_400, 30),
}
"""Name → the length of a step in seconds, and the number of steps."""

_QUANTILES = ("p50_ms", "p95_ms", "p99_ms")
_ANSWERED = ("hits", "stale", "shared")


def first_of(period: str, now: float) -> int:
    """Return when the first step of a period begins, if the last one is under way."""
    step, steps = PERIODS[period]
    return int(now // step) * step - (steps - 1) * step


def laid_out(period: str, metrics: dict[str, Any], first: int) -> dict[str, Any]:
    """Return tables of types and operations, and columns for charts.

    Parameters
    ----------
    period
        one of `PERIODS`
    metrics
        what `read_metrics` says about it
    first
        when it begins
    """
    step, steps = PERIODS[period]
    operations = dict(metrics["stats"])
    types = operations.pop(RESERVED)
    return {
        "step": step,
        "types": sorted(
            ({"type": type, "answered": _answered(row), **row} for type, row in types.items()),
            key=lambda row: (-row["lookups"], row["type"]),
        ),
        "operations": sorted(
            ({"operation": name, **row} for name, row in operations.items()),
            key=lambda row: (-row["count"], row["operation"]),
        ),
        "series": {
            "times": [first + step * number for number in range(steps)],
            **_columns(metrics["series"], first, step, steps),
        },
    }


def _columns(
    parts: list[dict[str, Any]], first: int, step: int, steps: int
) -> dict[str, dict[str, dict[str, list[float | None]]]]:
    types: dict[str, dict[str, list[float | None]]] = {}
    operations: dict[str, dict[str, list[float | None]]] = {}
    for part in parts:
        place = int(part["start"] - first) // step
        if not 0 <= place < steps:
            continue
        stats = dict(part["stats"])
        for type, row in stats.pop(RESERVED).items():
            column = types.setdefault(type, {"lookups": [0] * steps, "answered": [0] * steps})
            column["lookups"][place] = row["lookups"]
            column["answered"][place] = _answered(row)
        for name, row in stats.items():
            column = operations.setdefault(name, {each: [None] * steps for each in _QUANTILES})
            for each in _QUANTILES if row["count"] else ():
                column[each][place] = row[each]
    return {"types": types, "operations": operations}


def _answered(row: dict[str, float]) -> float:
    return sum(row[name] for name in _ANSWERED)
