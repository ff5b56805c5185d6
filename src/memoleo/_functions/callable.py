"""Callable objects that pass for the functions they wrap."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, ParamSpec, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["BoundCallable", "Documented", "WrappedCallable", "takes_call"]

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


def takes_call(method: F) -> F:
    """Mark a method of a wrapper that takes the arguments of the wrapped function.

    On a bound wrapper such a method gets the instance as its first argument, so that
    ``scorer.score.cache_key("text")`` is about the call ``scorer.score("text")``.
    """
    method.__takes_call__ = True  # type: ignore[attr-defined]
    return method


# Copied, not looked up by `__getattr__`: a class that has one pays for it at every attribute.
_OF_FUNCTIONS = (
    "__code__",
    "__defaults__",
    "__kwdefaults__",
    "__globals__",
    "__closure__",
    "__isabstractmethod__",
)


class Documented:
    """The docstring of what is bound, in the place of the class's own.

    Tools describe a method to people, and to language models, by its docstring.
    """

    def __get__(self, bound: Any, owner: type | None = None) -> str | None:
        return None if bound is None else bound.__func__.__doc__


class BoundCallable(functools.partial[R], Generic[P, R]):
    # A wrapper reached through an instance: calls, and methods about calls, pass it on. A partial
    # since that puts the instance in front of the arguments without a frame of its own.
    __doc__ = Documented()  # pyright: ignore[reportAssignmentType]

    __func__: WrappedCallable[..., R]

    @property
    def __self__(self) -> Any:
        return self.args[0]

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        return types.MethodType if isinstance(self.__func__, types.FunctionType) else type(self)

    if TYPE_CHECKING:

        def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.__func__, name)
        if getattr(value, "__takes_call__", False):
            return functools.partial(value, self.__self__)
        return value

    def __eq__(self, other: object) -> bool:
        return (
            type(other) is type(self)
            and other.__self__ is self.__self__
            and other.__func__ is self.__func__
        )

    def __hash__(self) -> int:
        return hash((id(self.__self__), id(self.__func__)))

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self.__self__, self.__func__.__name__)

    def __repr__(self) -> str:
        return f"<bound {self.__func__.__qualname__} of {self.__self__!r}>"


class WrappedCallable(Generic[P, R]):
    """A wrapper that `inspect`, `pickle`, `help` and classes treat as the function itself.

    A plain function can't serve: its attributes don't learn which instance they were reached
    through.

    Parameters
    ----------
    wrapped
        a function, any other callable, or a `classmethod` or `staticmethod` object
    entry
        what a call runs; it need not know the wrapper that it was called through
    """

    __wrapped__: Callable[P, R]
    __memoleo_wrapped__: Callable[P, R]
    __binding__: str
    __name__: str
    __qualname__: str
    _bound_type: ClassVar[type[BoundCallable[..., Any]]] = BoundCallable

    def __new__(cls, *_: Any, **__: Any) -> Self:
        # Python looks for `__call__` in the class only: with a class of its own, each wrapper can
        # have what it calls there, and the call takes no frame to find it.
        names = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
        own: Any = type(cls.__name__, (cls,), names)
        made: Self = super().__new__(own)
        return made

    def __init__(self, wrapped: Callable[P, R], entry: Callable[P, R]) -> None:
        kind = getattr(wrapped, "__binding__", "method")
        if isinstance(wrapped, (classmethod, staticmethod)):
            kind = "classmethod" if isinstance(wrapped, classmethod) else "staticmethod"
            wrapped = wrapped.__func__
        function: Any = wrapped
        functools.update_wrapper(self, function, updated=())
        if not isinstance(wrapped, type) and not isinstance(wrapped, WrappedCallable):
            own = {**getattr(wrapped, "__dict__", {})}
            own.pop("__wrapped__", None)
            self.__dict__.update(own)
        for name in _OF_FUNCTIONS:
            if hasattr(wrapped, name):
                setattr(self, name, getattr(wrapped, name))
        self.__memoleo_wrapped__ = wrapped
        self.__binding__ = kind
        self._enter_by(entry)

    def _enter_by(self, entry: Callable[P, R]) -> None:
        """Let calls run `entry` from now on."""
        self._entry = entry
        own: Any = type(self)
        own.__call__ = staticmethod(entry)

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        wrapped = self.__dict__.get("__wrapped__")
        return types.FunctionType if isinstance(wrapped, types.FunctionType) else type(self)

    if TYPE_CHECKING:

        def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    def __set_name__(self, owner: type, name: str) -> None:
        inner = type(self.__wrapped__)
        if hasattr(inner, "__set_name__"):
            self.__wrapped__.__set_name__(owner, name)  # type: ignore[attr-defined]

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        binding = self.__binding__
        if binding != "method" or instance is None:
            if binding != "classmethod":
                return self
            instance = owner if owner is not None else type(instance)
        bound = self._bound_type(self._entry, instance)
        # (A partial without attributes of its own would be taken apart by the next partial.)
        bound.__func__ = self
        return bound

    def __reduce__(self) -> str:
        return self.__qualname__

    def __repr__(self) -> str:
        name = getattr(self, "__qualname__", None) or repr(self.__wrapped__)
        return f"<{type(self).__name__} {name}>"
