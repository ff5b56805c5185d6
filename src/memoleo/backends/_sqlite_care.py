"""Keeping an SQLite store in shape: eviction, clearing in steps, giving room back, examining."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from memoleo.backends._sqlite_connections import Link
from memoleo.backends._sqlite_faults import files_of
from memoleo.backends._sqlite_runner import Runner
from memoleo.backends._sqlite_statements import BUMP, TOTALS, Query, Where
from memoleo.errors import BackendError

__all__ = ["Room", "clear_in_steps", "compact", "examine"]

_RESOLUTION = 3600.0
_TOUCH_EVERY = 60.0
_TOTALS_EVERY = 64
_STEP = 256
_STEP_TIME = 0.02
_CHOSEN = 20_000
_ROUNDS = 50
_VACUUM_PAGES = 256
_VACUUM_FOR = 0.25
_USE = "UPDATE entries SET used = ? WHERE key = ? AND used < ?"


class Room:
    """Knows when a store is too full, and removes what was least recently used.

    Reading writes nothing: which keys were read is kept in memory, and saved now and then at a
    resolution of an hour, or exactly when something has to go.

    Parameters
    ----------
    max_bytes, max_entries
        the limits; `None` for no limit
    """

    def __init__(self, max_bytes: int, max_entries: int | None) -> None:
        self._max_bytes = max_bytes
        self._max_entries = max_entries if max_entries is not None else 2**62
        self._entries = 0
        self._bytes = 0
        self._unread = _TOTALS_EVERY
        self._doomed: list[tuple[int, int]] = []
        self._next_touch = time.monotonic() + _TOUCH_EVERY
        self.evicted = 0

    def note(self, totals: tuple[int, int]) -> None:
        """Learn how full the store is."""
        self._entries, self._bytes = totals
        self._unread = 0

    def note_added(self, size: int) -> None:
        """Learn that an entry was added; others may add to the same file unseen."""
        self._entries += 1
        self._bytes += size
        self._unread += 1

    @property
    def needs_totals(self) -> bool:
        """Whether it is time to look how full the store really is."""
        return (
            self._unread >= _TOTALS_EVERY
            or self._bytes > 0.9 * self._max_bytes
            or self._entries > 0.9 * self._max_entries
        )

    @property
    def is_short(self) -> bool:
        """Whether something has to go."""
        return self._bytes > self._max_bytes or self._entries > self._max_entries

    @property
    def is_touching_due(self) -> bool:
        """Whether it is time to save what was used."""
        return time.monotonic() > self._next_touch

    @property
    def is_wrong(self) -> bool:
        """Whether the totals can't be true."""
        return self._bytes < 0 or self._entries < 0

    def recount(self, link: Link) -> None:
        """Put the totals right."""
        link.execute(
            "UPDATE totals SET (entries, bytes) = "
            "(SELECT count(*), coalesce(sum(size), 0) FROM entries)"
        )
        self._read_totals(link)

    def save_use(self, runner: Runner, keys: list[bytes], resolution: float = _RESOLUTION) -> None:
        """Write down that keys were used, oldest first, where that is news by `resolution`."""
        self._next_touch = time.monotonic() + _TOUCH_EVERY
        now = time.time()
        rows = [(now + position * 1e-6, key, now - resolution) for position, key in enumerate(keys)]
        # It only decides what is evicted first.
        with contextlib.suppress(BackendError):
            for start in range(0, len(rows), _STEP):
                runner.write(_Many(_USE, rows[start : start + _STEP]))

    def make(self, runner: Runner, used: Callable[[], list[bytes]]) -> None:
        """Remove what expired, then what was least recently used, until there is room.

        A tenth of a larger store is chosen at once, so that choosing is rare, and removed in
        steps over the next calls, so that none takes long.
        """
        for _ in range(_ROUNDS):
            if not self.is_short:
                return
            fresh = not self._doomed
            if fresh:
                if not runner.run(self._is_counted_right):
                    runner.write(self.recount)
                    continue
                self.save_use(runner, used(), resolution=0.0)
                self._doomed = runner.run(self._choose)[::-1]
            batch = self._take_batch()
            gone = runner.write(_Many("DELETE FROM entries WHERE id = ?", batch))
            self.evicted += gone
            runner.run(self._read_totals)
            if fresh and not gone:
                return

    def _choose(self, link: Link) -> list[tuple[int, int]]:
        count = min(_CHOSEN, max(_STEP, self._entries // 10))
        return link.execute(
            "SELECT id, size FROM entries ORDER BY coalesce(expires <= ?, 0) DESC, used LIMIT ?",
            (time.time(), count),
        ).fetchall()

    def _take_batch(self) -> list[tuple[int]]:
        """Take as many as have to go; in a large store rather a whole step."""
        entries, size = self._entries - self._max_entries, self._bytes - self._max_bytes
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

    def _read_totals(self, link: Link) -> None:
        self.note(link.execute(TOTALS).fetchone())

    def _is_counted_right(self, link: Link) -> bool:
        # Wrong totals must not empty a store, and choosing looks at every entry anyway.
        (right,) = link.execute(
            "SELECT (SELECT count(*) FROM entries) = entries "
            "AND (SELECT coalesce(sum(size), 0) FROM entries) = bytes FROM totals"
        ).fetchone()
        return bool(right)


class _Many:
    """Runs one statement for many rows; how many it changed."""

    def __init__(self, statement: str, rows: list[Any]) -> None:
        self._statement = statement
        self._rows = rows

    def __call__(self, link: Link) -> int:
        return link.cursor.executemany(self._statement, self._rows).rowcount


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
    created, number = float("-inf"), 0
    while top is not None:
        page = where.copy().add("id <= ?", top)
        page.add("(created, id) > (?, ?)", created, number)
        statement = f"SELECT created, id FROM entries WHERE {page} ORDER BY created, id LIMIT ?"
        found = runner.run(Query(statement, (*page.values, step)))
        if not found:
            break
        created, number = found[-1]
        remove = _Removal([(one,) for _, one in found], bump=change is not None)
        removed += runner.insist(partial(change or runner.write, remove))
        step = max(16, min(step * 2, int(step * _STEP_TIME / max(remove.took, 1e-4))))
    if removed:
        _give_back(runner)
    return removed


class _Removal(_Many):
    """Removes entries by their numbers, and tells other processes if they must know."""

    def __init__(self, rows: list[tuple[int]], *, bump: bool) -> None:
        super().__init__("DELETE FROM entries WHERE id = ?", rows)
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
    if os.name == "posix" and mode & 0o077:
        problems.append(f"other users can read it: chmod 600 {path}")
    if not report["writable"]:
        problems.append("it can't be written: results are served, and none is stored")

    def ask(link: Link) -> None:
        report["format"] = link.execute("PRAGMA user_version").fetchone()[0]
        report["journal"] = link.execute("PRAGMA journal_mode").fetchone()[0]
        report["entries"], report["bytes"] = link.execute(TOTALS).fetchone()
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
