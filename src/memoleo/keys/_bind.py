"""What a signature says about the arguments of a call."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any

from memoleo._functions.compiled import (
    KEYWORD_ONLY,
    POSITIONAL,
    POSITIONAL_ONLY,
    UNSET,
    VAR_KEYWORD,
    VAR_POSITIONAL,
    Parameter,
)

__all__ = ["bound_names", "read_parameters"]


def read_parameters(func: Callable[..., Any]) -> tuple[Parameter, ...] | None:
    """Return the parameters of `func`, or None if it doesn't tell them (some builtins don't)."""
    if type(func) is FunctionType and not {"__wrapped__", "__signature__"} & func.__dict__.keys():
        return _of_function(func)
    # A heavy import that plain functions never need.
    import inspect

    unevaluated: dict[str, Any] = {}
    if sys.version_info >= (3, 14):
        # What annotations name may exist later, or for type checkers only.
        from annotationlib import Format

        unevaluated["annotation_format"] = Format.STRING
    try:
        signature = inspect.signature(func, **unevaluated)
    except (ValueError, TypeError):
        return None
    empty = inspect.Parameter.empty
    return tuple(
        Parameter(found.name, int(found.kind), UNSET if found.default is empty else found.default)
        for found in signature.parameters.values()
    )


def _of_function(func: FunctionType) -> tuple[Parameter, ...]:
    code = func.__code__
    names = code.co_varnames
    defaults = func.__defaults__ or ()
    only = func.__kwdefaults__ or {}
    first_default = code.co_argcount - len(defaults)
    found = []
    for place, name in enumerate(names[: code.co_argcount]):
        kind = POSITIONAL_ONLY if place < code.co_posonlyargcount else POSITIONAL
        default = defaults[place - first_default] if place >= first_default else UNSET
        found.append(Parameter(name, kind, default))
    end = code.co_argcount + code.co_kwonlyargcount
    if code.co_flags & 0x04:
        found.append(Parameter(names[end], VAR_POSITIONAL))
    for name in names[code.co_argcount : end]:
        found.append(Parameter(name, KEYWORD_ONLY, only.get(name, UNSET)))
    if code.co_flags & 0x08:
        found.append(Parameter(names[end + bool(code.co_flags & 0x04)], VAR_KEYWORD))
    return tuple(found)


def bound_names(parameters: Iterable[Parameter]) -> str:
    """Return the source of a dictionary with every parameter under its name."""
    return "{" + ", ".join(f"{one.name!r}: {one.name}" for one in parameters) + "}"
