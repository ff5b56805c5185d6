"""Running one operation on an SQLite file that may be locked, damaged, replaced or full.

Every failure ends as a `BackendError` within a fraction of a second. Two are repaired first: a
file that was deleted or replaced is opened anew, and a damaged one is put aside for a new one.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from memoleo._events import extras, logger
from memoleo._platform.forks import RenewedLock, renew_after_fork
from memoleo._platform.interrupts import interruption
from memoleo.backends._sqlite_connections import Connections, Link
from memoleo.backends._sqlite_faults import classify, is_stale, put_aside, translated
from memoleo.backends._sqlite_leases import Leases
from memoleo.backends._sqlite_schema import is_later
from memoleo.errors import BackendError

__all__ = ["Runner", "Unready"]

T = TypeVar("T")

_LOOK_EVERY = 1.0
_IMPATIENT = 1.0
_SHORT = 0.005
_QUEUE = 0.25
_REPAIR_EVERY = 10.0
_ATTEMPTS = 3
_PAUSES = (0.002, 0.005, 0.01, 0.02, 0.03, 0.03, 0.03, 0.03)
_WHY = {
    "busy": "another process holds its lock",
    "full": "there is no room left",
    "readonly": "it is read-only",
}


class Runner:
    """Runs operations on the file at `path`, for any thread.

    Parameters
    ----------
    path
        the absolute path of the file
    timeout
        how long an operation waits for another's lock, in seconds

    Attributes
    ----------
    turn
        the right to write among the threads of this process
    next_look
        when to see again whether the file is still in its place (`time.monotonic`)
    impatient_until
        until when others' locks are only waited for briefly (`time.monotonic`)
    """

    def __init__(self, path: str, timeout: float) -> None:
        self.path = path
        self.leases = Leases(path)
        self.connections = Connections(path, timeout, self.leases)
        self.next_look = 0.0
        self.timeout = timeout
        self.impatient_until = 0.0
        self._repaired = -_REPAIR_EVERY
        self._repairs = 0
        self.writer = _one_writer(path)
        self.turn = self.writer.lock
        renew_after_fork(self)

    def run(self, operation: Callable[[Link], T], error: Exception | None = None) -> T:
        """Run an operation that only reads.

        Parameters
        ----------
        operation
            what to do with the connection; it may be called more than once
        error
            what an attempt of the caller's own ended with

        Raises
        ------
        BackendError
            it could not be done
        """
        return self._attempt(operation, error, reading=True)

    def write(
        self, operation: Callable[[Link], T], settle: Callable[[T | None], None] | None = None
    ) -> T:
        """Run an operation inside a transaction that is kept whole or not at all.

        Parameters
        ----------
        operation
            what to do with the connection
        settle
            called when it is over, before another thread can write, with its result, or `None` if
            it failed

        Raises
        ------
        BackendError
            it could not be done, and nothing has changed
        """

        def transaction(link: Link) -> T:
            result: T | None = None
            try:
                link.execute("BEGIN IMMEDIATE")
                pending = operation(link)
                link.execute("COMMIT")
                result = pending
            except BaseException:
                if link.raw is not None and link.raw.in_transaction:
                    link.execute("ROLLBACK")
                raise
            finally:
                if settle is not None:
                    settle(result)
            return pending

        return self.write_alone(transaction)

    def insist(self, action: Callable[[], T]) -> T:
        """Do something that writes, and try again for a moment if others are in the way.

        What is asked for by a person, such as removing entries, is worth more patience than
        storing a result, which can be computed again.
        """
        for pause in _PAUSES:
            try:
                return action()
            except BackendError as error:
                if error.__cause__ is not None and classify(error.__cause__) != "busy":
                    raise
            time.sleep(pause)
        return action()

    def write_alone(self, operation: Callable[[Link], T], error: Exception | None = None) -> T:
        """Run an operation that writes and can't be inside a transaction, or needs none.

        Parameters
        ----------
        operation
            what to do with the connection; it may be called more than once
        error
            what an attempt of the caller's own ended with
        """
        # Threads queue here; SQLite would let them sleep and poll.
        turn, writer = self.turn, self.writer
        if not turn.acquire(timeout=_QUEUE) and writer.inside:
            raise self._failure("busy", None)
        # Locked, and nobody inside: a signal handler's exception came between the two.
        try:
            writer.inside = True
            return self._attempt(operation, error, reading=False)
        finally:
            writer.inside = False
            with suppress(RuntimeError):
                turn.release()
            error = None  # it refers to the caller's frame

    def close(self) -> None:
        """Close everything; a later operation opens it again."""
        self.connections.close()
        self.leases.close()

    def _attempt(
        self, operation: Callable[[Link], T], error: Exception | None, *, reading: bool
    ) -> T:
        link: Link | None = None
        try:
            if error is not None:
                self._recover(error, None, reading, 0)
            for attempt in range(_ATTEMPTS):
                try:
                    link = None
                    link = self._look(self.connections.link(), reading)
                    with link.lock:
                        self._set_patience(link)
                        return operation(link)
                except Exception as failure:
                    error = failure
                    self._recover(failure, link, reading, attempt)
            raise self._failure("other", error) from error
        finally:
            error = None  # it refers to this frame

    def _look(self, link: Link, reading: bool) -> Link:
        """Return the connection, or another if its file is no longer what it was."""
        if not reading and link.file.is_deleted():
            # Within a second it would be noticed anyway; what is stored should not be lost.
            self.connections.close()
            return self.connections.link()
        length = link.watch()
        shrunk = length < link.length
        link.length = length
        now = time.monotonic()
        if not shrunk and now < self.next_look:
            return link
        self.next_look = now + _LOOK_EVERY
        if is_stale(self.path, link.identity) or shrunk or _is_later(link):
            self.connections.close()
        elif link.mode != "mode=rw":
            link.close()  # the file or its folder may be writable by now
        else:
            return link
        return self.connections.link()

    def _patience(self) -> float:
        impatient = time.monotonic() < self.impatient_until
        return min(self.timeout, _SHORT) if impatient else self.timeout

    def _set_patience(self, link: Link) -> None:
        patience = self._patience()
        if link.patience != patience:
            link.execute(f"PRAGMA busy_timeout = {int(patience * 1000)}")
            link.patience = patience

    def _recover(self, error: Exception, link: Link | None, reading: bool, attempt: int) -> None:
        """Return if another attempt makes sense, else raise."""
        import sqlite3

        if isinstance(error, BackendError) or interruption(error) is not None:
            raise error
        if isinstance(error, Unready):
            return
        if not isinstance(error, (sqlite3.Error, UnicodeDecodeError)):
            raise self._failure("other", error) from error
        fault = classify(error)
        if fault == "corrupt" and _is_later(link or getattr(self.connections.local, "link", None)):
            # Sound, but unknown: whoever opens it again is told so.
            self.connections.close()
        elif fault == "corrupt":
            self._repair(link.identity if link else self.connections.failed, error)
        elif fault == "moved" or (fault == "other" and reading and attempt == 0):
            # A log that was cut off gives I/O errors until everybody has let go of it.
            self.connections.close()
        elif fault != "closed":
            if fault == "busy":
                # A lock that outlasts one wait is somebody's mistake: don't wait for it again.
                self.impatient_until = time.monotonic() + _IMPATIENT
            raise self._failure(fault, error) from error

    def _repair(self, identity: tuple[int, int], error: Exception) -> None:
        """Put a damaged file aside, unless another process just did, and never over and over."""
        now = time.monotonic()
        self._repairs = self._repairs + 1 if now < self._repaired + _REPAIR_EVERY else 1
        self._repaired = now
        if self._repairs > _ATTEMPTS:
            raise self._failure("other", error) from error
        self.connections.close()
        with translated(self.path), self.leases.whole_file() as alone:
            if not alone or is_stale(self.path, identity):
                return
            aside = put_aside(self.path)
        logger.warning(
            "%s was damaged (%s): it is now %s, and a new one is started",
            self.path,
            error,
            aside,
            extra=extras("damaged", path=self.path, error=error),
        )

    def _failure(self, fault: str, error: Exception | None) -> BackendError:
        return BackendError(f"{self.path}: {_WHY.get(fault, error)}")

    def _after_fork(self) -> None:
        if _writers.get(self.path) is self.writer:
            del _writers[self.path]
        self.writer = _one_writer(self.path)
        self.turn = self.writer.lock


def _is_later(link: Link | None) -> bool:
    import sqlite3

    if link is None:
        return False
    try:
        with link.lock:
            if link.raw is None:
                return False
            # Whatever is in the way, a lock or damage, what is asked of it next meets it too.
            link.execute("PRAGMA busy_timeout = 0")
            link.patience = 0.0
            return is_later(link.raw)
    except sqlite3.Error:
        return False


class _Writer:
    """The turn to write among the threads of this process, for one file."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = False


# A dictionary of weak references needs a lock: its `setdefault` is not one step.
_registering = RenewedLock()
_writers: weakref.WeakValueDictionary[str, _Writer] = weakref.WeakValueDictionary()


def _one_writer(path: str) -> _Writer:
    writer = _Writer()
    with _registering:
        return _writers.setdefault(path, writer)


class Unready(Exception):
    """The thread has no connection yet, or its file should be looked at first."""
