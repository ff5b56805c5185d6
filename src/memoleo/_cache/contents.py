"""What is in a store, looked at and changed from outside of any call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from memoleo import _switch
from memoleo._cache.choice import Choice, Loaded, Loading
from memoleo._calls import Calls
from memoleo._entry import Entry
from memoleo._flow.policy import Freshness, Policy, make_policy
from memoleo._flow.removals import Removal
from memoleo._platform.interrupts import pass_on
from memoleo._stored import StoredEntry
from memoleo._units import Duration, parse_duration
from memoleo.errors import BackendError, ConfigError, CorruptEntry, MemoleoError
from memoleo.keys._address import address

__all__ = ["Contents"]

T = TypeVar("T")

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
        self._calls.driver.disown(Removal(keys=frozenset({job.key})))
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
        return self._calls.forget(address(key))

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
        else:
            self._calls.driver.disown(Removal(type=type, tag=tag, label=label))
        return _guarded(lambda: self._backend.clear(type=type, tag=tag, before=before, label=label))

    def clear_expired(self) -> int:
        """Remove what is of no use any more; how many entries that were."""
        return _guarded(lambda: self._backend.clear_expired(self._store.clock()))

    def stats(self) -> dict[str, Any]:
        """Return what is stored, as plain data."""
        stats = _guarded(lambda: self._backend.stats())
        return {
            "enabled": _switch.enabled(),
            "total_entries": stats.entries,
            "total_bytes": stats.bytes,
            "by_type": dict(stats.by_type),
            "evicted": stats.evicted,
            "backend": type(self._backend).__name__,
            **stats.details,
        }

    def entries(self, choice: Choice) -> Iterator[StoredEntry]:
        """Iterate over the entries that are chosen, most recent first."""
        now = self._store.clock()
        for key, entry in self._chosen(choice, now):
            codec = self._calls.codec_named(entry.codec)
            yield StoredEntry.of(key, entry, now, codec)

    def _chosen(self, choice: Choice, now: float) -> Iterator[tuple[bytes, Entry]]:
        found = _guarded(
            lambda: self._backend.entries(type=choice.type, tag=choice.tag, label=choice.label)
        )
        while True:
            pair = _guarded(lambda: next(found, None))
            if pair is None:
                return
            key, entry = pair
            if choice.takes(key, entry, now):
                yield key, entry

    def export(self, path: Path, choice: Choice) -> int:
        """Write the entries that are chosen to a file; return how many."""
        from memoleo._cache.portable import write_entries

        now = self._store.clock()
        useful = (pair for pair in self._chosen(choice, now) if pair[1].expires > now)
        about = {"type": choice.type, "tag": choice.tag, "label": choice.label}
        chosen = {name: value for name, value in about.items() if value is not None}
        return write_entries(path, useful, chosen)

    def load(self, path: Path, choice: Choice, merge: str, damaged: str) -> Loaded:
        """Store the entries of a file that `export` wrote, as far as they are chosen."""
        from memoleo._cache.portable import check, read_entries, salvage

        for name, value, words in (
            ("merge", merge, ("newer", "keep", "replace")),
            ("damaged", damaged, ("refuse", "skip")),
        ):
            if value not in words:
                raise ConfigError(f"{name}={value!r}: expected {' or '.join(map(repr, words))}")
        if damaged == "refuse":
            check(path)
        loaded = Loading()
        now = self._store.clock()
        for pair in read_entries(path) if damaged == "refuse" else salvage(path):
            if pair is None:
                loaded.damaged += 1
                continue
            key, entry = pair
            if not choice.matches(key, entry, now):
                continue
            if entry.expires <= now:
                loaded.expired += 1
            elif merge != "replace" and not self._gives_way(key, entry, merge):
                loaded.kept += 1
            else:
                _guarded(partial(self._backend.set, key, entry))
                loaded.stored += 1
        return loaded.done()

    def _gives_way(self, key: bytes, entry: Entry, merge: str) -> bool:
        """Whether what is stored may be replaced by an entry of a file."""
        try:
            present = _guarded(lambda: self._backend.get(key))
        except CorruptEntry:
            return True
        return present is None or (merge == "newer" and present.created < entry.created)


def _guarded(action: Callable[[], T]) -> T:
    """Do something with a store, with a `BackendError` for whatever it fails with."""
    try:
        return action()
    except Exception as error:
        pass_on(error)
        if isinstance(error, MemoleoError):
            raise
        raise BackendError(f"the store failed: {error!r}") from error


def _nothing() -> None:
    return None
