"""Locks that the system frees when their owner dies: on single bytes of a file."""

from __future__ import annotations

import os
import sys
import weakref
from contextlib import suppress

from memoleo._platform.forks import RenewedLock, renew_after_fork
from memoleo._platform.locks import Lock

__all__ = ["SLOTS", "ByteLock", "LockFile", "open_lock_file"]

SLOTS = 2**30 if sys.platform == "win32" else 2**62  # the C runtime of Windows seeks in 31 bits


class ByteLock:
    """A lock on one byte of a `LockFile`: free when it is released, or gone."""

    __slots__ = ("__weakref__", "_file", "_mark", "_offset")

    def __init__(self, file: LockFile, offset: int) -> None:
        self._offset = offset
        self._mark: weakref.ref[ByteLock] = weakref.ref(self)
        self._file: LockFile | None = file

    def release(self) -> None:
        """Free the byte. Twice is harmless."""
        file = self._file
        if file is not None:
            file.free(self._offset, self._mark)
            self._file = None

    def __del__(self) -> None:
        try:
            file = self._file
        except AttributeError:  # a signal handler's exception came while this was made
            return
        if file is not None:
            self.release()


class LockFile:
    """Locks on single bytes of one file: held by at most one holder among all processes.

    The system keeps them and frees them the instant that their process ends, however it ends.
    POSIX locks are wanted here, not those of open file descriptions (``F_OFD_SETLK``): these
    would live on in a forked child after their owner was killed. POSIX locks don't exclude one
    another within a process, so this object does that itself, and there is only one of it for a
    file and process.
    """

    def __init__(self, descriptor: int, identity: tuple[int, int]) -> None:
        self.descriptor = descriptor
        self.identity = identity
        self.users = 0
        self._held: dict[int, weakref.ref[ByteLock]] = {}
        self._lock = Lock()

    def acquire(self, offset: int) -> ByteLock | None:
        """Lock one byte without waiting; `None` if another holds it, in any process.

        Raises
        ------
        OSError
            the file system knows no locks
        """
        lock = ByteLock(self, offset)
        # The dictionary decides among the threads of this process, by one step that is atomic.
        holder = self._held.setdefault(offset, lock._mark)
        if holder is not lock._mark and not self._inherit(offset, holder, lock._mark):
            return None
        try:
            _lock(self.descriptor, _EXCLUSIVE, 1, offset)
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, says POSIX
            del self._held[offset]
            return None
        except BaseException:
            # A signal handler's exception may come just after the byte was locked.
            with suppress(OSError, ValueError):
                _lock(self.descriptor, _FREE, 1, offset)
            del self._held[offset]
            raise
        return lock

    def _inherit(
        self, offset: int, holder: weakref.ref[ByteLock], mark: weakref.ref[ByteLock]
    ) -> bool:
        """Take the place of a holder that an exception of a signal handler stopped in the middle.

        It is gone, and could not give back what it had.
        """
        with self._lock:
            if holder() is not None or self._held.get(offset) is not holder:
                return False
            self._held[offset] = mark
            return True

    def free(self, offset: int, mark: weakref.ref[ByteLock]) -> None:
        """Free one byte; nothing happens if `mark` is not that of its present holder."""
        with self._lock:
            if self._held.get(offset) is not mark:
                return
            _lock(self.descriptor, _FREE, 1, offset)
            del self._held[offset]
        if self.users <= 0:
            self._close_if_idle()

    def is_at(self, path: str) -> bool:
        """Whether this is still the file at `path`."""
        try:
            status = os.stat(path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self.identity

    def close(self) -> None:
        """Say that one user needs the file no more."""
        with _lock_files_lock:
            self.users -= 1
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        # Closing drops the locks of this process, so it waits for the last one.
        with _lock_files_lock:
            if self.users <= 0 and not self._held and self.descriptor >= 0:
                _lock_files.pop(self.identity, None)
                # In this order: the number may be another file's at once.
                descriptor, self.descriptor = self.descriptor, -1
                os.close(descriptor)

    def _after_fork(self) -> None:
        # A child holds none of its parent's locks.
        self._held = {}
        self._lock = Lock()


_lock_files: dict[tuple[int, int], LockFile] = {}
_lock_files_lock = RenewedLock()


def open_lock_file(path: str) -> LockFile:
    """Return the locks on the file at `path`, which is created (mode 0600) if it is missing.

    Raises
    ------
    OSError
        it can't be opened for writing, or is a symbolic link
    """
    with _lock_files_lock:
        try:
            status = os.lstat(path)
            # Nothing is called in between: the collector may close what has no user.
            (file := _lock_files[status.st_dev, status.st_ino]).users += 1
        except (FileNotFoundError, KeyError):
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            descriptor = os.open(path, flags, 0o600)
            status = os.fstat(descriptor)
            identity = (status.st_dev, status.st_ino)
            file = _lock_files.setdefault(identity, LockFile(descriptor, identity))
            file.users += 1
            renew_after_fork(file)
        return file


if sys.platform == "win32":
    import msvcrt

    _EXCLUSIVE = msvcrt.LK_NBLCK
    _FREE = msvcrt.LK_UNLCK

    _seeking = Lock()

    def _lock(descriptor: int, mode: int, length: int, offset: int) -> None:
        # The threads of a process share where a descriptor stands.
        with _seeking:
            os.lseek(descriptor, offset, os.SEEK_SET)
            msvcrt.locking(descriptor, mode, length)

else:
    import fcntl

    _EXCLUSIVE = fcntl.LOCK_EX | fcntl.LOCK_NB
    _FREE = fcntl.LOCK_UN
    _lock = fcntl.lockf
