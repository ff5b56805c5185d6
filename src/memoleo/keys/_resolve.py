"""Where a dotted name in a function leads, as far as it stays in the same package."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from memoleo.keys._canonical import module_name
from memoleo.keys._package import Package
from memoleo.keys._reads import Reads

__all__ = ["resolve"]


def resolve(
    chain: tuple[str, ...], names: dict[str, Any], reads: Reads, home: str, package: Package
) -> tuple[tuple[str, ...], Any]:
    """Return where a variable lives, as (module, name), and its value; ((), None) for nowhere.

    Parameters
    ----------
    chain
        the dotted name
    names
        the globals of the code that reads it
    reads
        what else that code reads: its imports
    home
        the name of its module
    package
        whose modules are followed
    """
    nowhere: tuple[tuple[str, ...], Any] = ((), None)
    first = chain[0]
    if first in reads.imports:
        value = _imported(reads.imports[first], names, package)
        place = (home, first)
    elif first in names:
        value, place = names[first], (home, first)
    else:
        return nowhere
    for name in chain[1:]:
        if not isinstance(value, ModuleType):
            break
        if not package.holds(value.__name__) or name not in vars(value):
            return nowhere
        place = (module_name(value.__name__), name)
        value = vars(value)[name]
    if isinstance(value, ModuleType) or (value is None and first in reads.imports):
        return nowhere
    return place, value


def _imported(place: tuple[str, int, str], names: dict[str, Any], package: Package) -> Any:
    module, level, name = place
    if level:
        parent = str(names.get("__package__") or "").split(".")
        parent = parent[: len(parent) - level + 1]
        module = ".".join([*parent, module] if module else parent)
    if not package.holds(module):
        return None
    # The function is about to import it anyway, and its key must not depend on who came first.
    import importlib

    try:
        found = importlib.import_module(module)
        return getattr(found, name) if name else found
    except AttributeError:
        try:
            return importlib.import_module(f"{module}.{name}")
        except Exception:
            return None
    except Exception:
        return None
