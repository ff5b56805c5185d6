"""Classes by name, without ever importing or running anything.

Only what the program itself declared or imported is found: the name is looked up in the plain
dictionaries of the loaded modules, past ``__getattr__``, descriptors and lazy modules. Classes
that no module holds, such as those declared inside a function, are remembered weakly from the
moment one of their values is stored.
"""

from __future__ import annotations

import sys
import weakref
from types import ModuleType
from typing import Any, cast

from memoleo.errors import CodecError

__all__ = ["check_name", "class_named", "is_in_place"]

_hidden: dict[tuple[str, str], weakref.WeakSet[type]] = {}


def _loaded(module: str, qualname: str) -> type | None:
    names = _names_in(module)
    found: Any = names.get(qualname)
    if found is None and "." in qualname:
        first, *rest = qualname.split(".")
        found = names.get(first)
        for name in rest:
            if not issubclass(type(found), type):
                return None
            found = type.__getattribute__(found, "__dict__").get(name)
    if not issubclass(type(found), type):
        return None
    cls = cast("type", found)
    return cls if (cls.__module__, cls.__qualname__) == (module, qualname) else None


def _names_in(module: str) -> dict[str, Any]:
    loaded: Any = sys.modules.get(module)
    if not issubclass(type(loaded), ModuleType):
        return {}
    names: dict[str, Any] = object.__getattribute__(loaded, "__dict__")
    return names


def is_in_place(cls: type, module: str, qualname: str) -> bool:
    """Whether the module holds `cls` under its name, and nobody else ever had that name.

    It is quick, and may say no where `class_named` would still find the class.
    """
    return _names_in(module).get(qualname) is cls and (module, qualname) not in _hidden


def class_named(module: str, qualname: str) -> type:
    """Return the one live class of that name.

    Raises
    ------
    CodecError
        the program has no such class, or more than one
    """
    found = _loaded(module, qualname)
    hidden = _hidden.get((module, qualname))
    if hidden:
        live = {*hidden} if found is None else {*hidden, found}
        if len(live) > 1:
            raise CodecError(f"this program has {len(live)} classes named {module}.{qualname}")
        found = live.pop()
    if found is None:
        raise CodecError(f"this program has no class {module}.{qualname}")
    return found


def check_name(cls: type, module: str, qualname: str) -> str | None:
    """Make sure that `cls` will be found by its name; return why it won't be, if so."""
    if _loaded(module, qualname) is not cls:
        _hidden.setdefault((module, qualname), weakref.WeakSet()).add(cls)
    elif (module, qualname) not in _hidden:
        return None
    try:
        class_named(module, qualname)
    except CodecError as error:
        return str(error)
    return None
