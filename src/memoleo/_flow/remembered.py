"""What a process remembers of keys from one call to the next: whose turn it is, what it saw."""

from __future__ import annotations

import hashlib

from memoleo._flow.store import Job
from memoleo._platform.forks import renew_after_fork
from memoleo._platform.locks import Lock

__all__ = ["Remembered", "variant_key"]

_MOST = 65_536
"""Keys that are remembered; the oldest are forgotten first."""


class Remembered:
    """Which variant of a key comes next, and when `observe` saw a key last."""

    def __init__(self) -> None:
        self._after_fork()
        renew_after_fork(self)

    def turn(self, key: bytes, variants: int) -> int:
        """Return which of its variants a key is at, from 0, and move on to the next."""
        with self._lock:
            turn = self._turns.pop(key, 0)
            if len(self._turns) >= _MOST:
                del self._turns[next(iter(self._turns))]
            self._turns[key] = (turn + 1) % variants
            return turn

    def seen(self, job: Job, now: float) -> bool:
        """Note that a call was made at `now`; whether its last result would still be fresh."""
        with self._lock:
            before = self._observed.pop(job.key, None)
            if before is not None and job.freshness.fresh(before, now):
                self._observed[job.key] = before
                return True
            if len(self._observed) >= _MOST:
                del self._observed[next(iter(self._observed))]
            self._observed[job.key] = now
            return False

    def unsee(self, job: Job) -> None:
        """Forget that a call was made."""
        with self._lock:
            self._observed.pop(job.key, None)

    def _after_fork(self) -> None:
        self._lock = Lock()
        self._turns: dict[bytes, int] = {}
        self._observed: dict[bytes, float] = {}


def variant_key(key: bytes, turn: int) -> bytes:
    """Return the key of one of the results that are kept for `key`."""
    return key if turn == 0 else hashlib.sha256(b"memoleo:variant" + key + bytes([turn])).digest()
