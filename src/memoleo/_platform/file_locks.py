"""Locks that the system frees when their owner dies: on single bytes of a file."""

from __future__ import annotations

import os
import sys
import weakref
from contextlib import suppress

import msgspec

from memoleo._platform.forks import RenewedLock, renew_after_fork
from memoleo._platform.locks import Lock

__all__ = ["SLOTS", "ByteLock", "LockFile", "open_lock_file"]

SLOTS = 2**30 if sys.platform == "win32" else 2**62  # the C runtime of Windows seeks in 31 bits


class ByteLock(msgspec.Struct, eq=False, weakref=True):
    """A lock on one byte of a `LockFile`: free when it is released, or gone.

    Parameters
    ----------
    file
        where
    offset
        which byte
    mark
        what the file knows the holder by; `None` once it is released
    """

    file: LockFile
    offset: int
    mark: weakref.ref[ByteLock] | None = None

    def release(self) -> None:
        """Free the byte. Twice is harmless."""
        file, mark = self.file, self.mark
        if mark is None:
            return
        with file.lock:
            if file.held.get(self.offset) is mark:
                _lock(file.descriptor, _FREE, 1, self.offset)
                del file.held[self.offset]
        self.mark = None
        if file.users <= 0:
            file.close_if_idle()


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
        self.held: dict[int, weakref.ref[ByteLock]] = {}
        self.lock = Lock()

    def acquire(self, offset: int) -> ByteLock | None:
        """Lock one byte without waiting; `None` if another holds it, in any process.

        Raises
        ------
        OSError
            the file system knows no locks
        """
        lock = ByteLock(self, offset)
        mark = lock.mark = weakref.ref(lock, self._dropped)
        try:
            # The dictionary decides among the threads of this process, by one step that is atomic.
            holder = self.held.setdefault(offset, mark)
            if holder is not mark and not self._inherit(offset, holder, mark):
                return None
            _lock(self.descriptor, _EXCLUSIVE, 1, offset)
            return lock
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, says POSIX
            if self.held.get(offset) is mark:
                del self.held[offset]
            return None
        except BaseException:
            # A signal handler's exception may come just after the byte was taken, and whoever
            # keeps it keeps this frame: nothing would be gone.
            if self.held.get(offset) is mark:
                with suppress(OSError, ValueError):
                    _lock(self.descriptor, _FREE, 1, offset)
                del self.held[offset]
            raise

    def _inherit(
        self, offset: int, holder: weakref.ref[ByteLock], mark: weakref.ref[ByteLock]
    ) -> bool:
        """Take the place of a holder that an exception of a signal handler stopped in the middle.

        It is gone, and could not give back what it had.
        """
        with self.lock:
            if holder() is not None or self.held.get(offset) is not holder:
                return False
            self.held[offset] = mark
            return True

    def _dropped(self, mark: weakref.ref[ByteLock]) -> None:
        """Free what a holder had that is gone without having released it."""
        # No `__del__`, which would be one more call for each of those that were released.
        for offset, holder in list(self.held.items()):
            if holder is mark:
                ByteLock(self, offset, mark).release()

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
        self.close_if_idle()

    def close_if_idle(self) -> None:
        """Close the file if nobody needs it any more."""
        # Closing drops the locks of this process, so it waits for the last one.
        with _lock_files_lock:
            if self.users <= 0 and not self.held and self.descriptor >= 0:
                _lock_files.pop(self.identity, None)
                # In this order: the number may be another file's at once.
                descriptor, self.descriptor = self.descriptor, -1
                os.close(descriptor)

    def _after_fork(self) -> None:
        # A child holds none of its parent's locks.
        self.held = {}
        self.lock = Lock()


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
