"""The numbers that are shown, read from a cache and its metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from memoleo._cache.cache import Cache
from memoleo._entry import Entry
from memoleo._health import NOT_KEPT, look_at, why_unreadable
from memoleo._version import version
from memoleo.backends.memory import MemoryBackend
from memoleo.metrics._report import read_metrics, read_savings, read_totals
from memoleo.serve._kept import Kept
from memoleo.serve._ranking import ranked
from memoleo.serve._series import PERIODS, first_of, laid_out

__all__ = ["View"]

_RANKED = 8
_PREVIEW = 120
_SHOWN_BYTES = 1024**2


class View:
    """Reads what the page and the endpoints show.

    Parameters
    ----------
    source
        returns the cache to look at
    values
        whether to show what is in the entries, and their tags

    Attributes
    ----------
    stats
        returns what `Cache.get_stats` says
    performance
        returns all that was ever counted, in the shape of `Metrics.get_stats`
    totals
        returns the same with whole distributions
    """

    def __init__(self, source: Callable[[], Cache], *, values: bool = False) -> None:
        self._source = source
        self._values = values
        self.stats = Kept(self._read_stats)
        self._leading = Kept(self._read_leading)
        self._savings = Kept(lambda: read_savings(source()))
        self._periods = {name: Kept(partial(self._read_period, name)) for name in PERIODS}
        self.totals = Kept(lambda: read_totals(source()))
        self.performance = Kept(self._read_performance)

    def both(self) -> dict[str, Any]:
        """Return what ``/metrics.json`` shows."""
        return {"performance": self.performance(), "cache": self.stats()}

    def page(self, period: str) -> dict[str, Any]:
        """Return what the page shows of one of the `PERIODS`."""
        stats = self.stats()
        return {
            "now": time.time(),
            "version": version(),
            "enabled": stats["enabled"],
            "period": period,
            **self._periods[period](),
            "savings": self._savings(),
            "store": self._store(stats),
            **self._leading(),
        }

    def is_readable(self) -> bool:
        """Whether the farthest store answers; nearer ones may stand in for it."""
        backend: Any = self._source().backend
        return why_unreadable(getattr(backend, "tiers", (backend,))[-1]) is None

    def health(self) -> dict[str, Any]:
        """Return whether the store can be read, and what was found about it."""
        try:
            stats = self.stats()
            findings = self._store(stats)["findings"]
        except Exception as error:
            return {"status": "problem", "problems": [f"{type(error).__name__}: {error}"]}
        problems = [each["message"] for each in findings if each["status"] == "problem"]
        return {"status": "problem" if problems else "ok", "problems": problems}

    def _read_period(self, period: str) -> dict[str, Any]:
        first = first_of(period, time.time())
        step, _ = PERIODS[period]
        return laid_out(period, read_metrics(self._source(), since=first, step=step), first)

    def _read_performance(self) -> dict[str, Any]:
        stats: dict[str, Any] = read_metrics(self._source())["stats"]
        return stats

    def _read_stats(self) -> dict[str, Any]:
        return self._source().get_stats()

    def _store(self, stats: dict[str, Any]) -> dict[str, Any]:
        cache = self._source()
        found = list(look_at(cache.backend))
        if cache.calls.ledger.path is None and not isinstance(cache.backend, MemoryBackend):
            found.append(NOT_KEPT)
        return {
            "entries": stats["total_entries"],
            "bytes": stats["total_bytes"],
            "max_bytes": stats.get("max_bytes"),
            "by_type": stats["by_type"],
            "findings": [msgspec.to_builtins(each) for each in found],
        }

    def _read_leading(self) -> dict[str, Any]:
        cache = self._source()
        now = time.time()
        largest = ranked(cache.backend, "size", _RANKED)
        hottest = ranked(cache.backend, "used", _RANKED)
        return {
            "largest": [self._entry(cache, *found, now) for found in largest],
            "hottest": [self._entry(cache, *found, now) for found in hottest],
        }

    def _entry(
        self, cache: Cache, key: bytes, entry: Entry, used: float, now: float
    ) -> dict[str, Any]:
        shown = {
            "key": key.hex(),
            "type": entry.type,
            "label": entry.label,
            "size": entry.size,
            "age": now - entry.created,
            "ttl": entry.ttl,
            "idle": max(0.0, now - used),
            "cost_ms": entry.cost_ms,
            "tokens": entry.tokens,
        }
        if self._values:
            shown["tags"] = entry.tags
            shown["value"] = _preview(cache, entry)
        return shown


def _preview(cache: Cache, entry: Entry) -> str:
    if entry.size > _SHOWN_BYTES:
        return "too large to be shown"
    try:
        text = repr(cache.calls.codec_named(entry.codec).decode(entry.payload))
    except Exception as error:
        return f"not readable here: {type(error).__name__}"
    return text if len(text) <= _PREVIEW else f"{text[:_PREVIEW]}…"
