"""Keeping an SQLite store in shape: eviction, clearing in steps, giving room back, examining."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from memoleo._platform.files import is_open_to_others
from memoleo.backends._sqlite_connections import Link
from memoleo.backends._sqlite_faults import files_of
from memoleo.backends._sqlite_runner import Runner
from memoleo.backends._sqlite_schema import hash_of
from memoleo.backends._sqlite_statements import BUMP, Query, Where, bytes_in_use, count
from memoleo.errors import BackendError

__all__ = ["Room", "clear_in_steps", "compact", "examine"]

_RESOLUTION = 3600.0
_TOUCH_EVERY = 60.0
_LOOK_EVERY = 64
_LEAST_BYTES = 65_536
_ROW_BYTES = 256
_NOTE_SHARE = 32_768
_STEP = 256
_STEP_TIME = 0.02
_CHOSEN = 20_000
_LOOKED_AT = 8192
_MAKE_FOR = 0.1
_VACUUM_PAGES = 256
_VACUUM_FOR = 0.25
_REMOVE = "DELETE FROM entries WHERE id = ?"
_USE = "UPDATE entries SET used = ? WHERE hash = ? AND used < ?"


class Room:
    """Knows when a store is too full, and removes what was least recently used.

    Reading writes nothing: which keys were read is kept in memory, and saved now and then at a
    resolution of an hour, or exactly when something has to go.

    Parameters
    ----------
    max_bytes, max_entries
        the limits; `None` for no limit. An empty file has a size too, so that a smaller limit of
        bytes than 64 KiB means 64 KiB

    Attributes
    ----------
    bytes_left, entries_left
        what can be stored before it is time to `look` again; whoever stores something subtracts it
    evictions
        how many entries of each type were removed
    notes_kept
        how many removals are remembered, and how many notes a room holds
    """

    def __init__(self, max_bytes: int, max_entries: int | None) -> None:
        self._max_bytes = max(max_bytes, _LEAST_BYTES)
        self._max_entries = max_entries
        self._bytes = 0
        self._entries = 0
        self._counted = False
        self._uncounted = 0
        self._granted = 0
        self._doomed: list[tuple[int, int]] = []
        self._hand = 0
        self._next_touch = time.monotonic() + _TOUCH_EVERY
        self.bytes_left = 0
        self.entries_left = 0
        self.evictions: dict[str, int] = {}
        # So that even in the smallest file they take but a small part of the room.
        self.notes_kept = max(2, min(4096, self._max_bytes // _NOTE_SHARE))

    def look(self, link: Link) -> None:
        """Learn how full the store is; others may add to the same file unseen."""
        self._bytes = bytes_in_use(link)
        grant = _LOOK_EVERY
        if self._max_entries is not None:
            # Counting looks at every key: a large store is only counted when it has changed by
            # a hundredth, or may be too full.
            added = self._granted - self.entries_left
            self._entries += added
            self._uncounted += added
            if (
                not self._counted
                or self._entries > self._max_entries
                or self._uncounted > max(_LOOK_EVERY, self._entries // 100)
            ):
                self._entries, self._uncounted, self._counted = count(link), 0, True
            grant = min(grant, max(0, self._max_entries - self._entries))
        self._granted = self.entries_left = grant
        # Pages are never quite full: what is stored may take twice its length.
        free = max(0, self._max_bytes - self._bytes)
        self.bytes_left = free // 2 - _ROW_BYTES * grant

    @property
    def is_short(self) -> bool:
        """Whether something has to go."""
        return self._bytes > self._max_bytes or (
            self._max_entries is not None and self._entries > self._max_entries
        )

    @property
    def is_touching_due(self) -> bool:
        """Whether it is time to save what was used."""
        return time.monotonic() > self._next_touch

    def save_use(self, runner: Runner, keys: list[bytes], resolution: float = _RESOLUTION) -> None:
        """Write down that keys were used, oldest first, where that is news by `resolution`."""
        self._next_touch = time.monotonic() + _TOUCH_EVERY
        now = time.time()
        rows = [
            (now + position * 1e-6, hash_of(key), now - resolution)
            for position, key in enumerate(keys)
        ]
        # It only decides what is evicted first.
        with contextlib.suppress(BackendError):
            for start in range(0, len(rows), _STEP):
                runner.write(_Many(_USE, rows[start : start + _STEP]))

    def make(self, runner: Runner, used: Callable[[], list[bytes]]) -> None:
        """Remove what expired, then what was least recently used, until there is room.

        Many are chosen at once, so that choosing is rare, and removed in steps over the next
        calls, so that none takes long.
        """
        deadline = time.monotonic() + _MAKE_FOR
        while self.is_short and time.monotonic() < deadline:
            fresh = not self._doomed
            if fresh:
                self.save_use(runner, used(), resolution=0.0)
                self._doomed = runner.run(self._choose)[::-1]
            eviction = _Eviction(self._take_batch(), self.notes_kept)
            gone = runner.write(eviction)
            for name, number in eviction.types:
                self.evictions[name] = self.evictions.get(name, 0) + number
            self._entries -= gone
            runner.run(self.look)
            if fresh and not gone:
                return

    def _choose(self, link: Link) -> list[tuple[int, int]]:
        # Of a large store only a part is looked at, so that no call waits for a scan.
        some = "SELECT count(*) FROM (SELECT 1 FROM entries LIMIT ?)"
        (entries,) = link.execute(some, (_CHOSEN + 1,)).fetchone()
        if entries > _CHOSEN:
            self._entries = max(self._entries, entries)
            return self._choose_from_next(link)
        self._entries, self._uncounted = entries, 0
        chosen = min(_CHOSEN, max(_STEP, self._entries // 10))
        return link.execute(
            "SELECT id, length(block) FROM entries ORDER BY expires <= ? DESC, used LIMIT ?",
            (time.time(), chosen),
        ).fetchall()

    def _choose_from_next(self, link: Link) -> list[tuple[int, int]]:
        """Choose a quarter of the next few thousand entries, in the order they were stored.

        A hand goes round, as in the CLOCK approximation of least recent use: what was used since
        it came by last is passed over for what was not.
        """
        now = time.time()
        for start in (self._hand, 0):
            rows = link.execute(
                "SELECT id, length(block), used, expires FROM entries "
                "WHERE id > ? ORDER BY id LIMIT ?",
                (start, _LOOKED_AT),
            ).fetchall()
            if rows:
                break
        self._hand = rows[-1][0] if rows else 0
        rows.sort(key=lambda row: (row[3] > now, row[2]))
        return [(number, size) for number, size, _, _ in rows[: max(_STEP, len(rows) // 4)]]

    def _take_batch(self) -> list[tuple[int]]:
        """Take as many as have to go; in a large store rather a whole step."""
        size = self._bytes - self._max_bytes
        entries = 0 if self._max_entries is None else self._entries - self._max_entries
        least = min(_STEP, self._entries // 10) if self._entries > 100 else 0
        batch: list[tuple[int]] = []
        while self._doomed and len(batch) < _STEP:
            if entries <= 0 and size <= 0 and len(batch) >= least:
                if self._entries < 20 * _STEP:
                    # Choosing is cheap here, and what was left over may be used by then.
                    self._doomed = []
                break
            number, weight = self._doomed.pop()
            batch.append((number,))
            entries -= 1
            size -= weight
        return batch


class _Many:
    """Runs one statement for many rows; how many it changed."""

    def __init__(self, statement: str, rows: list[Any]) -> None:
        self._statement = statement
        self._rows = rows

    def __call__(self, link: Link) -> int:
        return link.cursor.executemany(self._statement, self._rows).rowcount


class _Eviction(_Many):
    """Removes entries by their numbers, and remembers the last of them.

    Parameters
    ----------
    rows
        the numbers
    kept
        how many removals are remembered

    Attributes
    ----------
    types
        how many entries of each type there were, once it is done
    """

    def __init__(self, rows: list[tuple[int]], kept: int) -> None:
        super().__init__(_REMOVE, rows)
        self._last = rows[-kept:]
        self._kept = kept
        self.types: list[tuple[str, int]] = []

    def __call__(self, link: Link) -> int:
        now = time.time()
        numbers = ",".join(str(int(number)) for (number,) in self._rows)
        self.types = link.execute(
            f"SELECT type, count(*) FROM entries WHERE id IN ({numbers}) GROUP BY type"
        ).fetchall()
        link.cursor.executemany(
            "INSERT INTO gone (key, at, expired) "
            "SELECT key, ?, expires <= ? FROM entries WHERE id = ?",
            [(now, now, number) for (number,) in self._last],
        )
        link.execute("DELETE FROM gone WHERE id <= (SELECT max(id) FROM gone) - ?", (self._kept,))
        return super().__call__(link)


def clear_in_steps(
    runner: Runner,
    where: Where,
    change: Callable[[Callable[[Link], int]], int] | None,
) -> int:
    """Remove the entries that match, a few hundredths of a second at a time; how many.

    Entries that are added meanwhile stay.

    Parameters
    ----------
    runner
        the file
    where
        which entries
    change
        runs a removal that others must hear of; `None` if they need not
    """
    (top,) = runner.run(lambda link: link.execute("SELECT max(id) FROM entries").fetchone())
    removed, step = 0, _STEP
    number = 0
    while top is not None:
        page = where.copy().add("id BETWEEN ? AND ?", number + 1, top)
        statement = f"SELECT id FROM entries WHERE {page} ORDER BY id LIMIT ?"
        found = runner.run(Query(statement, (*page.values, step)))
        if not found:
            break
        (number,) = found[-1]
        remove = _Removal(found, bump=change is not None)
        removed += runner.insist(partial(change or runner.write, remove))
        step = max(16, min(step * 2, int(step * _STEP_TIME / max(remove.took, 1e-4))))
    if removed:
        _give_back(runner)
    return removed


class _Removal(_Many):
    """Removes entries by their numbers, and tells other processes if they must know."""

    def __init__(self, rows: list[tuple[int]], *, bump: bool) -> None:
        super().__init__(_REMOVE, rows)
        self._bump = bump
        self.took = 0.0

    def __call__(self, link: Link) -> int:
        begun = time.monotonic()
        gone = super().__call__(link)
        self.took = time.monotonic() - begun
        if gone and self._bump:
            link.execute(BUMP)
        return gone


def _give_back(runner: Runner) -> None:
    """Shorten the file by its free pages, in small steps and not for long."""
    deadline = time.monotonic() + _VACUUM_FOR

    def step(link: Link) -> bool:
        (free,) = link.execute("PRAGMA freelist_count").fetchone()
        if free:
            link.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").fetchall()
        return bool(free > _VACUUM_PAGES)

    try:
        while runner.write_alone(step) and time.monotonic() < deadline:
            pass
    except BackendError:
        # Free pages are used again by what comes next.
        return


def compact(runner: Runner) -> int:
    """Rebuild the file as small as it can be; how many bytes that freed."""
    before = _size(runner.path)

    def rebuild(link: Link) -> None:
        link.execute("VACUUM")
        link.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    runner.write_alone(rebuild)
    return max(0, before - _size(runner.path))


def _size(path: str) -> int:
    return sum(os.path.getsize(one) for one in (path, files_of(path)[0]) if os.path.exists(one))


def examine(runner: Runner) -> dict[str, Any]:
    """Say how the file is; see `SQLiteBackend.check`."""
    path = runner.path
    problems: list[str] = []
    report: dict[str, Any] = {"path": path, "exists": os.path.lexists(path), "problems": problems}
    if not report["exists"]:
        return report
    status = os.lstat(path)
    mode = stat.S_IMODE(status.st_mode)
    report["mode"] = f"{mode:04o}"
    report["file_bytes"] = _size(path)
    report["writable"] = os.access(path, os.W_OK) and os.access(os.path.dirname(path), os.W_OK)
    if is_open_to_others(mode):
        problems.append(f"other users can read it: chmod 600 {path}")
    if not report["writable"]:
        problems.append("it can't be written: results are served, and none is stored")

    def ask(link: Link) -> None:
        report["format"] = link.execute("PRAGMA user_version").fetchone()[0]
        report["journal"] = link.execute("PRAGMA journal_mode").fetchone()[0]
        report["entries"], report["bytes"] = count(link), bytes_in_use(link)
        findings = [line for (line,) in link.execute("PRAGMA integrity_check(10)").fetchall()]
        report["intact"] = findings == ["ok"]
        if findings != ["ok"]:
            problems.extend(findings)

    try:
        runner.run(ask)
    except BackendError as error:
        report["intact"] = False
        problems.append(str(error))
    return report
