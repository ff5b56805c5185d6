"""Entries in an SQLite file, which any number of threads and processes may share."""

from __future__ import annotations

import atexit
import contextlib
import heapq
import os
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Literal, TypeVar

import xxhash

from memoleo._entry import COPIED, SEAL, Entry, checksum, decode_body, encode_body
from memoleo._platform.file_locks import SLOTS
from memoleo._platform.forks import renew_after_fork
from memoleo._platform.interrupts import pass_on
from memoleo._units import parse_count, parse_duration, parse_size
from memoleo.backends._protocol import BackendStats, Lease
from memoleo.backends._sqlite_anchor import Anchor
from memoleo.backends._sqlite_care import Room, clear_in_steps, compact, examine
from memoleo.backends._sqlite_connections import Link
from memoleo.backends._sqlite_runner import Runner, Unready
from memoleo.backends._sqlite_schema import hash_of
from memoleo.backends._sqlite_statements import (
    ADD,
    BUMP,
    FORGET_NOTES,
    GET,
    GONE,
    NOTE,
    NOTES,
    Query,
    Where,
    bytes_in_use,
)
from memoleo.errors import BackendError, ConfigError, CorruptEntry

__all__ = ["SQLiteBackend"]

T = TypeVar("T")

_PAGE = 64
_LOOKED_AHEAD = 65_536
_UNSAVED = 4096
_MOST_NOTES = 512
_REMOVE = "DELETE FROM entries WHERE hash = ? AND key = ?"

_now = time.monotonic
_time = time.time
_hash = xxhash.xxh3_64_intdigest


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
        how large the file may grow, not counting its log: a number of bytes, or text such as
        "2GiB". What was least recently used is removed to keep it. Below 64 KiB it only limits
        the size of a single entry
    max_entries
        the largest number of entries; `None` for no limit
    timeout
        how long to wait for another process's lock, in seconds or as text such as "50ms"

    Attributes
    ----------
    evictions
        how many entries of each type this process removed for lack of room
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
        self._anchor = Anchor(self._connections)
        self._room = Room(self.max_bytes, max_entries)
        self.evictions = self._room.evictions
        self._touched: deque[bytes] = deque(maxlen=8192)
        self._own_bumps = 0
        self._bumping = False
        self._seen_epoch = 0
        _open_backends.add(self)
        renew_after_fork(self)

    def get(self, key: bytes) -> Entry | None:
        """See `Backend.get`."""
        number = _hash(key)
        row: tuple[bytes, bytes] | None
        try:
            link: Link = self._connections.local.link
            try:
                link.enter()
                if link.watch() != link.length or _now() >= self._runner.next_look:
                    raise Unready
                row = link.execute(GET, (number >> 1,)).fetchone()  # `hash_of`, in place
            finally:
                # A signal handler's exception may come before the lock is taken, or just after.
                try:  # noqa: SIM105
                    link.leave()
                except RuntimeError:
                    pass
            self._anchor.reads += 1
        except Exception as error:
            row = self._find(key, error)
        if row is None or row[1] != key:
            return None
        self._touched.append(key)
        block = row[0]
        try:
            # What `Entry.from_bytes` does, in place: a hit is a tenth quicker without the call.
            if len(block) < COPIED:
                body = block[SEAL:]
                if checksum(body, number) == block[:SEAL]:
                    return decode_body(body)
        except Exception as error:
            pass_on(error)
        try:
            return Entry.from_bytes(key, block)
        except CorruptEntry:
            self._drop(key, block)
            raise

    def _find(self, key: bytes, error: Exception) -> tuple[bytes, bytes] | None:
        """Return the row of a key's hash by the long way: the short one ended with `error`."""
        self._anchor.consider()

        def find(link: Link) -> tuple[bytes, bytes] | None:
            found: tuple[bytes, bytes] | None = link.execute(GET, (hash_of(key),)).fetchone()
            return found

        try:
            return self._runner.run(find, Unready() if type(error) is AttributeError else error)
        finally:
            del error  # it refers to the caller's frame

    def set(self, key: bytes, entry: Entry) -> None:
        """See `Backend.set`."""
        number = _hash(key)
        body = encode_body(entry)
        block = checksum(body, number) + body  # `Entry.to_bytes`, in place
        if len(block) > self.max_bytes:
            self.delete(key)
            return
        created = entry.created
        expires = created + entry.ttl + entry.keep
        row = (number >> 1, key, entry.type, entry.label, created, expires, _time(), block)
        room = self._room
        if entry.tags or not self._add(row):
            self._replace(key, entry, row)
        room.bytes_left -= len(block)
        room.entries_left -= 1
        if room.entries_left < 0 or room.bytes_left < 0 or len(self._touched) > _UNSAVED:
            self._keep_room()

    def _add(self, row: tuple[object, ...]) -> bool:
        """Store an entry without tags unless there is one; whether it was stored."""
        failure: Exception | None = None
        runner = self._runner
        turn = runner.turn
        if turn.acquire(False):
            try:
                runner.writer.inside = True
                link: Link | None = getattr(self._connections.local, "link", None)
                if link is None:
                    raise Unready
                try:
                    link.enter()
                    now = _now()
                    if (
                        link.watch() != link.length
                        or now >= runner.next_look
                        or now < runner.impatient_until
                        or link.patience != runner.timeout
                    ):
                        raise Unready
                    return link.execute(ADD, row).rowcount > 0
                finally:
                    try:  # noqa: SIM105
                        link.leave()
                    except RuntimeError:
                        pass
            except Exception as error:
                failure = error
            finally:
                runner.writer.inside = False
                # Who waited for too long may have taken it for one that an exception left.
                try:  # noqa: SIM105
                    turn.release()
                except RuntimeError:
                    pass
        try:
            return runner.write_alone(partial(_insert, row), failure)
        finally:
            failure = None  # it refers to this frame

    def _replace(self, key: bytes, entry: Entry, row: tuple[object, ...]) -> None:
        mark = hash_of(key)

        def store(link: Link) -> bool:
            execute = link.execute
            # Under the same key, or under another one of the same hash, which makes way.
            old = execute(GET, (mark,)).fetchone()
            # Whoever has the old one in memory must drop it, unless it is outdated there anyway.
            outdates = old is not None and _fresh_until(old[1], old[0]) > entry.created
            if old is not None:
                execute(_REMOVE, (mark, old[1]))
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
            runner.run(room.look)
            if room.is_short:
                room.make(runner, self._take_touched)
            elif room.is_touching_due or len(self._touched) > _UNSAVED:
                room.save_use(runner, self._take_touched())

    def delete(self, key: bytes) -> bool:
        """See `Backend.delete`."""

        def remove(link: Link) -> bool:
            gone = link.execute(_REMOVE, (hash_of(key), key)).rowcount > 0
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
        ahead = _PAGE
        while True:
            # Each look at what comes next is a scan, so it looks ever farther ahead.
            where = Where(type, tag, label).add("(created, id) < (?, ?)", created, number)
            found = self._runner.run(partial(_newest, ahead, where))
            for start in range(0, len(found), _PAGE):
                yield from self._runner.run(partial(_read, found[start : start + _PAGE]))
            if len(found) < ahead:
                return
            created, number = found[-1]
            ahead = min(2 * ahead, _LOOKED_AHEAD)

    def stats(self) -> BackendStats:
        """See `Backend.stats`. It looks at every entry: less than a second for a million."""

        def count(link: Link) -> BackendStats:
            by_type = dict(
                link.execute("SELECT type, count(*) FROM entries GROUP BY type").fetchall()
            )
            return BackendStats(
                entries=sum(by_type.values()),
                bytes=bytes_in_use(link),
                by_type=by_type,
                evicted=sum(self.evictions.values()),
                details={
                    "path": self.path,
                    "file_bytes": os.path.getsize(self.path),
                    "max_bytes": self.max_bytes,
                    "max_entries": self.max_entries,
                },
            )

        return self._runner.run(count)

    def leading(
        self, order: Literal["size", "used"], limit: int
    ) -> list[tuple[bytes, Entry, float]]:
        """Return the largest entries, or those that were used last, with the time of that use.

        Uses are noted at a resolution of an hour. Every row is looked at, but only what is
        returned is read whole.
        """
        return self._runner.run(partial(_leading, order, limit))

    def lease(self, key: bytes) -> Lease | None:
        """See `Backend.lease`: a lock of the operating system, freed when its owner dies."""
        return self._runner.leases.take(_hash(key) % SLOTS)

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

    def note(self, room: str, name: bytes, block: bytes) -> None:
        """See `Notebook.note`."""

        def store(link: Link) -> None:
            link.execute(NOTE, (room, name, _time(), block))
            link.execute(FORGET_NOTES, (room, room, min(_MOST_NOTES, self._room.notes_kept)))

        self._runner.write(store)

    def notes(self, room: str) -> list[tuple[bytes, bytes]]:
        """See `Notebook.notes`."""
        return self._runner.run(Query(NOTES, (room,)))

    def gone(self, key: bytes) -> tuple[float, str] | None:
        """See `Notebook.gone`."""
        found = self._runner.run(Query(GONE, (key,)))
        return (found[0][0], "expired" if found[0][1] else "evicted") if found else None

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
            (link.epoch,) = link.execute("SELECT epoch FROM state").fetchone()
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
            link.execute(f"{_REMOVE} AND block = ?", (hash_of(key), key, block))

        # What can't be removed is found corrupt again.
        with contextlib.suppress(BackendError):
            self._runner.write(remove)

    def _after_fork(self) -> None:
        # The parent writes down what was used.
        self._touched.clear()
        self._bumping = False


def _insert(row: tuple[object, ...], link: Link) -> bool:
    return link.execute(ADD, row).rowcount > 0


def _fresh_until(key: bytes, block: bytes) -> float:
    try:
        old = Entry.from_bytes(key, block)
    except (CorruptEntry, TypeError):
        return float("inf")
    return old.created + old.ttl


def _newest(count: int, where: Where, link: Link) -> list[tuple[float, int]]:
    # Read backwards, which is nearly the order that is wanted: most rows then cost one comparison.
    rows = link.execute(
        f"SELECT created, id FROM entries WHERE {where} ORDER BY id DESC", tuple(where.values)
    )
    return heapq.nlargest(count, rows)


def _read(found: list[tuple[float, int]], link: Link) -> list[tuple[bytes, Entry]]:
    """Read the entries with these numbers, unless they have gone or don't verify."""
    entries: list[tuple[bytes, Entry]] = []
    for created, number in found:
        row = link.execute("SELECT key, block FROM entries WHERE id = ?", (number,)).fetchone()
        if row is None:
            continue
        try:
            entry = Entry.from_bytes(*row)
        except (CorruptEntry, TypeError):
            continue
        # The number of an entry that was removed meanwhile may be another's by now.
        if entry.created == created:
            entries.append((row[0], entry))
    return entries


def _leading(order: str, limit: int, link: Link) -> list[tuple[bytes, Entry, float]]:
    # The length of a block is in the head of its row: its pages are not read for it.
    column = {"size": "length(block)", "used": "used"}[order]
    rows = link.execute(
        f"SELECT created, id, used FROM entries ORDER BY {column} DESC, id DESC LIMIT ?", (limit,)
    ).fetchall()
    found = []
    for created, number, used in rows:
        found += [(key, entry, used) for key, entry in _read([(created, number)], link)]
    return found


_open_backends: weakref.WeakSet[SQLiteBackend] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for backend in list(_open_backends):
        backend.close()
