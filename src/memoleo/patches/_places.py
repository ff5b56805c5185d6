"""Where the names of a target lead: modules under any name, classes, functions."""

from __future__ import annotations

import inspect
import os
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache, cached_property
from types import ModuleType
from typing import Any

__all__ = ["Place", "is_module", "nearest", "nearest_module", "places"]

_WILD = frozenset("*?[")

Place = tuple["type | ModuleType", str]
"""A class or a module, and the name of an attribute."""


def _wild(name: str) -> bool:
    return not _WILD.isdisjoint(name)


def is_module(module: Any, parts: Sequence[str]) -> bool:
    """Whether a module is the one that a target names, under whatever name it was imported.

    Where ``sys.path`` leads inside a package, ``src/modules/scorer.py`` is ``modules.scorer`` or
    ``scorer`` as well: then the file tells. A single name means nothing inside what is installed.
    """
    name = getattr(module, "__name__", None)
    if not isinstance(name, str):
        return False
    own = name.split(".")
    if _fits(own, parts):
        return True
    file = getattr(module, "__file__", None)
    if not isinstance(file, str):
        return False
    path = _path(file)
    if not fnmatchcase(path[-1], parts[-1]):
        return False
    if len(parts) == 1:
        return not _installed(file)
    return len(path) >= len(parts) and _fits(path[-len(parts) :], parts)


def _fits(names: Sequence[str], parts: Sequence[str]) -> bool:
    return len(names) == len(parts) and all(map(fnmatchcase, names, parts))


@cache
def _path(file: str) -> tuple[str, ...]:
    path = os.path.splitext(os.path.abspath(file))[0].split(os.sep)
    return tuple(path[:-1] if path[-1] == "__init__" else path)


@cache
def _installed(file: str) -> bool:
    path = os.path.abspath(file)
    folders = {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
    return any(path.startswith(os.path.join(folder, "")) for folder in folders if folder)


def places(module: ModuleType, names: Sequence[str]) -> Iterator[Place]:
    """Yield where the attributes stand that names inside a module mean.

    A wildcard means functions that the module or class defines itself or inherits, none of what
    it imports, and no name with two underscores before and after.
    """
    yield from _inside(module, module, names)


def _inside(module: ModuleType, parent: Any, names: Sequence[str]) -> Iterator[Place]:
    name, rest = names[0], names[1:]
    if not _wild(name):
        found = _static(parent, name)
        if found is None:
            return
        if not rest:
            yield parent, name
        elif isinstance(found, type):
            yield from _inside(module, found, rest)
        return
    for each in _names(parent):
        if (each.startswith("__") and each.endswith("__")) or not fnmatchcase(each, name):
            continue
        found = _static(parent, each)
        if rest:
            if isinstance(found, type) and found.__module__ == module.__name__:
                yield from _inside(module, found, rest)
        elif _caches(found) and (
            isinstance(parent, type) or getattr(found, "__module__", None) == module.__name__
        ):
            yield parent, each


def _static(parent: Any, name: str) -> Any:
    return inspect.getattr_static(parent, name, None)


def _names(parent: Any) -> list[str]:
    if not isinstance(parent, type):
        return list(vars(parent))
    kinds = [kind for kind in parent.__mro__ if kind.__module__ != "builtins"]
    return list(dict.fromkeys(name for kind in kinds for name in vars(kind)))


def _caches(found: Any) -> bool:
    """Whether an attribute is one whose calls could be meant."""
    if isinstance(found, (staticmethod, classmethod, property, cached_property)):
        return True
    return callable(found) and not isinstance(found, type)


def nearest(module: ModuleType, names: Sequence[str]) -> str:
    """Return what was probably meant by names that lead nowhere; empty if nothing is like it."""
    parent: Any = module
    for at, name in enumerate(names):
        found = None if _wild(name) else _static(parent, name)
        if found is None:
            like = [each for each in _names(parent) if not each.startswith("__")]
            match = get_close_matches(name.strip("*?"), like, n=1)
            if match:
                return ".".join([*names[:at], match[0]])
            if isinstance(parent, ModuleType) and at == 0:
                return _elsewhere(parent, name)
            return ""
        parent = found
    return ""


def _elsewhere(module: ModuleType, name: str) -> str:
    """Return a method of that name in a class of the module."""
    for kind in vars(module).values():
        if isinstance(kind, type) and kind.__module__ == module.__name__ and name in vars(kind):
            return f"{kind.__qualname__}.{name}"
    return ""


def nearest_module(parts: Sequence[str]) -> str | None:
    """Return what was probably meant by the name of a module that can't be found.

    Nothing is imported. `None` if the module is there, or nothing can be said.
    """
    if any(map(_wild, parts)):
        return None
    folders = [os.path.abspath(each or ".") for each in sys.path if isinstance(each, str)]
    folders += [os.getcwd(), os.path.join(os.getcwd(), "src")]
    close = ""
    for folder in dict.fromkeys(folders):
        for at, part in enumerate(parts):
            names = _modules_in(folder)
            if part not in names:
                match = get_close_matches(part, names, n=1, cutoff=0.75)
                if match and (at or not close):
                    close = ".".join([*parts[:at], match[0]])
                break
            folder = os.path.join(folder, part)
        else:
            return None
    last = [name for name in sys.modules if name.rpartition(".")[2] == parts[-1]]
    return close or (last[0] if last and last[0] != ".".join(parts) else "")


def _modules_in(folder: str) -> list[str]:
    try:
        entries = os.listdir(folder)
    except OSError:
        return []
    names = []
    for entry in entries:
        stem = entry.partition(".")[0]
        if stem.isidentifier() and (
            entry.endswith((".py", ".pyc", ".so", ".pyd"))
            or os.path.isdir(os.path.join(folder, entry))
        ):
            names.append(stem)
    return names
