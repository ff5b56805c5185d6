"""The tables of an SQLite store, and the steps from each format to the next.

An entry is stored whole, as one sealed block: reading one column is half the work of reading
eleven. What entries are searched by stands beside it in columns of its own, ahead of the block.

There is one index, and nothing is counted while storing: each further index, and each count kept by
a trigger, would make a miss a fifth slower, while a scan, less than a second for a million small
entries, is rarely needed. The index is over a hash of the key, a number: it is half as large as
one over keys, and SQLite compares numbers faster. Two keys of one hash, of which there is hardly a
pair among a thousand million entries, are told apart by the key itself, which stands beside it, and
the later one replaces the other.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import xxhash

from memoleo.errors import BackendError

if TYPE_CHECKING:
    import sqlite3

__all__ = ["APPLICATION_ID", "FORMAT", "hash_of", "is_later", "prepare", "read_format"]

APPLICATION_ID = 0x6D6C656F
"""What marks the header of a file as ours: "mleo" in ASCII."""

_FORMAT_1 = """
CREATE TABLE entries (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,
    type TEXT NOT NULL,
    label TEXT NOT NULL,
    created REAL NOT NULL,
    expires REAL NOT NULL,
    used REAL NOT NULL,
    block BLOB NOT NULL
);
CREATE TABLE tags (tag TEXT NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (tag, id)) WITHOUT ROWID;
CREATE INDEX tags_by_id ON tags (id);
CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), epoch INTEGER NOT NULL);
INSERT INTO state VALUES (1, abs(random() >> 2));
CREATE TRIGGER entry_removed AFTER DELETE ON entries BEGIN
    DELETE FROM tags WHERE id = old.id;
END;
"""

_FORMAT_2 = """
CREATE TABLE notes (
    room TEXT NOT NULL,
    name BLOB NOT NULL,
    seen REAL NOT NULL,
    block BLOB NOT NULL,
    PRIMARY KEY (room, name)
) WITHOUT ROWID;
CREATE TABLE gone (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL,
    at REAL NOT NULL,
    expired INTEGER NOT NULL
);
"""

_FORMAT_3 = """
CREATE TABLE renewed (
    id INTEGER PRIMARY KEY,
    hash INTEGER NOT NULL UNIQUE,
    key BLOB NOT NULL,
    type TEXT NOT NULL,
    label TEXT NOT NULL,
    created REAL NOT NULL,
    expires REAL NOT NULL,
    used REAL NOT NULL,
    block BLOB NOT NULL
);
INSERT OR IGNORE INTO renewed
    SELECT id, hash_of(key), key, type, label, created, expires, used, block FROM entries
    ORDER BY id;
DROP TABLE entries;
ALTER TABLE renewed RENAME TO entries;
DELETE FROM tags WHERE id NOT IN (SELECT id FROM entries);
CREATE TRIGGER entry_removed AFTER DELETE ON entries BEGIN
    DELETE FROM tags WHERE id = old.id;
END;
"""

MIGRATIONS: tuple[str, ...] = (_FORMAT_1, _FORMAT_2, _FORMAT_3)
"""The n-th script leads from format n to format n + 1. Released scripts never change."""

FORMAT = len(MIGRATIONS)
"""The format that this version of memoleo reads and writes (``PRAGMA user_version``)."""


def hash_of(key: bytes) -> int:
    """Return the hash that the entry of a key is found by: 63 bits, an integer of SQLite's."""
    return _hash(key) >> 1


_hash = xxhash.xxh3_64_intdigest


def prepare(connection: sqlite3.Connection, path: str) -> None:
    """Bring the tables of an open file up to `FORMAT`, all steps or none.

    Raises
    ------
    BackendError
        the file was written by a later memoleo, or by another program, or there is no room to
        rewrite it; it is left as it is
    sqlite3.Error
        it is damaged, locked, or can't be written
    """
    present = read_format(connection, path)
    if present == FORMAT:
        return
    if not present:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
    elif _lacks_room(connection, path):
        # Found out now: to fail half-way takes seconds, and would be tried again and again.
        raise BackendError(f"there is no room to rewrite {path}, which has format {present}")
    connection.create_function("hash_of", 1, hash_of, deterministic=True)
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have been faster.
        for script in MIGRATIONS[read_format(connection, path) :]:
            for statement in _split(script):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _lacks_room(connection: sqlite3.Connection, path: str) -> bool:
    """Whether a disk can't hold the entries twice more: in the log, and then in the file."""
    import shutil

    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    try:
        room = shutil.disk_usage(os.path.dirname(path)).free
    except OSError:  # nobody can tell
        return False
    return room < 2 * int(size) * int(pages - free)


def read_format(connection: sqlite3.Connection, path: str) -> int:
    """Return the format of an open file; 0 if it is empty.

    Raises
    ------
    BackendError
        it was written by a later memoleo, or by another program
    """
    # All three must be of one moment, since another process may just be creating the tables.
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
            raise BackendError(
                f"{path} is a database of another program: give the cache a file of its own"
            )
        return 0
    if version > FORMAT:
        raise BackendError(
            f"{path} has format {version}, and this memoleo knows formats up to {FORMAT}: "
            "upgrade memoleo, or give the cache another file"
        )
    return int(version)


def is_later(connection: sqlite3.Connection) -> bool:
    """Whether a later memoleo has rewritten a file since it was opened."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return bool(application == APPLICATION_ID and version > FORMAT)


def _split(script: str) -> list[str]:
    import sqlite3

    statements: list[str] = []
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return statements
