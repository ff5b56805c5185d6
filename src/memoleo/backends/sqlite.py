"""Entries in an SQLite file, which any number of threads and processes may share."""

from __future__ import annotations

import atexit
import contextlib
import os
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from memoleo._entry import Entry
from memoleo._platform import renew_after_fork
from memoleo._units import parse_count, parse_duration, parse_size
from memoleo.backends._protocol import BackendStats, Lease
from memoleo.backends._sqlite_care import Room, clear_in_steps, compact, examine
from memoleo.backends._sqlite_connections import Link
from memoleo.backends._sqlite_runner import Runner, Unready
from memoleo.backends._sqlite_statements import ADD, BUMP, GET, TOTALS, Query, Where, row_of
from memoleo.errors import BackendError, ConfigError, CorruptEntry

__all__ = ["SQLiteBackend"]

T = TypeVar("T")

_PAGE = 64

_now = time.monotonic


class SQLiteBackend:
    """Keeps entries in one SQLite file.

    The file is created when it is first used, for its owner only (mode 0600). Threads have a
    connection each; other processes may use the file at the same time. A file that turns out to
    be damaged is renamed to ``….corrupt-<time>``, and a new one is started.

    Parameters
    ----------
    path
        the file; its folder is created if it is missing
    max_bytes
        the largest sum of `Entry.size`: a number of bytes, or text such as "2GiB". What was least
        recently used is removed to keep it
    max_entries
        the largest number of entries; `None` for no limit
    timeout
        how long to wait for another process's lock, in seconds or as text such as "50ms"
    """

    remote = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        max_bytes: int | str = 2 * 1024**3,
        max_entries: int | None = None,
        timeout: float | str = 0.05,
    ) -> None:
        name = os.fspath(path)
        if not name or name == ":memory:" or "\0" in name:
            raise ConfigError(f"path={name!r} is not a file; entries in memory: memory://")
        self.path = os.path.abspath(os.path.expanduser(name))
        self.max_bytes = parse_size(max_bytes)
        self.max_entries = None if max_entries is None else parse_count(max_entries)
        self._runner = Runner(self.path, parse_duration(timeout, "timeout"))
        self._connections = self._runner.connections
        self._room = Room(self.max_bytes, max_entries)
        self._touched: deque[bytes] = deque(maxlen=8192)
        self._own_bumps = 0
        self._bumping = False
        self._seen_epoch = 0
        _open_backends.add(self)
        renew_after_fork(self)

    def get(self, key: bytes) -> Entry | None:
        """See `Backend.get`."""
        failure: Exception | None = None
        row: tuple[bytes] | None = None
        try:
            link: Link | None = getattr(self._connections.local, "link", None)
            if link is None:
                raise Unready
            with link.lock:
                if link.watch() != link.length or _now() >= self._runner.next_look:
                    raise Unready
                row = link.execute(GET, (key,)).fetchone()
        except Exception as error:
            failure = error
        if failure is not None:
            try:
                row = self._runner.run(lambda link: link.execute(GET, (key,)).fetchone(), failure)
            finally:
                failure = None  # it refers to this frame
        if row is None:
            return None
        self._touched.append(key)
        try:
            return Entry.from_bytes(key, row[0])
        except CorruptEntry:
            self._drop(key, row[0])
            raise

    def set(self, key: bytes, entry: Entry) -> None:
        """See `Backend.set`."""
        if entry.size > self.max_bytes:
            self.delete(key)
            return
        row = row_of(key, entry, time.time(), entry.to_bytes(key))
        if entry.tags or not self._runner.write_alone(
            lambda link: link.execute(ADD, row).rowcount > 0
        ):
            self._replace(key, entry, row)
        self._room.note_added(entry.size)
        self._keep_room()

    def _replace(self, key: bytes, entry: Entry, row: tuple[object, ...]) -> None:
        def store(link: Link) -> bool:
            execute = link.execute
            old = execute("SELECT fresh_until FROM entries WHERE key = ?", (key,)).fetchone()
            # Whoever has the old one in memory must drop it, unless it is outdated there anyway.
            outdates = old is not None and old[0] > entry.created
            if old is not None:
                execute("DELETE FROM entries WHERE key = ?", (key,))
            if outdates:
                execute(BUMP)
            execute(ADD, row)
            number = link.cursor.lastrowid
            for tag in dict.fromkeys(entry.tags):
                execute("INSERT INTO tags VALUES (?, ?)", (tag, number))
            return outdates

        self._change(store)

    def _keep_room(self) -> None:
        room, runner = self._room, self._runner
        # The entry is stored; what can't be done now is done after the next one.
        with contextlib.suppress(BackendError):
            if room.needs_totals:
                room.note(runner.run(lambda link: link.execute(TOTALS).fetchone()))
                if room.is_wrong:
                    runner.write(room.recount)
            if room.is_short:
                room.make(runner, self._take_touched)
            elif room.is_touching_due or len(self._touched) > 4096:
                room.save_use(runner, self._take_touched())

    def delete(self, key: bytes) -> bool:
        """See `Backend.delete`."""

        def remove(link: Link) -> bool:
            gone = link.execute("DELETE FROM entries WHERE key = ?", (key,)).rowcount > 0
            if gone:
                link.execute(BUMP)
            return gone

        return self._runner.insist(lambda: self._change(remove))

    def clear(
        self,
        *,
        type: str | None = None,
        tag: str | None = None,
        label: str | None = None,
        before: float | None = None,
    ) -> int:
        """See `Backend.clear`. It works in short steps, so that others get their turn."""
        return clear_in_steps(self._runner, Where(type, tag, label, before), self._change)

    def clear_expired(self, now: float) -> int:
        """See `Backend.clear_expired`. It works in short steps, so that others get their turn."""
        where = Where().add("expires <= ?", now)
        return clear_in_steps(self._runner, where, None)

    def entries(
        self, *, type: str | None = None, tag: str | None = None, label: str | None = None
    ) -> Iterator[tuple[bytes, Entry]]:
        """See `Backend.entries`."""
        created, number = float("inf"), 2**62
        while True:
            where = Where(type, tag, label).add("(created, id) < (?, ?)", created, number)
            statement = (
                f"SELECT created, id, key, block FROM entries WHERE {where} "
                f"ORDER BY created DESC, id DESC LIMIT {_PAGE}"
            )
            page: list[tuple[Any, ...]] = self._runner.run(Query(statement, tuple(where.values)))
            for row in page:
                created, number, key, block = row
                try:
                    entry = Entry.from_bytes(key, block)
                except (CorruptEntry, TypeError):
                    continue
                yield key, entry
            if len(page) < _PAGE:
                return

    def stats(self) -> BackendStats:
        """See `Backend.stats`."""

        def count(link: Link) -> BackendStats:
            entries, size = link.execute(TOTALS).fetchone()
            by_type = link.execute("SELECT type, count(*) FROM entries GROUP BY type").fetchall()
            return BackendStats(
                entries=entries,
                bytes=size,
                by_type=dict(by_type),
                evicted=self._room.evicted,
                details={
                    "path": self.path,
                    "file_bytes": os.path.getsize(self.path),
                    "max_bytes": self.max_bytes,
                    "max_entries": self.max_entries,
                },
            )

        return self._runner.run(count)

    def lease(self, key: bytes) -> Lease | None:
        """See `Backend.lease`: a lock of the operating system, freed when its owner dies."""
        return self._runner.leases.take(key)

    def close(self) -> None:
        """See `Backend.close`."""
        if self._connections.is_open:
            touched = self._take_touched()
            if touched:
                self._room.save_use(self._runner, touched)
        self._runner.close()

    def epoch(self) -> int:
        """Return a number that changes whenever somebody else removed or replaced an entry.

        Copies of entries that were made before must then be dropped. What this object did itself
        doesn't count, nor entries that were added, expired, or evicted.
        """
        return self._runner.run(self._read_epoch)

    def touch(self, keys: Iterable[bytes]) -> None:
        """Note that entries were used which a store in front of this one answered for."""
        self._touched.extend(keys)

    def vacuum(self) -> int:
        """Rebuild the file so that it takes as little room as it can; how many bytes that freed.

        Others can't write meanwhile, which may take seconds.
        """
        return compact(self._runner)

    def check(self) -> dict[str, Any]:
        """Examine the file: its place, mode, size, format and whether it is intact.

        It never raises for a bad file: ``problems`` lists what is wrong, for people.
        """
        return examine(self._runner)

    def _change(self, operation: Callable[[Link], T]) -> T:
        """Run a writing operation that returns something true if it has moved the epoch."""

        def begin(link: Link) -> T:
            self._bumping = True
            return operation(link)

        def settle(result: T | None) -> None:
            self._own_bumps += bool(result)
            self._bumping = False

        return self._runner.write(begin, settle)

    def _read_epoch(self, link: Link) -> int:
        own = self._own_bumps
        (version,) = link.execute("PRAGMA data_version").fetchone()
        if version != link.data_version or own != link.own:
            (link.epoch,) = link.execute("SELECT epoch FROM totals").fetchone()
            link.data_version, link.own = version, own
        if not self._bumping and own == self._own_bumps:
            self._seen_epoch = link.epoch - own
        return self._seen_epoch

    def _take_touched(self) -> list[bytes]:
        taken: dict[bytes, None] = {}
        while self._touched:
            try:
                key = self._touched.popleft()
            except IndexError:  # another thread took the last one
                break
            taken.pop(key, None)
            taken[key] = None
        return list(taken)

    def _drop(self, key: bytes, block: bytes) -> None:
        def remove(link: Link) -> None:
            link.execute("DELETE FROM entries WHERE key = ? AND block = ?", (key, block))

        # What can't be removed is found corrupt again.
        with contextlib.suppress(BackendError):
            self._runner.write(remove)

    def _after_fork(self) -> None:
        # The parent writes down what was used.
        self._touched.clear()
        self._bumping = False


_open_backends: weakref.WeakSet[SQLiteBackend] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for backend in list(_open_backends):
        backend.close()
