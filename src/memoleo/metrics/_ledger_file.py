"""The file beside a cache that holds what its programs did, minute by minute.

Any number of processes write to it. It is opened for each flush and closed again: a few
milliseconds every few seconds, and nothing that a fork could break or a deletion could confuse.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from memoleo._events import extras, logger
from memoleo._platform.files import check_ownership, create_private_file, make_private_folder
from memoleo._platform.forks import renew_after_fork
from memoleo.backends._sqlite_faults import classify, files_of, is_stale, put_aside
from memoleo.errors import BackendError
from memoleo.metrics._ledger_schema import FORMAT, prepare, read_format
from memoleo.metrics._names import MOST, OTHER, whole
from memoleo.metrics._spans import IN_FILE, Place, outdated, widened
from memoleo.metrics._totals import OperationTotals, Totals, merge_counts

if TYPE_CHECKING:
    import sqlite3

__all__ = ["BusyLedger", "LedgerFile"]

T = TypeVar("T")

_PATIENCE = 0.25
_POLL = 0.005
_LONGEST = 5.0
_ROLLED_AT_ONCE = 2_000
_WAL_KEPT = 1024**2
_SEPARATOR = "\x1f"


class BusyLedger(BackendError):
    """Another process is writing: nothing was changed, and it may be tried again."""


class _Gate:
    """Lets one thread at a time use SQLite here, and none while the process forks.

    SQLite's own mutexes would stay locked in the child for ever. Nobody new is let in once a fork
    is about to happen, so that it never waits for longer than one call takes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forking = False
        self._held = False
        renew_after_fork(self)

    @contextlib.contextmanager
    def passed(self, patience: float) -> Iterator[None]:
        deadline = time.monotonic() + patience
        while self._forking and time.monotonic() < deadline:
            time.sleep(_POLL)
        if self._forking or not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise BusyLedger("another thread has its turn")
        try:
            yield
        finally:
            self._lock.release()

    def _before_fork(self) -> None:
        self._forking = True
        self._held = self._lock.acquire(timeout=_LONGEST)

    def _after_fork_in_parent(self) -> None:
        self._forking = False
        if self._held:
            self._held = False
            self._lock.release()

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._forking = self._held = False


_gate = _Gate()


class LedgerFile:
    """The metrics file at `path`; created for its owner only (mode 0600)."""

    def __init__(self, path: str) -> None:
        self.path = path

    def add(self, minutes: dict[Place, Totals], now: float, patience: float = 0.0) -> None:
        """Add what happened, whole or not at all, and roll up what is old.

        Parameters
        ----------
        minutes
            what happened in which stretches of time
        now
            the time in seconds since the epoch
        patience
            seconds to wait for another process that is writing, a quarter at least

        Raises
        ------
        BusyLedger
            another process is writing
        BackendError
            the file can't be written
        """

        def write(connection: sqlite3.Connection) -> None:
            names = _Names(connection)
            for place, totals in minutes.items():
                for kind, name, block in _rows(totals):
                    _add(connection, names, place, kind, name, block)
            _roll(connection, names, now)

        self._run(write, create=True, patience=patience)

    def read(self, since: float, until: float) -> list[tuple[Place, Totals]]:
        """Return what happened in stretches of time that begin in ``[since, until)``.

        Raises
        ------
        BackendError
            the file can't be read
        """
        if not os.path.exists(self.path):
            return []

        def find(connection: sqlite3.Connection) -> list[tuple[Place, Totals]]:
            found: dict[Place, Totals] = {}
            if read_format(connection, self.path) != FORMAT:
                return []  # it is just being made
            for span, start, kind, name, block in connection.execute(
                "SELECT span, start, kind, name, block FROM totals "
                "WHERE start + span > ? AND start < ? ORDER BY start, span DESC",
                (since, until),
            ):
                totals = found.setdefault(Place(start, span), Totals())
                with contextlib.suppress(Exception):  # one bad row hides no others
                    _put(totals, kind, name, block)
            return list(found.items())

        return self._run(find, create=False)

    def clear(self) -> None:
        """Forget everything.

        Raises
        ------
        BackendError
            the file can't be written
        """
        if os.path.exists(self.path):
            self._run(lambda connection: connection.execute("DELETE FROM totals"), create=True)

    def _run(self, operation: Callable[[Any], T], *, create: bool, patience: float = 0.0) -> T:
        import sqlite3

        patience = max(patience, _PATIENCE)
        deadline = time.monotonic() + patience
        repaired = False
        while True:
            identity = (0, 0)
            try:
                if create:
                    self._create()
                status = os.stat(self.path)
                identity = (status.st_dev, status.st_ino)
                with _gate.passed(patience), self._open(patience, writing=create) as connection:
                    return operation(connection)
            except OSError as error:
                raise BackendError(
                    f"{self.path} can't be used: {error.strerror or error}"
                ) from error
            except sqlite3.Error as error:
                fault = classify(error)
                if fault == "busy":
                    # Turning to WAL doesn't wait for others, whatever patience SQLite is given.
                    if time.monotonic() >= deadline:
                        raise BusyLedger(f"{self.path}: another process holds its lock") from error
                    time.sleep(_POLL)
                elif fault != "corrupt" or repaired or not create:
                    raise BackendError(f"{self.path}: {error}") from error
                else:
                    repaired = True
                    if not is_stale(self.path, identity):
                        self._put_aside(error)

    def _create(self) -> None:
        make_private_folder(os.path.dirname(self.path))
        if not create_private_file(self.path):
            reason = check_ownership(self.path)
            if reason:
                raise BackendError(f"{self.path} is not used: {reason}")

    def _put_aside(self, error: Exception) -> None:
        try:
            aside = put_aside(self.path)
        except OSError as failure:
            raise BackendError(f"{self.path} is damaged: {error}") from failure
        logger.warning(
            "%s was damaged (%s): it is now %s, and a new one is started",
            self.path,
            error,
            aside,
            extra=extras("damaged", path=self.path, error=error),
        )

    @contextlib.contextmanager
    def _open(self, patience: float, *, writing: bool) -> Iterator[sqlite3.Connection]:
        connection = self._connect(patience, writing=writing)
        try:
            if writing:
                read_format(connection, self.path)  # not ours: not even its journal is touched
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT}").fetchone()
                if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                    connection.execute("PRAGMA journal_mode = WAL").fetchone()
                connection.execute("BEGIN IMMEDIATE")
                prepare(connection, self.path)
            else:
                connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(Exception):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            raise
        finally:
            connection.close()

    def _connect(self, patience: float, *, writing: bool) -> sqlite3.Connection:
        import sqlite3

        failure: sqlite3.Error | None = None
        for mode in ("mode=rw",) if writing else ("mode=rw", "mode=ro", "immutable=1"):
            if mode == "immutable=1" and os.path.exists(files_of(self.path)[0]):
                break
            connection = sqlite3.connect(
                f"{Path(self.path).as_uri()}?{mode}",
                uri=True,
                timeout=patience,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
                return connection
            except sqlite3.Error as error:
                connection.close()
                failure = failure or error
                if classify(error) in ("busy", "corrupt"):
                    raise
        assert failure is not None
        raise failure


class _Names:
    """Sees to it that no stretch of time gets more names than are told apart.

    Each process has few, but many of them, one after the other, may have invented others.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._numbers: dict[tuple[Place, str], int] = {}

    def admit(self, place: Place, kind: str) -> bool:
        """Whether there is room for one more name, which then takes it."""
        number = self._numbers.get((place, kind))
        if number is None:
            (number,) = self._connection.execute(
                "SELECT count(*) FROM totals WHERE span = ? AND start = ? AND kind = ?",
                (place.span, place.start, kind),
            ).fetchone()
        self._numbers[place, kind] = number + 1
        return number < MOST


def _rows(totals: Totals) -> Iterator[tuple[str, str, bytes]]:
    for name, operation in totals.operations.items():
        yield "operation", whole(name), operation.to_bytes()
    for name, counts in totals.types.items():
        yield "type", whole(name), _encode(counts)
    for pair, counts in totals.models.items():
        yield "model", whole(_SEPARATOR.join(pair)), _encode(counts)


def _other(kind: str) -> str:
    """Return what names are counted as where there are too many."""
    return _SEPARATOR.join((OTHER, OTHER)) if kind == "model" else OTHER


def _put(totals: Totals, kind: str, name: str, block: bytes) -> None:
    if kind == "operation":
        totals.operations.setdefault(name, OperationTotals()).merge(
            OperationTotals.from_bytes(block)
        )
    elif kind == "type":
        merge_counts(totals.types.setdefault(name, {}), _decode_counts(block))
    elif kind == "model":
        type, _, model = name.partition(_SEPARATOR)
        merge_counts(totals.models.setdefault((type, model), {}), _decode_counts(block))


def _add(
    connection: sqlite3.Connection, names: _Names, place: Place, kind: str, name: str, block: bytes
) -> None:
    key = (place.span, place.start, kind, name)
    row = connection.execute(
        "SELECT block FROM totals WHERE span = ? AND start = ? AND kind = ? AND name = ?", key
    ).fetchone()
    if row is None and not names.admit(place, kind) and name != _other(kind):
        _add(connection, names, place, kind, _other(kind), block)
        return
    if row is not None:
        merged = Totals()
        with contextlib.suppress(Exception):  # what can't be read can't be added to
            _put(merged, kind, name, row[0])
        _put(merged, kind, name, block)
        ((_, _, block),) = _rows(merged)
    connection.execute("INSERT OR REPLACE INTO totals VALUES (?, ?, ?, ?, ?)", (*key, block))


def _roll(connection: sqlite3.Connection, names: _Names, now: float) -> None:
    """Turn old minutes into hours, and old hours into days, some at a time."""
    for span, before in outdated(now, IN_FILE):
        rows = connection.execute(
            "SELECT start, kind, name, block FROM totals WHERE span = ? AND start < ? "
            "ORDER BY start LIMIT ?",
            (span, before, _ROLLED_AT_ONCE),
        ).fetchall()
        for start, kind, name, block in rows:
            _add(connection, names, widened(Place(start, span)), kind, name, block)
        connection.executemany(
            "DELETE FROM totals WHERE span = ? AND start = ? AND kind = ? AND name = ?",
            [(span, start, kind, name) for start, kind, name, _ in rows],
        )


_encode = msgspec.msgpack.Encoder().encode
_decode_counts = msgspec.msgpack.Decoder(dict[str, int | float]).decode
