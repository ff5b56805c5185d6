"""What stands behind a callable: layers of decorators, the function, its module and name."""

from __future__ import annotations

from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType, MethodType, MethodWrapperType, ModuleType
from typing import Any

from memoleo._functions.callable import BoundCallable
from memoleo._functions.compiled import UNSET
from memoleo.keys._canonical import class_name, module_name

__all__ = [
    "accessors",
    "home_of",
    "innermost",
    "label_of",
    "layer_below",
    "logic_below",
    "receiver_of",
]

_BOUND = (MethodType, BoundCallable, BuiltinFunctionType, MethodWrapperType)


def receiver_of(value: Any) -> Any:
    """Return what a method was reached through; `UNSET` if it was reached through nothing."""
    # Asked of the type: a wrapper claims the class of what it wraps.
    if not issubclass(type(value), _BOUND):
        return UNSET
    receiver = value.__self__
    is_function = type(value) is BuiltinFunctionType and (
        receiver is None or isinstance(receiver, ModuleType)
    )
    return UNSET if is_function else receiver


def layer_below(value: Any) -> Any:
    """Return what a decorated callable wraps, or None."""
    if isinstance(value, type):
        return None
    for name in ("__memoleo_wrapped__", "__wrapped__"):
        try:
            inner = getattr(value, name, None)
        except Exception:
            inner = None
        if callable(inner):
            return inner
    return None


def innermost(value: Any) -> Any:
    for _ in range(100):
        inner = layer_below(value)
        if inner is None:
            break
        value = inner
    return value


def logic_below(value: Any) -> Any:
    """Return the function or class that a name stands for, or None if it is something else."""
    if type(value) in (FunctionType, MethodType) or isinstance(value, type):
        return value
    if type(value).__module__ == "functools" and type(value).__name__ == "partial":
        return logic_below(value.func)
    inner = layer_below(value) if callable(value) else None
    return None if inner is None else logic_below(inner)


def accessors(value: Any) -> Iterator[Any]:
    """Yield the function behind an attribute of a class, if there is one."""
    for name in ("__func__", "fget", "func"):
        inner = getattr(value, name, None)
        if callable(inner) and type(value) is not FunctionType:
            yield inner
            return
    if logic_below(value) is not None:
        yield value


def home_of(value: Any) -> str:
    """Return the name of the module whose code `value` is."""
    names = getattr(value, "__globals__", None)
    if isinstance(names, dict):
        return str(names.get("__name__", ""))
    inner = layer_below(value)
    if inner is not None:
        return home_of(inner)
    inner = getattr(value, "func", None) or getattr(value, "__func__", None)
    if callable(inner) and not isinstance(value, type):
        return home_of(inner)
    if not isinstance(value, (type, BuiltinFunctionType)):
        value = type(value)
    return str(getattr(value, "__module__", "") or "")


def label_of(value: Any) -> str:
    """Return ``module:qualname``."""
    if isinstance(value, type):
        return class_name(value)
    qualname = getattr(value, "__qualname__", None)
    if not isinstance(qualname, str):
        inner = layer_below(value) or getattr(value, "func", None)
        return label_of(inner) if callable(inner) else class_name(type(value))
    return f"{module_name(getattr(value, '__module__', ''))}:{qualname}"
