"""What an error of SQLite means for a cache, and how a damaged file is put aside."""

from __future__ import annotations

import contextlib
import glob
import os
import time
from collections.abc import Iterator
from typing import Literal

from memoleo._platform.files import check_ownership, create_private_file
from memoleo.backends._sqlite_schema import APPLICATION_ID
from memoleo.errors import BackendError

__all__ = [
    "Fault",
    "classify",
    "create",
    "files_of",
    "is_foreign",
    "is_stale",
    "put_aside",
    "translated",
]

Fault = Literal["busy", "corrupt", "closed", "full", "moved", "readonly", "other"]
"""Held by another, damaged, closed by another thread, no room, replaced, no right, the rest."""

_BUSY, _LOCKED, _READONLY, _CORRUPT, _FULL, _SCHEMA, _MISUSE, _NOTADB = 5, 6, 8, 11, 13, 17, 21, 26
_DBMOVED = 1032
_CODES: dict[int, Fault] = {
    _BUSY: "busy",
    _LOCKED: "busy",
    _READONLY: "readonly",
    _CORRUPT: "corrupt",
    _FULL: "full",
    _SCHEMA: "busy",
    _NOTADB: "corrupt",
}
# Python 3.10 doesn't tell the code, and some errors of a damaged file have a general one.
_PHRASES: tuple[tuple[str, Fault], ...] = (
    ("locked", "busy"),
    ("readonly", "readonly"),
    ("malformed", "corrupt"),
    ("not a database", "corrupt"),
    ("no such table", "corrupt"),
    ("no such column", "corrupt"),
    ("has no column", "corrupt"),
    ("no such index", "corrupt"),
    ("constraint failed", "corrupt"),
    ("database or disk is full", "full"),
    ("closed", "closed"),
)
_KEPT_ASIDE = 2


def classify(error: BaseException) -> Fault:
    """Say what an error means.

    Result codes: https://www.sqlite.org/rescode.html
    """
    if isinstance(error, UnicodeDecodeError):
        # SQLite quotes what it finds in a damaged schema, and `sqlite3` can't read that.
        return "corrupt"
    code = getattr(error, "sqlite_errorcode", None)
    if code == _DBMOVED:
        return "moved"
    if code is not None and code & 0xFF in _CODES:
        return _CODES[code & 0xFF]
    text = str(error)
    for phrase, fault in _PHRASES:
        if phrase in text:
            return fault
    # Python 3.10 again: it has no words for a quotation that it can't read.
    silent = code is None and not text and type(error).__name__ == "DatabaseError"
    return "corrupt" if silent else "other"


def files_of(path: str) -> tuple[str, ...]:
    """Return the paths that SQLite uses beside the file at `path`."""
    return (f"{path}-wal", f"{path}-shm", f"{path}-journal")


def create(path: str) -> None:
    """Make sure that there is a private file at `path` which is safe to use.

    A symbolic link is refused wherever it leads: in a folder that others can write to, it could
    make us create or overwrite a file of somebody else's choice. The folder must exist, and the
    caller must be alone (`Leases.whole_file`).

    Raises
    ------
    BackendError
        what stands there should not be used
    OSError
        it can't be made
    """
    if not os.path.lexists(path):
        for leftover in files_of(path):
            # They belong to a file that was deleted, and would be taken for parts of the new one.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(leftover)
        if create_private_file(path):
            return
    reason = check_ownership(path)
    if reason:
        raise BackendError(f"{path} is not used: {reason}. Give the cache another file.")


def is_foreign(path: str, head: bytes) -> bool:
    """Whether a file never was a store, as far as can be seen: then it is not ours to replace.

    A store has our mark in its header, and if that is damaged, its file of locks beside it.

    Parameters
    ----------
    path
        the file
    head
        how it begins: https://www.sqlite.org/fileformat.html, 1.3
    """
    if not head or head[68:72] == APPLICATION_ID.to_bytes(4, "big"):
        return False
    return not os.path.lexists(f"{path}.lock")


def put_aside(path: str) -> str | None:
    """Rename a damaged file so that a new one can take its place; where it went.

    The last two are kept for whoever wants to look at them.

    Raises
    ------
    OSError
        it can't be renamed
    """
    for leftover in files_of(path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(leftover)
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    aside = f"{path}.corrupt-{stamp}-{os.getpid()}"
    try:
        os.replace(path, aside)
    except FileNotFoundError:
        return None
    for old in _aside(path)[:-_KEPT_ASIDE]:
        with contextlib.suppress(OSError):
            os.unlink(old)
    return aside


def _aside(path: str) -> list[str]:
    return sorted(glob.glob(f"{glob.escape(path)}.corrupt-*"))


@contextlib.contextmanager
def translated(path: str) -> Iterator[None]:
    """Turn errors of the system into `BackendError`, with the name of the file."""
    try:
        yield
    except OSError as error:
        raise BackendError(f"{path} can't be used: {error.strerror or error}") from error


def is_stale(path: str, identity: tuple[int, int]) -> bool:
    """Whether another file, or none, is now at `path`."""
    try:
        status = os.stat(path)
    except OSError:
        return True
    return (status.st_dev, status.st_ino) != identity
