"""Entries in the memory of this process."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from typing import Any

from cachetools import LRUCache

from memoleo._entry import Entry
from memoleo._platform.forks import renew_after_fork
from memoleo._platform.locks import Lock
from memoleo._units import parse_count, parse_size
from memoleo.backends._notes import Notes
from memoleo.backends._protocol import BackendStats, Lease

__all__ = ["MemoryBackend"]


class MemoryBackend:
    """Keeps entries in memory, limited by number and by bytes; the least recently used go first.

    Reading takes no lock: keys that were read are noted in a bounded buffer, and whoever writes
    next brings the order of use up to date (as Caffeine does, "Read buffer",
    https://github.com/ben-manes/caffeine/wiki/Design).

    Parameters
    ----------
    max_entries
        the largest number of entries
    max_bytes
        the largest sum of `Entry.size`: a number of bytes, or text such as "256MiB"

    Attributes
    ----------
    live
        the entries by key, to be read only
    touched
        where a reader that looks into `live` itself appends the keys that it found
    evictions
        how many entries of each type were removed for lack of room
    """

    remote = False

    def __init__(self, max_entries: int = 10_000, max_bytes: int | str = 256 * 1024**2) -> None:
        self.max_entries = parse_count(max_entries)
        self.max_bytes = parse_size(max_bytes)
        self.live: dict[bytes, Entry] = {}
        self.touched: deque[bytes] = deque(maxlen=4096)
        self._notes = Notes()
        self.evictions: dict[str, int] = {}
        self._order = _Order(self.max_bytes, self.live, self._notes, self.evictions)
        self._recent: dict[bytes, None] = {}
        self._lock = Lock()
        self._quiet = False
        renew_after_fork(self)

    def get(self, key: bytes) -> Entry | None:
        """See `Backend.get`."""
        entry = self.live.get(key)
        if entry is not None:
            self.touched.append(key)
        return entry

    def set(self, key: bytes, entry: Entry) -> None:
        """See `Backend.set`."""
        with self._lock:
            self._drain()
            order = self._order
            if entry.size > self.max_bytes:
                order.discard(key)
                return
            if key not in order:
                while len(order) >= self.max_entries:
                    order.popitem()
            order[key] = entry

    def delete(self, key: bytes) -> bool:
        """See `Backend.delete`."""
        with self._lock:
            return self._order.discard(key)

    def clear(
        self,
        *,
        type: str | None = None,
        tag: str | None = None,
        label: str | None = None,
        before: float | None = None,
    ) -> int:
        """See `Backend.clear`."""
        with self._lock:
            if type is None and tag is None and label is None and before is None:
                count = len(self._order)
                self._reset()
                return count
            return self._remove(
                key
                for key, entry in self.live.items()
                if _matches(entry, type, tag, label) and (before is None or entry.created < before)
            )

    def clear_expired(self, now: float) -> int:
        """See `Backend.clear_expired`."""
        with self._lock:
            return self._remove(key for key, entry in self.live.items() if entry.expires <= now)

    def entries(
        self, *, type: str | None = None, tag: str | None = None, label: str | None = None
    ) -> Iterator[tuple[bytes, Entry]]:
        """See `Backend.entries`."""
        with self._lock:
            found = [
                (key, entry)
                for key, entry in self.live.items()
                if _matches(entry, type, tag, label)
            ]
        yield from heapq.nlargest(len(found), found, key=lambda pair: pair[1].created)

    def stats(self) -> BackendStats:
        """See `Backend.stats`."""
        with self._lock:
            by_type: dict[str, int] = {}
            for entry in self.live.values():
                by_type[entry.type] = by_type.get(entry.type, 0) + 1
            return BackendStats(
                entries=len(self._order),
                bytes=int(self._order.currsize),
                by_type=by_type,
                evicted=sum(self.evictions.values()),
                details={"max_entries": self.max_entries, "max_bytes": self.max_bytes},
            )

    def lease(self, key: bytes) -> Lease | None:
        """Grant it always: callers of one process wait for one another before they come here."""
        return _GRANTED

    def close(self) -> None:
        """Do nothing: a closed memory keeps its entries, since a later use reopens it."""

    def note(self, room: str, name: bytes, block: bytes) -> None:
        """See `Notebook.note`."""
        self._notes.note(room, name, block)

    def notes(self, room: str) -> list[tuple[bytes, bytes]]:
        """See `Notebook.notes`."""
        return self._notes.notes(room)

    def gone(self, key: bytes) -> tuple[float, str] | None:
        """See `Notebook.gone`."""
        return self._notes.gone(key)

    def take_recent(self) -> list[bytes]:
        """Return the keys that were read since the last time, and forget them.

        A store behind this one learns from it what is still in use.
        """
        with self._lock:
            self._drain()
            recent, self._recent = self._recent, {}
            return list(recent)

    def _drain(self) -> None:
        seen: dict[bytes, None] = {}
        touched = self.touched
        while touched:
            try:
                key = touched.popleft()
            except IndexError:  # another thread's append pushed the last one out
                break
            seen.pop(key, None)
            seen[key] = None
        order = self._order
        for key in seen:
            if key in order:
                order.touch(key)
                self._recent[key] = None
        if len(self._recent) > self.max_entries:
            self._recent = {}

    def _remove(self, keys: Iterator[bytes]) -> int:
        doomed = list(keys)
        for key in doomed:
            self._order.discard(key)
        return len(doomed)

    def _reset(self) -> None:
        self.live.clear()
        self._order = _Order(self.max_bytes, self.live, self._notes, self.evictions)

    def _before_fork(self) -> None:
        # A child must not inherit entries that another thread was half through changing.
        self._quiet = self._lock.acquire(timeout=1.0)

    def _after_fork_in_parent(self) -> None:
        if self._quiet:
            self._quiet = False
            self._lock.release()

    def _after_fork(self) -> None:
        self._lock = Lock()
        if not self._quiet:
            self._reset()
        self._quiet = False


class _Order(LRUCache[bytes, Entry]):
    """The order of use, and the sizes; `live` is kept in step with it."""

    def __init__(
        self,
        max_bytes: int,
        live: dict[bytes, Entry],
        notes: Notes,
        evictions: dict[str, int],
    ) -> None:
        super().__init__(max_bytes, getsizeof=_size)
        self.notes = notes
        self.live = live
        self.evictions = evictions

    def __setitem__(self, key: bytes, entry: Entry, *args: Any) -> None:
        super().__setitem__(key, entry)
        self.live[key] = entry

    def popitem(self) -> tuple[bytes, Entry]:
        key, entry = super().popitem()
        self.live.pop(key, None)
        self.evictions[entry.type] = self.evictions.get(entry.type, 0) + 1
        self.notes.gave_up(key)
        return key, entry

    def discard(self, key: bytes) -> bool:
        self.live.pop(key, None)
        return self.pop(key, None) is not None

    def touch(self, key: bytes) -> None:
        self[key]


def _matches(entry: Entry, type: str | None, tag: str | None, label: str | None) -> bool:
    return (
        (type is None or entry.type == type)
        and (tag is None or tag in entry.tags)
        and (label is None or entry.label == label)
    )


def _size(entry: Entry) -> int:
    return entry.size


class _Granted:
    def release(self) -> None:
        pass


_GRANTED = _Granted()
