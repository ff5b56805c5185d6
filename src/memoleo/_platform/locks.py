"""A lock that no exception of a signal handler leaves held."""

from __future__ import annotations

import _thread
import sys
from typing import Any

__all__ = ["Lock"]

# Type checkers take it for final, and don't know what `threading` asks of it.
_RLock: Any = _thread.RLock
_acquire = _RLock.acquire


class Lock(_RLock):  # type: ignore[misc]
    """A re-entrant lock that its thread doesn't keep if a signal handler stops it as it takes it.

    A handler runs after a call, so its exception may come when the lock is taken and the ``try``
    that would release it has not begun. Since Python 3.14 that goes for ``with`` as well
    (https://github.com/python/cpython/issues/148874). Other threads would then wait for ever.

    It is re-entrant since a signal handler, or a finalizer, may come back to it in the same thread.
    """

    __slots__ = ()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """See `threading.RLock.acquire`. In Python 3.10 its caller may be stopped after it."""
        try:
            taken: bool = _acquire(self, blocking, timeout)
            return taken
        except BaseException:
            # Whether it was taken, only releasing it tells.
            try:  # noqa: SIM105
                self.release()
            except RuntimeError:
                pass
            raise

    if sys.version_info >= (3, 14):
        __enter__ = acquire
