"""How an attribute of somebody else's class or module is replaced, and put back."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

__all__ = ["Patch"]

_ABSENT: Any = object()


class Patch:
    """One attribute that is replaced.

    What stands there is read from the class's own ``__dict__``, so the very same object can be
    put back: no descriptor is bound on the way, and what was inherited is inherited again.

    Others may patch the same attribute. A replacement that lies below theirs can't be taken out
    without taking theirs with it, so it is left where it is; it must then do nothing by itself.

    Parameters
    ----------
    parent
        a class or a module
    name
        the attribute
    wrap
        returns the replacement for what stands there
    static
        whether it gets what stands in the dictionary, a `classmethod` or a `property` for
        example, instead of what that returns
    """

    def __init__(
        self,
        parent: type | ModuleType,
        name: str,
        wrap: Callable[[Any], Any],
        *,
        static: bool = False,
    ) -> None:
        self._static = static
        self.parent = parent
        self.name = name
        self._wrap = wrap
        self._layers: list[tuple[Any, Any]] = []

    def apply(self) -> None:
        """Replace the attribute, unless a replacement is at work there already.

        Raises
        ------
        AttributeError
            there is no such attribute
        """
        found = (inspect.getattr_static if self._static else getattr)(self.parent, self.name)
        if not self._reached(found):
            replacement = self._wrap(found)
            self._layers.append((vars(self.parent).get(self.name, _ABSENT), replacement))
            setattr(self.parent, self.name, replacement)

    def restore(self) -> bool:
        """Put back what stood there; false if somebody else's patch lies on top.

        What lies below such a patch is remembered, and taken out by a later call.
        """
        while (layer := self._top()) is not None:
            own = layer[0]
            if own is _ABSENT:
                delattr(self.parent, self.name)
            else:
                setattr(self.parent, self.name, own)
            self._layers = [other for other in self._layers if other is not layer]
        return not self._layers

    def _top(self) -> tuple[Any, Any] | None:
        """Return the layer of ours whose replacement is what stands there."""
        found = vars(self.parent).get(self.name, _ABSENT)
        return next((layer for layer in self._layers if layer[1] is found), None)

    def _reached(self, found: Any) -> bool:
        """Whether a replacement is `found`, or lies below it as far as wrappers tell."""
        seen: set[int] = set()
        while found is not None and id(found) not in seen:
            if any(found is replacement for _, replacement in self._layers):
                return True
            seen.add(id(found))
            found = getattr(found, "__wrapped__", None)
        return False
