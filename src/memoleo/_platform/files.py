"""Files that only their owner reads, and files that may be cut short under a reader."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import ClassVar

from memoleo._platform.forks import renew_after_fork
from memoleo._platform.locks import Lock

__all__ = [
    "WatchedFile",
    "check_ownership",
    "create_private_file",
    "is_open_to_others",
    "make_private_folder",
]

_HEAD = 100


def make_private_folder(path: str) -> None:
    """Create a folder that only its owner can enter (mode 0700), if it is missing.

    Windows gives new folders the access list of their parent, which is private in a profile.

    Raises
    ------
    OSError
        it can't be made
    """
    os.makedirs(path, mode=0o700, exist_ok=True)


def create_private_file(path: str) -> bool:
    """Create an empty file that only its owner can read (mode 0600); whether it is new.

    It follows no symbolic link, and an existing file is left as it is.

    Raises
    ------
    OSError
        it can't be made
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileExistsError:
        return False
    os.close(descriptor)
    return True


def check_ownership(path: str) -> str | None:
    """Say why a file should not be trusted with private data, or `None` if nothing speaks against.

    A file that belongs to somebody else in a folder where everybody may write could have been put
    there for us to find. Windows keeps such folders apart by access lists.
    """
    if sys.platform == "win32":
        return None
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        return "it is a symbolic link"
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    if status.st_uid not in (os.geteuid(), 0):
        folder = os.stat(os.path.dirname(path) or ".")
        if folder.st_mode & stat.S_IWOTH:
            return "it belongs to another user, in a folder where everybody may write"
    return None


def is_open_to_others(mode: int) -> bool:
    """Whether a file of this mode is open to other users; on Windows no mode says so."""
    return sys.platform != "win32" and bool(stat.S_IMODE(mode) & 0o077)


class WatchedFile:
    """Tells quickly whether a file that is mapped into memory has been cut short.

    Reading a mapped page beyond the end of its file kills a process with SIGBUS, so the length is
    looked at before each read. On Windows a mapped file can't be cut, and nothing needs watching.

    POSIX drops all locks that a process has on a file as soon as it closes *any* descriptor of
    it (fcntl(2)), SQLite's included. There is therefore one descriptor for a file and process,
    it is closed only after all users of the file have gone, and a few are kept beyond that.
    """

    _watched: ClassVar[dict[tuple[int, int], WatchedFile]] = {}
    _lock = Lock()
    _PARKED = 32

    def __init__(self, descriptor: int, path: str) -> None:
        self.descriptor = descriptor
        self.path = path
        self.users = 0

    @classmethod
    def open(cls, path: str) -> WatchedFile:
        """Watch the file at `path`, for one user more; `release` it in the end."""
        if sys.platform == "win32":
            return cls(-1, path)
        with cls._lock:
            status = os.stat(path)
            while True:
                # After any call the collector may come by, close what was forgotten, and what is
                # found here with it. So nothing is called before it has its user.
                with suppress(KeyError):
                    (watched := cls._watched[status.st_dev, status.st_ino]).users += 1
                    return watched
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
                status = os.fstat(descriptor)
                made = cls(descriptor, path)
                made.users = 1
                if cls._watched.setdefault((status.st_dev, status.st_ino), made) is made:
                    return made

    def release(self) -> None:
        """Say that one user has closed the file."""
        if self.descriptor < 0:
            return
        with self._lock:
            self.users -= 1
            # A copy, and asked again each time: the collector may close more of them meanwhile.
            idle = [(key, one) for key, one in list(self._watched.items()) if one.users <= 0]
            surplus = len(idle) - self._PARKED
            for position, (key, one) in enumerate(idle):
                if (
                    key in self._watched
                    and (position < surplus or os.fstat(one.descriptor).st_nlink == 0)
                    and self._watched.pop(key, None) is one
                ):
                    os.close(one.descriptor)

    @property
    def length(self) -> Callable[[], int]:
        """What returns the length of the file in bytes; always 0 where it needs no watching.

        It is asked before each read, so it is a function of the system's and none of ours.
        """
        if self.descriptor < 0:
            return int
        return partial(os.lseek, self.descriptor, 0, os.SEEK_END)

    def head(self) -> bytes:
        """Return the first hundred bytes of the file."""
        if sys.platform == "win32":
            with open(self.path, "rb") as file:
                return file.read(_HEAD)
        return os.pread(self.descriptor, _HEAD, 0)

    def is_deleted(self) -> bool:
        """Whether the file has no name any more: it was removed, or another took its place."""
        return self.descriptor >= 0 and os.fstat(self.descriptor).st_nlink == 0

    @classmethod
    def _after_fork(cls) -> None:
        # Descriptors stay valid in a child, but who used them there is gone.
        cls._lock = Lock()
        for watched in cls._watched.values():
            watched.users = 0


renew_after_fork(WatchedFile)
