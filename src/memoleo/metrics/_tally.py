"""What one cache counted, so that it can be kept beside that cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from memoleo.metrics._counters import CacheCounters
from memoleo.metrics._totals import Totals

__all__ = ["Tally"]

K = TypeVar("K")


class Tally:
    """The counters of one cache, by type of entries and by model.

    What they count, the `Metrics` of the process count too.

    Parameters
    ----------
    of_process
        returns what the process counts for a type
    """

    def __init__(self, of_process: Callable[[str], CacheCounters]) -> None:
        self._of_process = of_process
        self._types: dict[str, CacheCounters] = {}
        self._models: dict[tuple[str, str], CacheCounters] = {}

    def of(self, type: str, model: str = "") -> CacheCounters:
        """Return the counters of a type, or of a model's part of it; they stay the same."""
        if model:
            found = self._models.get((type, model))
            if found is None:
                found = self._models.setdefault((type, model), self.of(type).child())
            return found
        found = self._types.get(type)
        if found is None:
            found = self._types.setdefault(type, self._of_process(type).child())
        return found

    def take(self, into: Totals) -> None:
        """Add what was counted since the last time to `into`."""
        # A part first: what is counted in between is then in the whole, and in the part later.
        for model, counters in list(self._models.items()):
            counts = _something(counters)
            if counts:
                into.models[model] = counts
        for type, counters in list(self._types.items()):
            counts = _something(counters)
            if counts:
                into.types[type] = counts


def _something(counters: CacheCounters) -> dict[str, float]:
    return {name: value for name, value in counters.take().items() if value}
