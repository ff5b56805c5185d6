"""One object of which some methods answer from a cache while others of its class don't."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy, deepcopy
from typing import Any

from memoleo.patches._ollama_proxy import ClientProxy

__all__ = ["ObjectProxy"]


class ObjectProxy(ClientProxy):
    """Passes for the object that it holds, `isinstance` included.

    Parameters
    ----------
    wrapped
        the object
    methods
        what stands in for its methods
    """

    def __init__(self, wrapped: Any, methods: Mapping[str, Any]) -> None:
        super().__init__(wrapped)
        self._self_methods = methods

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith(("_self_", "__")):
            found = self._self_methods.get(name)
            if found is not None:
                wrapped = self.__wrapped__
                return found.__get__(wrapped, type(wrapped))
        return super().__getattribute__(name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(*args, **kwargs)

    def __iter__(self) -> Any:
        return iter(self.__wrapped__)

    # A copy of it, and a pickle, are those of the object.

    def __copy__(self) -> Any:
        return copy(self.__wrapped__)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return deepcopy(self.__wrapped__, memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__wrapped__.__reduce_ex__(protocol)
