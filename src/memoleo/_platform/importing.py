"""Imports on first use that a fork doesn't cut in two.

A module that a thread is importing is locked. A child that is forked at that moment inherits the
lock, and not the thread that would open it: its own first use of that module would wait for ever.
So a fork waits for the imports that begin inside `importing`.
"""

from __future__ import annotations

from contextlib import suppress

from memoleo._platform.forks import RenewedLock

__all__ = ["importing"]

_PATIENCE = 5.0
"""Seconds that a fork waits for imports at most."""


class _Importing(RenewedLock):
    """``with importing:`` around imports inside functions."""

    def _before_fork(self) -> None:
        self.acquire(timeout=_PATIENCE)

    def _after_fork_in_parent(self) -> None:
        # Who did not get it in time does not own it, and leaves it to its owner.
        with suppress(RuntimeError):
            self.release()

    def _after_fork(self) -> None:
        super()._after_fork()
        self._after_fork_in_parent()


importing = _Importing()
"""The one of this process."""
