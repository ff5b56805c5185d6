"""What one cache counted, so that it can be kept beside that cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from memoleo._platform.forks import renew_after_fork
from memoleo.metrics._counters import CacheCounters
from memoleo.metrics._names import OTHER, admits
from memoleo.metrics._totals import Totals

__all__ = ["Tally"]


class Tally:
    """The counters of one cache, by type of entries and by model.

    What they count, the `Metrics` of the process count too.

    Parameters
    ----------
    of_process
        returns what the process counts for a type
    evictions
        how many entries of each type its store has removed for lack of room
    """

    def __init__(
        self,
        of_process: Callable[[str], CacheCounters],
        evictions: Mapping[str, int] | None = None,
    ) -> None:
        self._of_process = of_process
        self._evictions = {} if evictions is None else evictions
        self._evicted = dict(self._evictions)
        renew_after_fork(self)
        self._types: dict[str, CacheCounters] = {}
        self._models: dict[tuple[str, str], CacheCounters] = {}

    def of(self, type: str, model: str = "") -> CacheCounters:
        """Return the counters of a type, or of a model's part of it; they stay the same."""
        if model:
            found = self._models.get((type, model))
            if found is None:
                if self.of(type) is self._types.get(OTHER):
                    type = OTHER
                if model != OTHER and not admits(self._models, "models"):
                    return self.of(type, OTHER)
                found = self._models.setdefault((type, model), self.of(type).child())
            return found
        found = self._types.get(type)
        if found is None:
            if type != OTHER and not admits(self._types, "types of entries"):
                return self.of(OTHER)
            found = self._types.setdefault(type, self._of_process(type).child())
        return found

    def look(self) -> None:
        """Count what the store has evicted since the last time."""
        for type, number in list(self._evictions.items()):
            more = number - self._evicted.get(type, 0)
            if more:
                self._evicted[type] = number
                self.of(type).local.cell.evicted += more

    def take(self, into: Totals) -> None:
        """Add what was counted since the last time to `into`."""
        self.look()
        # A part first: what is counted in between is then in the whole, and in the part later.
        for model, counters in list(self._models.items()):
            counts = _something(counters)
            if counts:
                into.models[model] = counts
        for type, counters in list(self._types.items()):
            counts = _something(counters)
            if counts:
                into.types[type] = counts

    def _after_fork(self) -> None:
        # The parent counts what it has evicted.
        self._evicted = dict(self._evictions)


def _something(counters: CacheCounters) -> dict[str, float]:
    return {name: value for name, value in counters.take().items() if value}
