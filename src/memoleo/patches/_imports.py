"""Being told when a module has been imported, under whatever name that happens."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from memoleo._events import extras, logger
from memoleo._platform.forks import RenewedLock

__all__ = [
    "awaited",
    "forget_import",
    "initializing",
    "on_import",
    "spare_imports",
    "when_imported",
]

Act = Callable[[ModuleType], None]

_lock = RenewedLock()
_awaited: dict[str, list[Act]] = {}
_busy = threading.local()
_failing = True


def on_import(last: str, act: Act) -> None:
    """Call `act` with every module that is imported from now on whose name ends in `last`.

    The same file may be imported as ``src.modules.scorer``, ``modules.scorer`` or ``scorer``,
    as ``sys.path`` happens to be: only the last part of a name is certain.

    Parameters
    ----------
    last
        the part after the last dot; ``*`` for any
    act
        gets the module after its own code has run. What it raises is logged, but for a
        `ConfigError`, which fails the import. Asking again for the same one changes nothing
    """
    with _lock:
        acts = _awaited.setdefault(last, [])
        if act not in acts:
            acts.append(act)
        if _finder not in sys.meta_path:
            sys.meta_path.insert(0, _finder)


def forget_import(last: str, act: Act) -> None:
    """Undo `on_import`; the last one to go takes the hook out of ``sys.meta_path``."""
    with _lock:
        acts = _awaited.get(last, [])
        if act in acts:
            acts.remove(act)
        if not acts:
            _awaited.pop(last, None)
        if not _awaited and _finder in sys.meta_path:
            sys.meta_path.remove(_finder)


def when_imported(name: str, act: Act) -> Callable[[], None]:
    """Call `act` with one module: now if it is imported already, else once it is.

    Parameters
    ----------
    name
        the full name of the module
    act
        gets the module, after its own code has run

    Returns
    -------
    callable
        ends the waiting
    """
    last = name.rpartition(".")[2]

    def imported(module: ModuleType) -> None:
        if module.__name__ == name:
            act(module)

    def close() -> None:
        forget_import(last, imported)

    on_import(last, imported)
    try:
        module = sys.modules.get(name)
        if module is not None and not initializing(module):
            act(module)
    except BaseException:
        close()
        raise
    return close


def awaited() -> list[str]:
    """Return the last parts of the names of all modules that somebody waits for."""
    with _lock:
        return sorted(_awaited)


def spare_imports() -> None:
    """Let no import fail from now on because of what can't be patched: nobody has asked for it."""
    global _failing
    _failing = False


def initializing(module: ModuleType) -> bool:
    """Whether a module's own code is still running."""
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


class _Finder:
    """Finds nothing by itself: it asks the others, and has the loader call back."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.rpartition(".")[2] not in _awaited and "*" not in _awaited:
            return None
        asking: set[str] = _busy.__dict__.setdefault("asking", set())
        if name in asking:
            return None
        asking.add(name)
        try:
            spec = _found(name, path, target)
        finally:
            asking.discard(name)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
        return spec

    def invalidate_caches(self) -> None:
        """See `importlib.abc.MetaPathFinder`."""


def _found(name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
    for finder in list(sys.meta_path):
        find: Any = getattr(finder, "find_spec", None)
        if find is not None and finder is not _finder:
            spec: ModuleSpec | None = find(name, path, target)
            if spec is not None:
                return spec
    return None


class _Loader:
    """Loads as another loader does, puts that one back in its place, and calls those who wait."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        create = getattr(self._loader, "create_module", None)
        module: ModuleType | None = None if create is None else create(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        loader = self._loader
        spec: Any = module.__spec__
        if spec is not None and spec.loader is self:
            spec.loader = loader
        if getattr(module, "__loader__", None) is self:
            module.__loader__ = loader
        loader.exec_module(module)
        _imported(sys.modules.get(module.__name__, module))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_loader"], name)


# Python leaves the machinery of imports out of tracebacks, by the name of its files: whoever reads
# why a module fails is not to find us in between.
_Loader.exec_module.__code__ = _Loader.exec_module.__code__.replace(
    co_filename="<frozen importlib._bootstrap>"
)


def _imported(module: ModuleType) -> None:
    from memoleo.errors import ConfigError

    with _lock:
        last = module.__name__.rpartition(".")[2]
        acts = [*_awaited.get(last, ()), *_awaited.get("*", ())]
    for act in acts:
        try:
            act(module)
        except Exception as error:
            if _failing and isinstance(error, ConfigError):
                raise
            known = None if isinstance(error, ConfigError) else error
            logger.warning(
                "patching %s failed; it stays as it is: %s",
                module.__name__,
                error,
                exc_info=known,
                extra=extras("not_patched", label=module.__name__, error=error),
            )


_finder: Any = _Finder()
