"""The statements of an SQLite store."""

from __future__ import annotations

from typing import Any

from memoleo.backends._sqlite_connections import Link

__all__ = [
    "ADD",
    "BUMP",
    "FORGET_NOTES",
    "GET",
    "GONE",
    "NOTE",
    "NOTES",
    "Query",
    "Where",
    "bytes_in_use",
    "count",
]

GET = "SELECT block, key FROM entries WHERE hash = ?"
BUMP = "UPDATE state SET epoch = epoch + 1"
ADD = (
    "INSERT INTO entries (hash, key, type, label, created, expires, used, block) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (hash) DO NOTHING"
)
NOTE = "INSERT OR REPLACE INTO notes (room, name, seen, block) VALUES (?, ?, ?, ?)"
FORGET_NOTES = (
    "DELETE FROM notes WHERE room = ? AND name IN "
    "(SELECT name FROM notes WHERE room = ? ORDER BY seen DESC LIMIT -1 OFFSET ?)"
)
NOTES = "SELECT name, block FROM notes WHERE room = ? ORDER BY seen DESC"
GONE = "SELECT at, expired FROM gone WHERE key = ? ORDER BY id DESC LIMIT 1"


def bytes_in_use(link: Link) -> int:
    """Return the size of the file without its free pages, at no cost however large it is."""
    (pages,) = link.execute("PRAGMA page_count").fetchone()
    (free,) = link.execute("PRAGMA freelist_count").fetchone()
    (size,) = link.execute("PRAGMA page_size").fetchone()
    return int((pages - free) * size)


def count(link: Link) -> int:
    """Return the number of entries."""
    return int(link.execute("SELECT count(*) FROM entries").fetchone()[0])


class Query:
    """Asks for all rows of one statement."""

    def __init__(self, statement: str, values: tuple[object, ...]) -> None:
        self._statement = statement
        self._values = values

    def __call__(self, link: Link) -> list[tuple[Any, ...]]:
        return link.execute(self._statement, self._values).fetchall()


class Where:
    """Conditions on entries, with their values.

    Parameters
    ----------
    type, tag, label, before
        as for `Backend.clear`
    """

    def __init__(
        self,
        type: str | None = None,
        tag: str | None = None,
        label: str | None = None,
        before: float | None = None,
    ) -> None:
        self.conditions: list[str] = []
        self.values: list[object] = []
        if type is not None:
            self.add("type = ?", type)
        if tag is not None:
            self.add("id IN (SELECT id FROM tags WHERE tag = ?)", tag)
        if label is not None:
            self.add("label = ?", label)
        if before is not None:
            self.add("created < ?", before)

    def copy(self) -> Where:
        """Return one with the same conditions."""
        other = Where()
        other.conditions, other.values = self.conditions[:], self.values[:]
        return other

    def add(self, condition: str, *values: object) -> Where:
        """Ask for one more condition."""
        self.conditions.append(condition)
        self.values += values
        return self

    def __str__(self) -> str:
        return " AND ".join(self.conditions) or "1"
