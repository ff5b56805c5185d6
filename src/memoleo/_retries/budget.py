"""How many retries a host gets: a token bucket each, so that a broken host meets no storm.

A retry takes a token. A bucket holds so many of them, fills by so many a second, and gets back what
a call took that succeeded in the end. Where it is empty, errors are final at once.
"""

from __future__ import annotations

from memoleo._platform.forks import renew_after_fork
from memoleo._platform.locks import Lock

__all__ = ["RetryBudget"]

_HOSTS = 1024


class RetryBudget:
    """The buckets of all hosts, from any thread or task. One met for the first time has it full.

    No clock of its own: whoever calls says what time it is, on a clock that nobody sets. Its
    numbers may be set at any time, and hold for every bucket from then on.

    Parameters
    ----------
    burst
        the tokens that a bucket holds
    per_second
        those that it gets back each second
    """

    def __init__(self, burst: int, per_second: float) -> None:
        self.burst = burst
        self.per_second = per_second
        self._buckets: dict[str, tuple[float, float]] = {}
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = Lock()

    def take(self, host: str, now: float) -> bool:
        """Take a token, and return whether there was one.

        Parameters
        ----------
        host
            where the retry would go
        now
            seconds
        """
        with self._lock:
            tokens = self._fill(host, now)
            taken = tokens >= 1
            self._buckets[host] = (tokens - taken, now)
            return taken

    def give_back(self, host: str, tokens: int, now: float) -> None:
        """Return what a call took that succeeded."""
        with self._lock:
            self._buckets[host] = (min(self._fill(host, now) + tokens, self.burst), now)

    def left(self, host: str, now: float) -> float:
        """Return the tokens that a host has."""
        with self._lock:
            tokens = self._fill(host, now)
            self._buckets[host] = (tokens, now)
            return tokens

    def _fill(self, host: str, now: float) -> float:
        """Return the tokens at `now`; the host has to be put back, as the one used last."""
        tokens, since = self._buckets.pop(host, (float(self.burst), now))
        if len(self._buckets) >= _HOSTS:
            del self._buckets[next(iter(self._buckets))]
        # A clock that was replaced in between may be behind.
        return min(tokens + max(now - since, 0.0) * self.per_second, self.burst)
