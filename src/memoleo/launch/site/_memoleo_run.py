"""Caching starts when the first module that it is about gets imported, and not before.

A child that imports none of them pays for this file alone; and what must come first in a program,
patches of gevent for example, finds the standard library as plain Python leaves it.
"""

from __future__ import annotations

import _thread
import os
import sys
from importlib.machinery import ModuleSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

__all__ = ["start"]

_PATIENCE = 10.0
"""Seconds that a thread waits for another one that is starting: never for ever."""


def start(names: str) -> None:
    """Wait for the modules whose names end in one of these; they are separated by commas.

    Without names, or if one of the modules is there already, caching starts at once.
    """
    wanted = set(filter(None, names.split(",")))
    if wanted.isdisjoint(name.rpartition(".")[2] for name in list(sys.modules)) and wanted:
        sys.meta_path.insert(0, _Waiting(wanted))
    else:
        _begin()


class _Waiting:
    """Finds nothing by itself; the first time that it is asked for a name, it begins."""

    def __init__(self, wanted: set[str]) -> None:
        self._wanted = wanted
        self._lock = _thread.RLock()
        self._begun = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name.rpartition(".")[2] not in self._wanted:
            return None
        locked = self._lock.acquire(timeout=_PATIENCE)
        try:
            if self._begun:
                return None
            self._begun = True
            _begin()
            if self in sys.meta_path:
                sys.meta_path.remove(self)
        finally:
            if locked:
                self._lock.release()
        # The import under way asks a list of finders that has just changed.
        there = sys.modules.get(name)
        return _found(name, path, target) if there is None else ModuleSpec(name, _There(there))  # type: ignore[arg-type]

    def invalidate_caches(self) -> None:
        """See `importlib.abc.MetaPathFinder`."""


class _There:
    """Loads a module that was imported in the meantime."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._spec = module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


def _found(name: str, path: Any, target: Any) -> ModuleSpec | None:
    for finder in list(sys.meta_path):
        find: Any = getattr(finder, "find_spec", None)
        spec: ModuleSpec | None = None if find is None else find(name, path, target)
        if spec is not None:
            return spec
    return None


def _begin() -> None:
    """Enable caching, if the memoleo of this environment is the one that this file belongs to."""
    from importlib.util import find_spec

    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    try:
        spec = find_spec("memoleo")
        places = spec.submodule_search_locations if spec is not None else None
        if package not in map(os.path.abspath, places or ()):
            return
        from memoleo.launch._begin import begin
    except Exception:  # an environment that lacks something: the program runs without it
        return
    begin()
