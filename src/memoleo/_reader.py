"""The hot path: a fresh entry in memory, decoded and counted, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memoleo._store import Job
from memoleo.backends.memory import MemoryBackend
from memoleo.backends.tiered import TieredBackend

__all__ = ["ABSENT", "reader"]

ABSENT: Any = object()
"""What a reader answers when the call has to take the long way."""


def reader(
    memory: MemoryBackend,
    tier: TieredBackend | None,
    job: Job,
    clock: Callable[[], float],
) -> Callable[[bytes], Any]:
    """Return a function that serves one function's calls from the memory of one cache.

    It takes a key and returns the value, counted as a hit, if that is fresh and at hand. It
    decides nothing that the flow wouldn't: only the plainest case ends here, and every doubt is
    answered with `ABSENT`. Free variables, since each attribute would cost on every hit.

    Parameters
    ----------
    memory
        where entries are looked up
    tier
        the store that `memory` stands in front of: now and then it is asked whether another
        process removed something
    job
        any call of the function, for what all its calls have in common
    clock
        the time in seconds since the epoch
    """
    find = memory.live.get
    touch = memory.touched.append
    ttl = job.freshness.ttl
    codec = job.codec.name
    decode = job.codec.decode
    local = job.counters.local

    def fresh(key: bytes) -> Any:
        entry = find(key)
        if entry is None or entry.codec != codec:
            return ABSENT
        now = clock()
        if not 0.0 <= now - entry.created < ttl:
            return ABSENT
        if tier is not None and not tier.last_sync <= now < tier.next_sync:
            return ABSENT
        try:
            value = decode(entry.payload)
        except Exception:
            return ABSENT
        touch(key)
        cell = local.cell
        cell.hits += 1
        cell.saved_ms += entry.cost_ms
        if entry.tokens:
            cell.tokens_saved += entry.tokens
        return value

    return fresh
