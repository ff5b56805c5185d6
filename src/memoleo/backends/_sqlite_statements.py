"""The statements of an SQLite store."""

from __future__ import annotations

from typing import Any

from memoleo._entry import Entry
from memoleo.backends._sqlite_connections import Link

__all__ = ["ADD", "BUMP", "GET", "TOTALS", "Query", "Where", "row_of"]

GET = "SELECT block FROM entries WHERE key = ?"
TOTALS = "SELECT entries, bytes FROM totals"
BUMP = "UPDATE totals SET epoch = epoch + 1"
ADD = (
    "INSERT INTO entries (key, type, label, created, fresh_until, expires, used, size, block) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (key) DO NOTHING"
)


def row_of(key: bytes, entry: Entry, now: float, block: bytes) -> tuple[object, ...]:
    """Return what `ADD` wants."""
    expires = entry.expires
    return (
        key,
        entry.type,
        entry.label,
        entry.created,
        entry.created + entry.ttl,
        expires if expires < float("inf") else None,
        now,
        entry.size,
        block,
    )


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
