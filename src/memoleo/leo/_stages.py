"""Methods of classes that are timed in place."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from memoleo._decorators.timed import timed
from memoleo._platform.forks import RenewedLock
from memoleo.patches._patch import Patch

__all__ = ["time_stage"]

_lock = RenewedLock()
_patches: dict[tuple[type, str], tuple[Patch, list[object]]] = {}


def time_stage(cls: type, method: str, operation: str) -> Callable[[], None]:
    """Time a method of a class under the name of an operation, once however often it is asked for.

    Returns
    -------
    callable
        ends it; the last one puts the original attribute back
    """

    def wrap(_found: Any) -> Any:
        own = inspect.getattr_static(cls, method)
        if isinstance(own, functools.partialmethod):
            own = own._make_unbound_method()  # type: ignore[attr-defined]
        return timed(operation)(own)

    key, mark = (cls, method), object()
    with _lock:
        patch, marks = _patches.setdefault(key, (Patch(cls, method, wrap), []))
        if not marks:
            patch.apply()
        marks.append(mark)

    def end() -> None:
        with _lock:
            if mark in marks:
                marks.remove(mark)
                if not marks:
                    patch.restore()
                    _patches.pop(key, None)

    return end
