"""A read that stays open while many others are made.

For each read SQLite locks a byte of a file and unlocks it again: two calls of the system, which
take as long as the lookup itself. It counts the readers of a process, though, and asks the system
only for the first and the last of them (``unixShmLock`` in https://sqlite.org/src, os_unix.c). So
while reads come by the hundreds, one more connection begins a read and stays in it for a moment.

A read that stays open keeps the log from being started anew (https://www.sqlite.org/wal.html,
6. "Avoiding Excessively Large WAL Files"). So it never stays for longer than a moment, nor when
there are others who write.
"""

from __future__ import annotations

import threading
import time

from memoleo._platform.forks import renew_after_fork
from memoleo.backends._sqlite_connections import Connections, Link

__all__ = ["Anchor"]

_MANY = 1000.0
_FEW = 20
_HOLD = 0.02
_WRITERS = 10.0

_now = time.monotonic


class Anchor:
    """Keeps a read of one file open while it pays.

    Parameters
    ----------
    connections
        those of the file

    Attributes
    ----------
    reads
        how many reads there were; whoever reads adds to it
    """

    def __init__(self, connections: Connections) -> None:
        self.reads = 0
        self._connections = connections
        self._counted = 0
        self._since = _now()
        self._not_before = 0.0
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._busy = threading.Lock()

    def consider(self) -> None:
        """Begin if there were many reads since the last time. To be asked once a second or so."""
        now = _now()
        passed, self._since = now - self._since, now
        counted, self._counted = self._counted, self.reads
        if self._counted - counted < _MANY * max(passed, 0.1) or now < self._not_before:
            return
        if self._busy.acquire(blocking=False):
            busy = self._busy
            thread = threading.Thread(
                target=self._hold, args=(busy,), name="memoleo-anchor", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # the interpreter shuts down
                busy.release()

    def _hold(self, busy: threading.Lock) -> None:
        link: Link | None = None
        try:
            link = self._connections.spare()
            version = None
            while True:
                reads = self.reads
                with link.lock:
                    if link.raw is None:
                        return
                    if link.raw.in_transaction:
                        link.execute("ROLLBACK")
                    before, version = version, link.execute("PRAGMA data_version").fetchone()
                    if (
                        (before is not None and before != version)
                        or link.watch() != link.length
                        or link.mode != "mode=rw"
                    ):
                        self._not_before = _now() + _WRITERS
                        return
                    link.execute("BEGIN")
                    link.execute("SELECT epoch FROM state").fetchone()
                time.sleep(_HOLD)
                if self.reads - reads < _FEW:
                    return
        except Exception:
            # Reads are as good without it.
            self._not_before = _now() + _WRITERS
        finally:
            if link is not None:
                link.close()
            busy.release()
