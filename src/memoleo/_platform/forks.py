"""What becomes of locks and of objects in a process that is forked."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable
from typing import Any

from memoleo._platform.locks import Lock

__all__ = ["RenewedLock", "renew_after_fork"]

_renewed: dict[int, weakref.ref[Any]] = {}
_hooked = False


def renew_after_fork(obj: Any) -> None:
    """Call ``obj._after_fork()`` in every child that this process forks from now on.

    Two more methods are called if `obj` has them: ``_before_fork()`` ahead of the fork, where it
    can wait until its other threads are at a safe place, and ``_after_fork_in_parent()``.
    Only a weak reference is kept. Windows has no fork: there it does nothing.
    """
    global _hooked
    if sys.platform == "win32":
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
