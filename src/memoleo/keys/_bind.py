"""Binding a call to a signature, by a function that is compiled once per signature.

The compiled function has the parameters of the user's function, so Python itself binds: it
fills in defaults, tells positional from keyword, and refuses what the user's function would
refuse, with a `TypeError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from textwrap import indent
from types import FunctionType
from typing import Any, NamedTuple

__all__ = ["UNSET", "Parameter", "bound_names", "compile_binder", "read_parameters"]

POSITIONAL_ONLY, POSITIONAL, VAR_POSITIONAL, KEYWORD_ONLY, VAR_KEYWORD = range(5)


class _Unset:
    """The type of `UNSET`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Any = _Unset()


class Parameter(NamedTuple):
    """One parameter of a signature; `kind` counts as in `inspect.Parameter`."""

    name: str
    kind: int
    default: Any = UNSET


def read_parameters(func: Callable[..., Any]) -> tuple[Parameter, ...] | None:
    """Return the parameters of `func`, or None if it doesn't tell them (some builtins don't)."""
    if type(func) is FunctionType and not {"__wrapped__", "__signature__"} & func.__dict__.keys():
        return _of_function(func)
    # A heavy import that plain functions never need.
    import inspect

    try:
        signature = inspect.signature(func)
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


def compile_binder(
    parameters: Iterable[Parameter],
    result: str,
    names: Mapping[str, Any],
    ending: str = "return values",
) -> Callable[..., Any]:
    """Compile a function with these parameters.

    Parameters
    ----------
    parameters
        the signature
    result
        the source of the expression that it returns
    names
        objects that `result` and `ending` refer to; none may be the name of a parameter
    ending
        the statements that follow, where ``values`` stands for the value of `result`. They are
        part of the function because a call of another would double what binding costs

    Returns
    -------
    callable
        binds a call and does what `ending` says
    """
    # A default that is not a literal can't be written in source: it comes by reference, from a
    # scope in which the parameters are not yet names.
    scope = dict(names)
    pieces = []
    seen_kind = POSITIONAL_ONLY
    for place, one in enumerate(parameters):
        if seen_kind == POSITIONAL_ONLY and one.kind != POSITIONAL_ONLY and place:
            pieces.append("/")
        if one.kind == KEYWORD_ONLY and seen_kind < VAR_POSITIONAL:
            pieces.append("*")
        seen_kind = max(seen_kind, one.kind)
        stars = {VAR_POSITIONAL: "*", VAR_KEYWORD: "**"}.get(one.kind, "")
        if one.default is UNSET:
            pieces.append(stars + one.name)
        else:
            scope[f"_memoleo_default{place}"] = one.default
            pieces.append(f"{one.name}=_memoleo_default{place}")
    if pieces and seen_kind == POSITIONAL_ONLY:
        pieces.append("/")
    source = (
        f"def _memoleo_make({', '.join(scope)}):\n"
        f" def bind({', '.join(pieces)}):\n"
        f"  _memoleo_values = {result}\n"
        + indent(ending.replace("values", "_memoleo_values"), "  ")
        + "\n return bind\n"
    )
    space: dict[str, Any] = {}
    exec(compile(source, "<memoleo binder>", "exec"), space)
    bind: Callable[..., Any] = space["_memoleo_make"](**scope)
    return bind
