"""The one room for what differs between Linux, macOS and Windows.

Locks that the system frees when their owner dies, file modes, what happens at `fork`, the
number of cores, and the way a process ends by a signal. Nothing else in memoleo asks which
system it runs on.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar, NoReturn

from memoleo._locks import Lock

__all__ = [
    "RenewedLock",
    "WatchedFile",
    "become",
    "check_ownership",
    "create_private_file",
    "end_by_signal",
    "end_like",
    "make_private_folder",
    "on_termination",
    "open_lock_file",
    "performance_cores",
    "physical_cores",
    "renew_after_fork",
    "supervise",
]

WINDOWS = sys.platform == "win32"

# -- fork ---------------------------------------------------------------------------------------

_renewed: dict[int, weakref.ref[Any]] = {}
_hooked = False


def renew_after_fork(obj: Any) -> None:
    """Call ``obj._after_fork()`` in every child that this process forks from now on.

    Two more methods are called if `obj` has them: ``_before_fork()`` ahead of the fork, where it
    can wait until its other threads are at a safe place, and ``_after_fork_in_parent()``.
    Only a weak reference is kept. Windows has no fork: there it does nothing.
    """
    global _hooked
    if WINDOWS:
        return
    number = id(obj)
    _renewed[number] = weakref.ref(obj, lambda _: _renewed.pop(number, None))
    if not _hooked:
        _hooked = True
        os.register_at_fork(
            before=lambda: _call_all("_before_fork"),
            after_in_parent=lambda: _call_all("_after_fork_in_parent"),
            after_in_child=lambda: _call_all("_after_fork"),
        )


class RenewedLock(Lock):
    """A `Lock` that is free in a forked child, unless the thread that forked holds it.

    For what is whole at any moment: the child goes on with it as it is.
    """

    __slots__ = ()

    def __init__(self) -> None:
        renew_after_fork(self)

    def _after_fork(self) -> None:
        if not self._is_owned():
            self._at_fork_reinit()


def _call_all(name: str) -> None:
    for reference in list(_renewed.values()):
        obj = reference()
        method: Callable[[], None] | None = getattr(obj, name, None)
        if method is not None:
            method()


# -- files --------------------------------------------------------------------------------------


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


_HEAD = 100


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


# -- locks that die with their owner ------------------------------------------------------------

SLOTS = 2**30 if WINDOWS else 2**62  # the C runtime of Windows seeks in 31 bits


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
                os.close(self.descriptor)
                self.descriptor = -1

    def _after_fork(self) -> None:
        # A child holds none of its parent's locks.
        self._held = {}
        self._lock = Lock()


_lock_files: dict[tuple[int, int], LockFile] = {}
_lock_files_lock = Lock()


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

    def _lock(descriptor: int, mode: int, length: int, offset: int) -> None:
        os.lseek(descriptor, offset, os.SEEK_SET)
        msvcrt.locking(descriptor, mode, length)

else:
    import fcntl

    _EXCLUSIVE = fcntl.LOCK_EX | fcntl.LOCK_NB
    _FREE = fcntl.LOCK_UN
    _lock = fcntl.lockf


def _renew_registries() -> None:
    global _lock_files_lock
    _lock_files_lock = Lock()
    WatchedFile._after_fork()


if not WINDOWS:
    os.register_at_fork(after_in_child=_renew_registries)


# -- processors and signals ---------------------------------------------------------------------


def physical_cores() -> int:
    """Return the number of cores that this process may use, hyper-threads not counted twice."""
    usable = _usable_processors()
    if sys.platform == "linux":
        cores = set()
        for number in usable:
            folder = f"/sys/devices/system/cpu/cpu{number}/topology"
            try:
                with (
                    open(f"{folder}/physical_package_id") as package,
                    open(f"{folder}/core_id") as core,
                ):
                    cores.add((package.read(), core.read()))
            except OSError:
                return max(1, len(usable))
        return max(1, len(cores))
    if sys.platform == "darwin":
        return _ask_sysctl("hw.physicalcpu") or len(usable)
    return len(usable)


def performance_cores() -> int:
    """Return how many of `physical_cores` are fast ones; all, where there is one kind only."""
    cores = physical_cores()
    if sys.platform == "darwin":
        return _ask_sysctl("hw.perflevel0.physicalcpu") or cores
    if sys.platform == "linux":
        speeds: dict[tuple[str, str], int] = {}
        for number in _usable_processors():
            folder = f"/sys/devices/system/cpu/cpu{number}"
            core = (_read(f"{folder}/topology/physical_package_id"),
                    _read(f"{folder}/topology/core_id"))  # fmt: skip
            # Arm says what a core can do, others how fast it runs at most.
            for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
                if (speed := _read(f"{folder}/{name}")).isdigit():
                    speeds[core] = int(speed)
                    break
        fastest = max(speeds.values(), default=0)
        # Cores of one kind differ by a little; slow ones reach some two thirds of the fast.
        fast = sum(speed > 0.8 * fastest for speed in speeds.values())
        return fast if len(speeds) == cores else cores
    return cores


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""


def _usable_processors() -> set[int]:
    if sys.platform == "linux":
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _ask_sysctl(name: str) -> int | None:
    import subprocess

    try:
        answer = subprocess.run(
            ["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, check=True, timeout=2
        )
        return int(answer.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def end_by_signal(number: int) -> None:
    """End this process as the signal would have ended it, so that its parent sees why.

    Windows has no signals between processes: there it exits with the status that shells use.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if sys.platform == "win32":
        os._exit(128 + number)
    with suppress(OSError):  # nobody can say what becomes of SIGKILL
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


# -- other programs -----------------------------------------------------------------------------

_FORWARDED = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGBREAK")
_FROM_KEYS = ("SIGINT", "SIGQUIT")


def become(arguments: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Execute a program in the place of this one, which keeps its process, and never return.

    Windows can't replace a process: there the program runs in a child, and this process ends as
    it does.

    Raises
    ------
    OSError
        it can't be started
    """
    if sys.platform == "win32":
        end_like(supervise(arguments, environment))
    os.execve(arguments[0], list(arguments), environment)


def supervise(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a program in a child until it ends; signals to this process go on to it.

    Returns
    -------
    int
        its exit status; −n if signal n ended it

    Raises
    ------
    OSError
        it can't be started
    """
    import subprocess

    early: list[int] = []
    process: subprocess.Popen[bytes] | None = None

    def forward(number: int, _frame: object) -> None:
        if signal.Signals(number).name in _FROM_KEYS and _has_the_keyboard():
            return
        if process is None:
            early.append(number)
        else:
            process.send_signal(number)

    numbers = [getattr(signal, name) for name in (*_FORWARDED, *_FROM_KEYS) if name in dir(signal)]
    before = {
        number: signal.signal(number, forward)
        for number in numbers
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        process = subprocess.Popen(arguments, env=environment)
        for number in early:
            process.send_signal(number)
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _has_the_keyboard() -> bool:
    """Whether a key such as Ctrl-C reaches this process's children without its doing."""
    if sys.platform == "win32":
        return True
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def end_like(status: int) -> NoReturn:
    """End this process as a child ended that `supervise` returned this status of."""
    if status < 0:
        end_by_signal(-status)
    # Windows has statuses beyond what sys.exit() takes, such as that of Ctrl-C, 0xC000013A.
    sys.exit(status if status < 1 << 31 else status - (1 << 32))


# -- the last moment ----------------------------------------------------------------------------

_last_calls: list[Callable[[], None]] = []
_terminating = False


def on_termination(call: Callable[[], None]) -> None:
    """Call `call` when somebody asks this process to end (SIGTERM), before it ends as ever.

    Nothing happens if the program handles the signal itself, now or later, or if this is not the
    main thread, which alone may say what becomes of signals. Windows has no such signal.
    """
    if WINDOWS or threading.current_thread() is not threading.main_thread():
        return
    if call not in _last_calls:
        _last_calls.append(call)
    try:
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _terminate)
    except ValueError:
        # In a subinterpreter no thread may.
        pass


def _terminate(number: int, frame: object) -> None:
    global _terminating
    if not _terminating:
        _terminating = True
        for call in _last_calls:
            try:
                call()
            except Exception:
                continue
        _terminating = False
    # A handler that was set later, and calls the one before it, decides what happens then.
    if signal.getsignal(number) is _terminate:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
