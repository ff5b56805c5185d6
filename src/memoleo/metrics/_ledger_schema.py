"""The table of a metrics file, and the steps from each format to the next.

A row is what one operation, one type of entries or one model's part of a type did in a minute, an
hour or a day, UTC. Minutes become hours, and hours days, so that the file stays small; nothing is
stored twice, so that sums are sums of rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memoleo.errors import BackendError

if TYPE_CHECKING:
    import sqlite3

__all__ = ["APPLICATION_ID", "FORMAT", "prepare", "read_format"]

APPLICATION_ID = 0x6D6C6D74
"""What marks the header of a file as ours: "mlmt" in ASCII."""

_FORMAT_1 = (
    """
    CREATE TABLE totals (
        span INTEGER NOT NULL,
        start INTEGER NOT NULL,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        block BLOB NOT NULL,
        PRIMARY KEY (span, start, kind, name)
    ) WITHOUT ROWID
    """,
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FORMAT_1,)
"""The n-th step leads from format n to format n + 1. Released steps never change."""

FORMAT = len(MIGRATIONS)
"""The format that this version of memoleo reads and writes (``PRAGMA user_version``)."""


def prepare(connection: sqlite3.Connection, path: str) -> None:
    """Bring the table of an open file up to `FORMAT`, within the present transaction.

    Raises
    ------
    BackendError
        the file was written by a later memoleo, or by another program; it is left as it is
    sqlite3.Error
        it is damaged, locked, or can't be written
    """
    present = read_format(connection, path)
    if present == FORMAT:
        return
    for step in MIGRATIONS[present:]:
        for statement in step:
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT}")


def read_format(connection: sqlite3.Connection, path: str) -> int:
    """Return the format of an open file; 0 if it is empty.

    Raises
    ------
    BackendError
        it was written by a later memoleo, or by another program
    """
    # All three must be of one moment, since another process may just be creating the table.
    alone = not connection.in_transaction
    if alone:
        connection.execute("BEGIN")
    try:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    finally:
        if alone and connection.in_transaction:
            connection.execute("ROLLBACK")
    if application != APPLICATION_ID:
        if application or version or tables:
            raise BackendError(f"{path} is a database of another program, and is left alone")
        return 0
    if version > FORMAT:
        raise BackendError(
            f"{path} has format {version}, and this memoleo knows formats up to {FORMAT}: "
            "upgrade memoleo"
        )
    return int(version)
