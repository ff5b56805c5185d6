"""One connection of SQLite for each thread, and what becomes of them.

A connection is used by the thread that opened it. It is closed when that thread ends, when the
backend is closed from any thread, or when its file turns out to be another one. Each has a lock
that is held while SQLite works, so that it is never closed in mid-use, and so that `fork` can
wait until no thread is inside: SQLite's own mutexes would stay locked in the child for ever.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from memoleo._platform.files import WatchedFile, make_private_folder
from memoleo._platform.forks import renew_after_fork
from memoleo._platform.interrupts import interruption
from memoleo._platform.locks import Lock
from memoleo.backends._sqlite_faults import (
    classify,
    create,
    files_of,
    is_foreign,
    is_stale,
    translated,
)
from memoleo.backends._sqlite_leases import Leases
from memoleo.backends._sqlite_schema import FORMAT, prepare, read_format
from memoleo.errors import BackendError

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Connections", "Link"]

_MAGIC = b"SQLite format 3\0"
_MAPPED = 1024**3
_WAL_KEPT = 16 * 1024**2
_REFUSED = 0.25
_FORK_PATIENCE = 1.0
_TURN = 2.0

# Opening takes locks inside SQLite that no connection stands for yet. One at a time in a process,
# and none while others are closed or during a fork; re-entrant, since every backend asks for it
# before a fork. Nobody waits for it for long: a file of an older format is rewritten when it is
# opened.
_opening = Lock()


# If a backend that nobody closed ends in a reference cycle, the collector must not reach the
# connection before its link has closed it.
_raws: set[sqlite3.Connection] = set()


class Link:
    """The connection of one thread."""

    __slots__ = (
        "__weakref__",
        "cursor",
        "data_version",
        "enter",
        "epoch",
        "execute",
        "file",
        "identity",
        "leave",
        "length",
        "lock",
        "mode",
        "own",
        "patience",
        "pid",
        "raw",
        "watch",
    )

    def __init__(
        self, raw: sqlite3.Connection, file: WatchedFile, identity: tuple[int, int], mode: str
    ) -> None:
        self.raw: sqlite3.Connection | None = raw
        _raws.add(raw)
        self.cursor = raw.cursor()
        self.execute = self.cursor.execute
        self.lock = Lock()
        # For the paths of hits and misses: ``with`` takes three times as long. Whoever calls these
        # releases what an exception of a signal handler left locked.
        self.enter = super(Lock, self.lock).acquire
        self.leave = self.lock.release
        self.file = file
        self.watch = file.length
        self.length = file.length()
        self.identity = identity
        self.mode = mode
        self.patience = -1.0
        self.pid = os.getpid()
        self.own = -1
        self.data_version = -1
        self.epoch = 0

    def close(self) -> None:
        """Close it, as soon as the thread that uses it is out of SQLite."""
        with self.lock:
            raw, self.raw = self.raw, None
            if raw is not None:
                # Who waits for the lock asks next: the descriptor may be another file's by then.
                self.watch, self.length = int, -1
                try:
                    raw.close()
                finally:
                    _raws.discard(raw)
                    self.file.release()

    def __del__(self) -> None:
        if getattr(self, "raw", None) is None:
            return
        if os.getpid() != self.pid:
            # A child lets go of the other threads' locals before anything of ours runs there.
            _abandon(self.raw)
        else:
            self.close()


class Connections:
    """The connections of one backend.

    Parameters
    ----------
    path
        the absolute path of the file
    timeout
        how long SQLite waits for another's lock, in seconds
    leases
        the locks beside the file

    Attributes
    ----------
    local
        `Link` of the present thread in the attribute ``link``, if it has one
    failed
        device and number of the file that was last tried to be opened
    """

    def __init__(self, path: str, timeout: float, leases: Leases) -> None:
        self.path = path
        self.failed = (0, 0)
        self._leases = leases
        self._refusal: tuple[float, str] | None = None
        self.timeout = timeout
        self.local = threading.local()
        self._links: weakref.WeakSet[Link] = weakref.WeakSet()
        self._lock = Lock()
        self._held: list[Any] = []
        self._inherited: list[Link] = []
        renew_after_fork(self)

    def link(self) -> Link:
        """Return the connection of this thread, opened if need be.

        Raises
        ------
        BackendError, sqlite3.Error
            the file can't be opened
        """
        link: Link | None = getattr(self.local, "link", None)
        if link is None or link.raw is None:
            link = self.local.link = self.spare()
        return link

    def spare(self) -> Link:
        """Return a further connection; whoever asked for it closes it.

        Raises
        ------
        BackendError, sqlite3.Error
            the file can't be opened
        """
        turn = _opening
        if not turn.acquire(timeout=_TURN):
            raise BackendError(f"{self.path}: another thread is still opening a file")
        try:
            link = self._open_soon()
        finally:
            turn.release()
        with self._lock:
            self._links.add(link)
        return link

    @property
    def is_open(self) -> bool:
        """Whether any thread has one."""
        return len(self._links) > 0

    def close(self) -> None:
        """Close all of them; a thread that asks again gets a new one."""
        with self._lock:
            links, self._links = list(self._links), weakref.WeakSet()
            self.local = threading.local()
        # Closing the last one empties the log into the file, under a lock of SQLite's: a thread
        # that opens the file meanwhile waits here, instead of being refused.
        turn = _opening
        waited = turn.acquire(timeout=_TURN)
        try:
            for link in links:
                link.close()
        finally:
            if waited:
                turn.release()

    def _open_soon(self) -> Link:
        # What just failed would fail again, and each of many threads would wait for it in turn.
        if self._refusal is not None:
            until, reason = self._refusal
            if time.monotonic() < until:
                raise BackendError(reason)
        try:
            link = self._open()
        except Exception as error:
            if classify(error) != "corrupt" and interruption(error) is None:
                self._refusal = (time.monotonic() + _REFUSED, str(error))
            raise
        self._refusal = None
        return link

    def _open(self) -> Link:
        import sqlite3

        path = self.path
        with translated(path):
            if os.path.lexists(path):
                create(path)
            else:
                make_private_folder(os.path.dirname(path))
                with self._leases.whole_file():
                    create(path)
        reason: sqlite3.Error | None = None
        for mode in ("mode=rw", "mode=ro", "immutable=1"):
            if mode == "immutable=1" and not self._is_settled():
                break
            try:
                return self._connect(mode)
            except sqlite3.Error as error:
                if reason is None:
                    if classify(error) in ("busy", "corrupt"):
                        raise
                    reason = error
        raise BackendError(f"{path} can't be opened: {reason}") from reason

    def _is_settled(self) -> bool:
        # What is still in the write-ahead log would be missed by an immutable connection, also
        # that an entry was removed.
        try:
            return os.path.getsize(files_of(self.path)[0]) == 0
        except OSError:
            return True

    def _connect(self, mode: str) -> Link:
        import sqlite3

        with translated(self.path):
            file = WatchedFile.open(self.path)
        raw = None
        foreign = False
        try:
            status = os.stat(self.path)
            identity = self.failed = (status.st_dev, status.st_ino)
            head = file.head()
            foreign = is_foreign(self.path, head)
            if foreign and not head.startswith(_MAGIC):
                raise self._refuse()
            if status.st_size == 0 and not self._is_settled():
                # Whoever has it open would keep its lock, and write into what is no longer there.
                raise sqlite3.DatabaseError("emptied: this is not a database")
            raw = sqlite3.connect(
                f"{Path(self.path).as_uri()}?{mode}",
                uri=True,
                timeout=self.timeout,
                isolation_level=None,
                check_same_thread=False,
            )
            raw.text_factory = _decode_text
            if mode == "mode=rw":
                self._prepare(raw)
            else:
                if read_format(raw, self.path) != FORMAT:
                    raise sqlite3.OperationalError("it has an older format")
            for pragma in (
                "synchronous = NORMAL",
                f"mmap_size = {_MAPPED}",
                f"journal_size_limit = {_WAL_KEPT}",
                "temp_store = MEMORY",
            ):
                raw.execute(f"PRAGMA {pragma}").fetchone()
            if is_stale(self.path, identity):
                raise BackendError(f"{self.path} was replaced while it was opened")
            self._leases.allowed = True
            return Link(raw, file, identity, mode)
        except BaseException as error:
            if raw is not None:
                raw.close()
            file.release()
            if foreign and classify(error) == "corrupt":
                raise self._refuse() from error
            if isinstance(error, OSError):
                raise BackendError(f"{self.path} can't be used: {error.strerror}") from error
            raise

    def _refuse(self) -> BackendError:
        return BackendError(
            f"{self.path} is not a file of memoleo and is left alone: "
            "give the cache a file of its own"
        )

    def _prepare(self, raw: sqlite3.Connection) -> None:
        import sqlite3

        try:
            if read_format(raw, self.path) == FORMAT:
                return
        except sqlite3.OperationalError as error:
            if classify(error) != "busy":
                raise
            with self._leases.whole_file(patience=0.0) as alone:
                if alone:
                    # Whoever created it may just have ended; a lock that is held elsewhere is not
                    # waited for a second time.
                    raw.execute("PRAGMA busy_timeout = 0")
                    prepare(raw, self.path)
                    raw.execute(f"PRAGMA busy_timeout = {int(self.timeout * 1000)}")
                    return
        # New, old, or just being created by another process, which is waited for.
        with self._leases.whole_file():
            prepare(raw, self.path)

    def _before_fork(self) -> None:
        deadline = time.monotonic() + _FORK_PATIENCE
        for lock in (_opening, self._lock):
            self._hold(lock, deadline)
        # In the child the other threads' states are cleared before anything of ours runs: without
        # a reference from here, their connections would be closed then.
        self._inherited = list(self._links)
        for link in self._inherited:
            # A child inherits SQLite's count of readers, but not the locks that it stands for.
            if self._hold(link.lock, deadline) and link.raw is not None and link.raw.in_transaction:
                with contextlib.suppress(Exception):
                    link.execute("ROLLBACK")

    def _hold(self, lock: Any, deadline: float) -> bool:
        held: bool = lock.acquire(timeout=max(0.0, deadline - time.monotonic()))
        if held:
            self._held.append(lock)
        return held

    def _after_fork_in_parent(self) -> None:
        while self._held:
            self._held.pop().release()
        self._inherited = []

    def _after_fork(self) -> None:
        global _opening
        _opening = Lock()
        self._held = []
        # "Do not even call sqlite3_close() on a connection that was opened in the parent"
        # (https://www.sqlite.org/howtocorrupt.html, 2.6): they are given up, not closed.
        for link in self._inherited:
            _abandon(link)
        self._inherited = []
        self._links = weakref.WeakSet()
        self.local = threading.local()
        self._lock = Lock()


class _Abandoned(msgspec.Struct, gc=False):
    """Refers to itself and is unknown to the garbage collector: it outlives the interpreter."""

    what: Any
    itself: Any = None


def _abandon(what: Any) -> None:
    abandoned = _Abandoned(what)
    abandoned.itself = abandoned


def _decode_text(text: bytes) -> str:
    return text.decode("utf-8", "replace")
