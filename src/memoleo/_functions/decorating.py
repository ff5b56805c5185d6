"""What decorators share: which kind of function it is, and how to put a wrapper in its place."""

from __future__ import annotations

import functools
import types
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from typing import Any

from memoleo._functions.callable import BoundCallable, WrappedCallable
from memoleo.errors import ConfigError

__all__ = ["aforward", "decorate", "default_name", "hands_on", "kind_of", "resume"]

Make = Callable[[Callable[..., Any]], Callable[..., Any]]


def kind_of(func: Callable[..., Any]) -> str:
    """Return "sync", "async", "generator" or "async generator"."""
    import inspect

    for candidate in (func, type(func).__call__):
        if inspect.iscoroutinefunction(candidate):
            return "async"
        if inspect.isasyncgenfunction(candidate):
            return "async generator"
        if inspect.isgeneratorfunction(candidate):
            return "generator"
    return "sync"


def hands_on(func: Any) -> bool:
    """Whether a call means the same to a function however its arguments are spelled.

    A function of somebody's own that wraps another may treat ``f(1)`` and ``f(x=1)`` differently.
    """
    while (inner := getattr(func, "__memoleo_wrapped__", None)) is not None:
        func = inner
    return (
        type(func) is types.FunctionType
        and not {"__wrapped__", "__signature__"} & vars(func).keys()
    )


def default_name(func: Any) -> str:
    """Return a function's qualified name without its module, and without ``<locals>.``."""
    while isinstance(func, (classmethod, staticmethod, functools.partial)):
        if isinstance(func, BoundCallable):
            break
        func = func.func if isinstance(func, functools.partial) else func.__func__
    name = getattr(func, "__qualname__", None) or type(func).__qualname__
    return str(name).replace("<locals>.", "")


class _Transparent(WrappedCallable[..., Any]):
    """A wrapper around a callable that has methods of its own, which stay reachable."""

    def __init__(self, wrapped: Any, make: Make) -> None:
        bound = isinstance(wrapped, (classmethod, staticmethod))
        super().__init__(wrapped, make(wrapped.__func__ if bound else wrapped))

    def __getattr__(self, name: str) -> Any:
        wrapped = self.__dict__.get("__wrapped__")
        if wrapped is None:
            raise AttributeError(name)
        return getattr(wrapped, name)


def decorate(func: Any, decorator: str, makers: Mapping[str, Make], **marks: Any) -> Any:
    """Return a wrapper that stands for the function in every respect.

    Parameters
    ----------
    func
        a function of any kind, a callable object, or a `classmethod` or `staticmethod` object
    decorator
        the name that an error message uses
    makers
        for each kind of function, what makes the plain function that runs around it
    marks
        attributes of the wrapper

    Raises
    ------
    ConfigError
        it can't be called, or it is a class
    """
    binding = isinstance(func, (classmethod, staticmethod))
    target = func.__func__ if binding else func
    if isinstance(target, type) or not callable(target):
        hint = ": put it below @property" if isinstance(target, property) else ""
        raise ConfigError(f"@{decorator} decorates functions and methods, not {target!r}{hint}")
    make = makers[kind_of(target)]
    wrapper: Any
    if isinstance(target, WrappedCallable) or hasattr(type(target), "cache_info"):
        wrapper = _Transparent(func, make)
        vars(wrapper).update(marks)
        return wrapper
    wrapper = functools.update_wrapper(make(target), target)
    wrapper.__memoleo_wrapped__ = target
    vars(wrapper).update(marks)
    return type(func)(wrapper) if binding else wrapper


def resume(source: Any, item: Any) -> Generator[Any, Any, Any]:
    """``yield from source``, for a source that has already yielded `item`."""
    if not isinstance(source, types.GeneratorType):
        yield item
        return (yield from source)
    while True:
        try:
            sent = yield item
        except GeneratorExit:
            source.close()
            raise
        except BaseException as error:
            step = functools.partial(source.throw, error)
        else:
            step = functools.partial(source.send, sent)
        try:
            item = step()
        except StopIteration as stop:
            return stop.value


async def aforward(
    source: AsyncGenerator[Any, Any], sent: Any, thrown: BaseException | None
) -> Any:
    """Pass on to a source what its consumer did, and return the next item.

    Raises
    ------
    StopAsyncIteration
        there is none
    """
    if thrown is None:
        return await (source.__anext__() if sent is None else source.asend(sent))
    if isinstance(thrown, GeneratorExit):
        if hasattr(source, "aclose"):
            await source.aclose()
        raise thrown
    if not hasattr(source, "athrow"):
        raise thrown
    return await source.athrow(thrown)
