"""What answers without a run would have cost: time, tokens, and money and energy if priced."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from memoleo.config._sections import Savings
from memoleo.metrics._counters import summarized
from memoleo.metrics._totals import Counts, Totals

__all__ = ["savings_of"]

_MS_PER_HOUR = 3_600_000.0
_MILLION = 1_000_000.0


def savings_of(totals: Totals, prices: Savings) -> dict[str, Any]:
    """Return what was saved, in all and per type.

    Parameters
    ----------
    totals
        what happened
    prices
        what a run costs

    Returns
    -------
    dict
        ``{"total": {…}, "types": {type: {…}}, "currency": label}``. Each holds ``runs`` (calls
        answered without one), ``runs_shared`` (those of them that waited for another's run),
        ``ms``, ``tokens``, ``kwh`` and ``money``; the last two are `None` without prices
    """
    types = {
        type: _of_type(type, counts, totals, prices)
        for type, counts in sorted(totals.types.items())
        if _runs(counts) or counts.get("tokens_saved")
    }
    return {
        "total": _sum(list(types.values()), prices),
        "types": types,
        "currency": prices.currency,
    }


def _of_type(type: str, counts: Counts, totals: Totals, prices: Savings) -> dict[str, Any]:
    ms = summarized(counts)["saved_ms"]
    tokens = counts.get("tokens_saved", 0)
    kwh = None if prices.watts is None else ms / _MS_PER_HOUR * prices.watts / 1000
    return {
        "runs": _runs(counts),
        "runs_shared": counts.get("shared", 0),
        "ms": ms,
        "tokens": tokens,
        "kwh": kwh,
        "money": _money(type, ms, tokens, kwh, totals, prices),
    }


def _money(
    type: str, ms: float, tokens: float, kwh: float | None, totals: Totals, prices: Savings
) -> float | None:
    amounts: list[float] = []
    if prices.compute_per_hour is not None:
        amounts.append(ms / _MS_PER_HOUR * prices.compute_per_hour)
    if kwh is not None and prices.price_per_kwh is not None:
        amounts.append(kwh * prices.price_per_kwh)
    for (owner, model), counts in totals.models.items():
        if owner == type:
            part = counts.get("tokens_saved", 0)
            tokens -= part
            price = _price(prices.tokens, model, type)
            if price is not None:
                amounts.append(part / _MILLION * price)
    price = _price(prices.tokens, type)
    if price is not None:
        # A part may have been written down before its whole was counted.
        amounts.append(max(0, tokens) / _MILLION * price)
    return sum(amounts) if amounts else None


def _price(prices: dict[str, float], *names: str) -> float | None:
    """Return the price of the first name that has one; the longest pattern that fits counts."""
    for name in names:
        fitting = [pattern for pattern in prices if fnmatchcase(name, pattern)]
        if fitting:
            return prices[max(fitting, key=lambda pattern: (len(pattern), pattern))]
    return None


def _runs(counts: Counts) -> float:
    return sum(counts.get(name, 0) for name in ("hits", "stale", "shared"))


def _sum(parts: list[dict[str, Any]], prices: Savings) -> dict[str, Any]:
    def total(name: str) -> Any:
        values = [part[name] for part in parts if part[name] is not None]
        return sum(values) if values else None

    return {
        "runs": total("runs") or 0,
        "runs_shared": total("runs_shared") or 0,
        "ms": total("ms") or 0.0,
        "tokens": total("tokens") or 0,
        "kwh": total("kwh") if parts or prices.watts is None else 0.0,
        "money": total("money"),
    }
