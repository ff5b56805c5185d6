"""Who holds a function that is about to be replaced: names that can follow, and others."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Mapping
from types import CellType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any

__all__ = ["rebind", "unreachable"]


def rebind(replaced: Mapping[int, Any]) -> None:
    """Let the names of all modules follow: ``from module import function`` came before.

    Parameters
    ----------
    replaced
        what stands for an object now, by the identity of that object
    """
    if not replaced:
        return
    for module in list(sys.modules.values()):
        if not isinstance(module, ModuleType):
            continue
        try:
            names = [name for name, value in list(vars(module).items()) if id(value) in replaced]
            for name in names:
                setattr(module, name, replaced[id(vars(module)[name])])
        except Exception:
            continue  # a module of its own kind, which doesn't let itself be changed


def unreachable(functions: Iterable[Any]) -> list[str]:
    """Return who holds one of these functions and can't be made to let go, in words.

    Parameters
    ----------
    functions
        yields them; whoever calls this holds none of them in a container
    """
    held = [each for each in functions if isinstance(each, FunctionType)]
    if not held:
        return []
    gc_dicts = {id(vars(module)) for module in list(sys.modules.values()) if _has_dict(module)}
    names = {id(each): f"{each.__module__}.{each.__qualname__}" for each in held}
    found = []
    holders = gc.get_referrers(*held)
    for holder in holders:
        if holder is held or isinstance(holder, (FrameType, FunctionType)):
            continue
        if id(holder) in gc_dicts:
            continue
        # The arguments of the search itself are such a tuple from Python 3.13 on.
        if type(holder) is tuple and all(one is holders for one in gc.get_referrers(holder)):
            continue
        kind = _kind(holder)
        if kind is None:
            continue
        for each in held:
            if _holds(holder, each):
                found.append(f"{names[id(each)]} is held by {kind}")
    return sorted(set(found))


def _has_dict(module: Any) -> bool:
    return isinstance(module, ModuleType)


def _kind(holder: Any) -> str | None:
    if isinstance(holder, MethodType):
        return f"a bound method of {type(holder.__self__).__qualname__}"
    if isinstance(holder, (list, tuple, set, frozenset)):
        return f"a {type(holder).__name__}"
    if isinstance(holder, CellType):
        return "a closure"
    if isinstance(holder, dict):
        return _dictionary(holder)
    if type(holder).__name__ == "partial":
        return "functools.partial"
    return None


def _dictionary(holder: dict[Any, Any]) -> str | None:
    """Return what a dictionary is to whom; `None` for one that needs no word."""
    for owner in gc.get_referrers(holder):
        if isinstance(owner, type):
            return None  # its own class, or one that inherits nothing from it
        if isinstance(owner, FunctionType):
            return None  # the attributes of a wrapper
        if getattr(owner, "__dict__", None) is holder:
            return f"an attribute of a {type(owner).__qualname__}"
    return "a dictionary"


def _holds(holder: Any, function: Any) -> bool:
    if isinstance(holder, MethodType):
        return holder.__func__ is function
    if isinstance(holder, CellType):
        return holder.cell_contents is function
    if isinstance(holder, dict):
        return any(value is function for value in list(holder.values()))
    if isinstance(holder, (list, tuple, set, frozenset)):
        return any(value is function for value in list(holder))
    return getattr(holder, "func", None) is function or function in getattr(holder, "args", ())
