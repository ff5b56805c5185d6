"""What is put in the place of a function or a method."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

from memoleo._cache.cache import Cache
from memoleo._decorators.cached import content_cached
from memoleo._decorators.timed import timed
from memoleo._events import extras
from memoleo._functions.callable import WrappedCallable
from memoleo._functions.decorating import kind_of
from memoleo.config._targets import Target
from memoleo.errors import ConfigError, KeyingError
from memoleo.patches._telling import tell

__all__ = ["StandIn", "stand_in"]


class StandIn(WrappedCallable[..., Any]):
    """A function that answers from a cache while somebody wants it, and is itself otherwise.

    Whoever holds it after all was undone holds the plain function.
    """

    def __init__(self, wrapped: Any, owner: type | None, name: str) -> None:
        def call(*args: Any, **kwargs: Any) -> Any:
            # Looked up at each call: what is bound while it is enabled may be called later.
            return self._run(*args, **kwargs)

        super().__init__(wrapped, call)
        self._raw = wrapped
        self._owner = owner
        self._named = name
        self._run: Callable[..., Any] = self.__wrapped__

    def use(self, target: Target | None, cache: Cache | None = None) -> None:
        """Answer as a target says, or be the plain function.

        Raises
        ------
        ConfigError
            the target's options don't fit the function
        """
        self._run = self.__wrapped__ if target is None else self._made(target, cache)

    def _made(self, target: Target, cache: Cache | None) -> Callable[..., Any]:
        run: Any = self.__wrapped__
        if target.cached:
            cached = content_cached(**target.options(), cache=cache)(self._raw)
            if self._owner is not None:
                cached.__set_name__(self._owner, self._named)
            run = cached
        if target.timed is not None:
            run = timed(target.timed)(run)
        return _guarded(run, self.__wrapped__) if target.cached else run


def stand_in(found: Any, owner: type | None, name: str) -> tuple[Any, StandIn]:
    """Return what stands in for an attribute, and the function in it that can be switched.

    Parameters
    ----------
    found
        the attribute as the class's or module's own dictionary has it
    owner
        the class
    name
        of the attribute

    Raises
    ------
    ConfigError
        it is nothing that can be called
    """
    if isinstance(found, property):
        if found.fget is None:
            raise ConfigError("is a property that can't be read")
        inner = StandIn(found.fget, owner, name)
        made: Any = type(found)(inner, found.fset, found.fdel, found.__doc__)
        return made, inner
    if isinstance(found, functools.cached_property):
        inner = StandIn(found.func, owner, name)
        made = copy.copy(found)
        made.func = inner
        return made, inner
    target = found.__func__ if isinstance(found, (classmethod, staticmethod)) else found
    if isinstance(target, type):
        raise ConfigError(f"is a class: say which of its methods, such as '{name}.*'")
    if not callable(target):
        raise ConfigError(f"is {type(target).__qualname__}, which can't be called")
    inner = StandIn(found, owner, name)
    return inner, inner


def _guarded(run: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that makes the plain call where a call can't be keyed.

    Nobody has decided in the code that it is cached, so nobody can be told there.
    """
    noted: list[bool] = []

    def plain(error: KeyingError) -> None:
        if _inside(error, original):
            raise error
        if not noted:
            noted.append(True)
            name = getattr(original, "__qualname__", repr(original))
            tell(
                f"{name} is not cached where it can't be keyed: {error}",
                extras("unkeyed", label=name, error=error),
            )

    if kind_of(original) == "async":

        async def arun(*args: Any, **kwargs: Any) -> Any:
            try:
                return await run(*args, **kwargs)
            except KeyingError as error:
                plain(error)
            return await original(*args, **kwargs)

        return arun

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return run(*args, **kwargs)
        except KeyingError as error:
            plain(error)
        return original(*args, **kwargs)

    return call


def _inside(error: KeyingError, original: Any) -> bool:
    """Whether an error was raised by the function itself, which has run then."""
    code = getattr(original, "__code__", None)
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code is code:
            return True
        traceback = traceback.tb_next
    return False
