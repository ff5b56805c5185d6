"""Locks beside an SQLite file: who computes a key, and who creates or replaces the file.

They are locks of the operating system on single bytes of ``<file>.lock``, so they are gone the
instant that their owner is, and nothing must be cleaned up: no rows, no process numbers, no
clocks. The file stays empty.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from memoleo._platform.file_locks import SLOTS, LockFile, open_lock_file
from memoleo._platform.forks import renew_after_fork
from memoleo._platform.interrupts import pass_on
from memoleo._platform.locks import Lock
from memoleo.backends._protocol import Lease

__all__ = ["Leases"]

_WHOLE_FILE = SLOTS
_POLL = 0.005
_LOOK_EVERY = 1.0


class Leases:
    """The locks of one store.

    Parameters
    ----------
    path
        the store's own file

    Attributes
    ----------
    allowed
        whether the file of locks may be made beside a file that is there already. It is the sign
        of a store, so it must not come to stand beside a file that isn't known to be one
    """

    def __init__(self, path: str) -> None:
        self._path = f"{path}.lock"
        self.allowed = False
        self._store = path
        self._file: LockFile | None = None
        self._next_look = 0.0
        self._lock = Lock()
        renew_after_fork(self)

    def take(self, place: int) -> Lease | None:
        """Try to get the lease on what has this place; `None` if another holds it, in any process.

        Where nothing can be locked, in a read-only folder or on a file system without locks, it
        is granted: a result is then computed twice now and then, but no call is held up.
        """
        try:
            file = self._file
            if file is None or _now() >= self._next_look:
                file = self._open()
            return file.acquire(place)
        except (OSError, ValueError) as error:  # the latter if another thread just closed it
            pass_on(error)
            return _UNLOCKED

    @contextlib.contextmanager
    def whole_file(self, patience: float = 0.5) -> Iterator[bool]:
        """Be the only one who creates or replaces the file; whether that was achieved in time.

        Parameters
        ----------
        patience
            how long to wait for another, in seconds
        """
        deadline = time.monotonic() + patience
        while True:
            lease = self.take(_WHOLE_FILE)
            if lease is not None:
                break
            if time.monotonic() > deadline:
                yield False
                return
            time.sleep(_POLL)
        try:
            yield True
        finally:
            lease.release()

    def close(self) -> None:
        """Close the file of locks; leases that are held stay valid until they are released."""
        with self._lock:
            file, self._file = self._file, None
        if file is not None:
            file.close()

    def _open(self) -> LockFile:
        file = self._file
        self._next_look = _now() + _LOOK_EVERY
        if file is not None and file.is_at(self._path):
            return file
        if not self.allowed and _has_content(self._store) and not os.path.lexists(self._path):
            raise FileNotFoundError(self._path)
        with self._lock:
            old, self._file = self._file, open_lock_file(self._path)
            file = self._file
        if old is not None:
            old.close()
        return file

    def _after_fork(self) -> None:
        self._lock = Lock()


class _Unlocked:
    def release(self) -> None:
        pass


def _has_content(path: str) -> bool:
    try:
        return os.stat(path).st_size > 0
    except OSError:
        return False


_UNLOCKED = _Unlocked()
_now = time.monotonic
