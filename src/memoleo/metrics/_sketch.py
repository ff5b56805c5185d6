"""Quantiles in constant memory, with a stated error.

DDSketch (C. Masson, J. E. Rim, H. K. Lee: *DDSketch: A Fast and Fully-Mergeable Quantile Sketch
with Relative-Error Guarantees*, PVLDB 12(12), 2019): values are counted in buckets whose bounds
grow by a constant factor, so that a bucket's middle is within a fixed ratio of everything in it.
Two sketches merge by adding their buckets, without losing precision.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from math import ceil, inf, log
from typing import Any

__all__ = ["LARGEST", "RELATIVE_ERROR", "SMALLEST", "Sketch"]

RELATIVE_ERROR = 0.01
"""A quantile differs from the true one by at most this ratio."""

SMALLEST = 1e-6
"""Values below this are counted as 0. As milliseconds: a nanosecond."""

LARGEST = 1e10
"""Values above this are counted as this. As milliseconds: 115 days."""

_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_PER_LOG = 1 / log(_GAMMA)
_MIDDLE = 2 / (_GAMMA + 1)


class Sketch:
    """The distribution of non-negative numbers.

    Not safe across threads by itself: `Recorder` is. There are at most 1,844 buckets, whatever
    is added, since what lies outside `SMALLEST` and `LARGEST` shares a bucket; `count`, `sum`,
    `min` and `max` stay exact.
    """

    __slots__ = ("buckets", "count", "max", "min", "sum", "zeros")

    def __init__(self) -> None:
        self.buckets: Counter[int] = Counter()
        self.zeros = 0
        self.count = 0
        self.sum = 0.0
        self.min = inf
        self.max = 0.0

    def add(self, values: Sequence[float]) -> None:
        """Count values; negative ones and NaN count as 0, which a clock set back can yield."""
        if not values:
            return
        least, most, total = min(values), max(values), sum(values)
        if least >= SMALLEST and most <= LARGEST and total == total:
            counted = values
        else:
            values = [value if value > 0 else 0.0 for value in values]
            least, most, total = min(values), max(values), sum(values)
            counted = [min(value, LARGEST) for value in values if value >= SMALLEST]
            self.zeros += len(values) - len(counted)
        self.buckets.update([ceil(log(value) * _PER_LOG) for value in counted])
        self.count += len(values)
        self.sum += total
        self.min = min(self.min, least)
        self.max = max(self.max, most)

    def merge(self, other: Sketch) -> None:
        """Add what another sketch has counted."""
        self.buckets.update(other.buckets)
        self.zeros += other.zeros
        self.count += other.count
        self.sum += other.sum
        self.min = min(self.min, other.min)
        self.max = max(self.max, other.max)

    def to_data(self) -> list[Any] | None:
        """Return the sketch as plain data for `from_data`; `None` if it is empty."""
        if not self.count:
            return None
        return [self.count, self.zeros, self.sum, self.min, self.max, dict(self.buckets)]

    @classmethod
    def from_data(cls, data: Any) -> Sketch:
        """Return the sketch that `to_data` described.

        Raises
        ------
        ValueError, TypeError
            it is no such description
        """
        sketch = cls()
        if data is not None:
            count, zeros, total, least, most, buckets = data
            sketch.count, sketch.zeros, sketch.sum = int(count), int(zeros), float(total)
            sketch.min, sketch.max = float(least), float(most)
            sketch.buckets = Counter({int(index): int(n) for index, n in buckets.items()})
        return sketch

    @property
    def mean(self) -> float:
        """The mean of all values; 0 if there are none."""
        return self.sum / self.count if self.count else 0.0

    def quantile(self, q: float) -> float:
        """Return the lower `q`-quantile, within `RELATIVE_ERROR`; 0 if there are no values.

        It estimates ``sorted(values)[floor(q * (n - 1))]``, the definition of the paper.

        Parameters
        ----------
        q
            from 0 to 1
        """
        return self.quantiles((q,))[0]

    def quantiles(self, qs: Iterable[float]) -> list[float]:
        """Return several quantiles, sorting the buckets once."""
        ordered = sorted(self.buckets.items())
        return [self._quantile(q, ordered) for q in qs]

    def _quantile(self, q: float, ordered: list[tuple[int, int]]) -> float:
        if not self.count:
            return 0.0
        seen = self.zeros
        rank = q * (self.count - 1)
        if seen > rank:
            return 0.0
        for index, n in ordered:
            seen += n
            if seen > rank:
                # The extremes are known exactly, so an estimate beyond them can only be worse.
                return min(max(_GAMMA**index * _MIDDLE, self.min), self.max)
        return self.max

    def up_to(self, bounds: Sequence[float]) -> list[int]:
        """Return how many values are no larger than each bound; exact but for values near it.

        Parameters
        ----------
        bounds
            in ascending order
        """
        counts = []
        seen = self.zeros
        ordered = sorted(self.buckets.items(), reverse=True)
        for bound in bounds:
            while ordered and _GAMMA ** ordered[-1][0] * _MIDDLE <= bound:
                seen += ordered.pop()[1]
            counts.append(seen)
        return counts
