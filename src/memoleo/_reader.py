"""The hot path: a fresh entry at hand, decoded and counted, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memoleo._entry import Entry
from memoleo._store import Job, Store
from memoleo.backends.memory import MemoryBackend
from memoleo.backends.tiered import TieredBackend
from memoleo.codecs._auto import ESCAPE, AutoCodec
from memoleo.codecs._plain import decode_plain

__all__ = ["NOT_LOOKED", "Missed", "memory_reader", "store_reader"]


class Missed:
    """What a reader answers when the call has to take the long way.

    Parameters
    ----------
    looked
        whether the store was asked
    entry
        what it held
    error
        what it failed with
    """

    __slots__ = ("entry", "error", "looked")

    def __init__(
        self, looked: bool, entry: Entry | None = None, error: Exception | None = None
    ) -> None:
        self.looked = looked
        self.entry = entry
        self.error = error


NOT_LOOKED = Missed(False)
_NOTHING = Missed(True)


def store_reader(store: Store, job: Job) -> Callable[[bytes], Any]:
    """Return what `memory_reader` returns, for a store that answers at once.

    Parameters
    ----------
    store
        where entries are looked up
    job
        any call of the function, for what all its calls have in common
    """
    find = store.backend.get
    reads = store.reads
    clock = store.clock
    ttl = job.freshness.ttl
    codec = job.codec.name
    decode = job.codec.decode
    quick = type(job.codec) is AutoCodec
    local = job.counters.local

    def fresh(key: bytes) -> Any:
        if reads.failing:
            return NOT_LOOKED
        try:
            entry = find(key)
        except Exception as error:
            return Missed(True, None, error)
        if entry is None:
            return _NOTHING
        if entry.codec != codec or not 0.0 <= clock() - entry.created < ttl:
            return Missed(True, entry)
        try:
            payload = entry.payload
            value = decode_plain(payload) if quick and payload[0] != ESCAPE else decode(payload)
        except Exception:
            return Missed(True, entry)
        cell = local.cell
        cell.hits += 1
        cell.saved_ms += entry.cost_ms
        if entry.tokens:
            cell.tokens_saved += entry.tokens
        return value

    return fresh


def memory_reader(
    memory: MemoryBackend,
    tier: TieredBackend | None,
    job: Job,
    clock: Callable[[], float],
) -> Callable[[bytes], Any]:
    """Return a function that serves one function's calls from the memory of one cache.

    It takes a key and returns the value, counted as a hit, if that is fresh and at hand. It
    decides nothing that the flow wouldn't: only the plainest case ends here, and every doubt is
    answered with `Missed`. Free variables, since each attribute would cost on every hit.

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
    quick = type(job.codec) is AutoCodec
    local = job.counters.local

    def fresh(key: bytes) -> Any:
        entry = find(key)
        if entry is None or entry.codec != codec:
            return NOT_LOOKED
        now = clock()
        if not 0.0 <= now - entry.created < ttl:
            return NOT_LOOKED
        if tier is not None and not tier.last_sync <= now < tier.next_sync:
            return NOT_LOOKED
        try:
            payload = entry.payload
            value = decode_plain(payload) if quick and payload[0] != ESCAPE else decode(payload)
        except Exception:
            return NOT_LOOKED
        touch(key)
        cell = local.cell
        cell.hits += 1
        cell.saved_ms += entry.cost_ms
        if entry.tokens:
            cell.tokens_saved += entry.tokens
        return value

    return fresh
