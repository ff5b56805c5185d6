"""What is in a store, looked at and changed from outside of any call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from memoleo import _switch
from memoleo._calls import Calls
from memoleo._entry import Entry
from memoleo._policy import Freshness, Policy, make_policy
from memoleo._stored import StoredEntry
from memoleo._units import Duration, parse_duration
from memoleo.keys._address import address

__all__ = ["Contents"]

_PLAIN = Policy()


class Contents:
    """The entries of one store, as the methods of `memoleo.Cache` work on them.

    Parameters
    ----------
    calls
        who reads and writes the same store
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._store = calls.store
        self._backend = calls.store.backend

    def get(self, key: str | bytes, default: Any) -> Any:
        """Return a copy of the fresh value under `key`, or `default`."""
        job = self._calls.job(address(key), _PLAIN, _nothing)
        entry = self._store.load(job)
        if entry is None or not Freshness(entry.ttl, _PLAIN).fresh(
            entry.created, self._store.clock()
        ):
            return default
        opened = self._store.open(job, entry)
        return default if opened is None else opened.value

    def set(
        self, key: str | bytes, value: Any, type: str, ttl: Duration | None, tags: Iterable[str]
    ) -> None:
        """Store `value` under `key`, or remove what is there if it would never be fresh."""
        policy = make_policy(type, ttl, tags=tags)
        job = self._calls.job(address(key), policy, _nothing)
        if job.freshness.ttl <= 0:
            self._store.delete(job.key)
            return
        entry = Entry(
            job.codec.encode(value),
            job.codec.name,
            self._store.clock(),
            job.freshness.ttl,
            type=type,
            tags=policy.tags,
        )
        self._store.put(job, entry)

    def delete(self, key: str | bytes) -> bool:
        """Remove the entry under `key`; whether there was one."""
        return self._store.delete(address(key))

    def clear(
        self,
        type: str | None,
        tag: str | None,
        older_than: Duration | None,
        label: str | None,
    ) -> int:
        """Remove the entries that match every given condition; how many there were."""
        before = None
        if older_than is not None:
            before = self._store.clock() - parse_duration(older_than, "older_than")
        return self._backend.clear(type=type, tag=tag, before=before, label=label)

    def clear_expired(self) -> int:
        """Remove what is of no use any more; how many entries that were."""
        return self._backend.clear_expired(self._store.clock())

    def stats(self) -> dict[str, Any]:
        """Return what is stored, as plain data."""
        stats = self._backend.stats()
        return {
            "enabled": _switch.enabled(),
            "total_entries": stats.entries,
            "total_bytes": stats.bytes,
            "by_type": dict(stats.by_type),
            "evicted": stats.evicted,
            "backend": type(self._backend).__name__,
            **stats.details,
        }

    def entries(
        self, type: str | None, tag: str | None, label: str | None
    ) -> Iterator[StoredEntry]:
        """Iterate over what is stored, most recent first."""
        for key, entry in self._backend.entries(type=type, tag=tag, label=label):
            codec = self._calls.codec_named(entry.codec)
            yield StoredEntry.of(key, entry, self._store.clock(), codec)

    def export(self, path: Path) -> int:
        """Write all entries to a file; return how many."""
        from memoleo._portable import write_entries

        return write_entries(path, self._backend.entries())

    def load(self, path: Path) -> int:
        """Store the entries of a file that `export` wrote; return how many."""
        from memoleo._portable import read_entries

        count = 0
        for key, entry in read_entries(path):
            self._backend.set(key, entry)
            count += 1
        return count


def _nothing() -> None:
    return None
