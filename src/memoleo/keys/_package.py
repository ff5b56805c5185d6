"""Which modules belong to the same program as a function."""

from __future__ import annotations

import os
import sys

__all__ = ["Package"]

_INSTALLED = ("site-packages", "dist-packages")


class Package:
    """The top-level package of a module, or the folder that a module without a package is in.

    Parameters
    ----------
    module
        the module's name, as in `sys.modules`
    """

    def __init__(self, module: str) -> None:
        self._home = module
        self._top = _import_name(module).partition(".")[0]
        self._known: dict[str, bool] = {module: True}
        found = sys.modules.get(self._top)
        self._folder = None
        if found is None or not hasattr(found, "__path__"):
            self._folder = _folder(sys.modules.get(module))

    def holds(self, module: str) -> bool:
        """Return whether the module of this name belongs to it."""
        known = self._known.get(module)
        if known is None:
            known = self._known[module] = self._belongs(module)
        return known

    def _belongs(self, module: str) -> bool:
        top = _import_name(module).partition(".")[0]
        if not top:
            return False
        if top == self._top:
            return True
        if self._folder is None:
            return False
        # A script takes in the modules, and the packages, that stand beside it.
        return _folder(sys.modules.get(top)) == self._folder


def _import_name(module: str) -> str:
    if module in ("__main__", "__mp_main__"):
        spec = getattr(sys.modules.get(module), "__spec__", None)
        return getattr(spec, "name", None) or "__main__"
    return module


def _folder(module: object) -> str | None:
    """Return the folder that a module, or a whole package, stands in; None if it is installed."""
    path = getattr(module, "__file__", None)
    if not isinstance(path, str):
        paths = list(getattr(module, "__path__", ()))
        path = os.path.join(paths[0], "__init__.py") if paths else None
    if path is None:
        return None
    folder = os.path.dirname(os.path.abspath(path))
    if hasattr(module, "__path__"):
        folder = os.path.dirname(folder)
    if any(name in folder for name in _INSTALLED) or folder == os.path.dirname(os.__file__):
        return None
    return folder
