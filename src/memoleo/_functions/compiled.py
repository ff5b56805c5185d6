"""Functions that are put together from text, and compiled.

On the path of a hit, calls of Python functions cost more than the work they do. So the pieces of
that path (binding, the key, the lookup) are kept as text, each in the room that it belongs to, and
pasted into one function for each decorated function. A ``$`` in the text stands for a prefix that
no parameter of a user's function has.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from textwrap import indent
from types import CodeType, FunctionType
from typing import Any, NamedTuple

__all__ = [
    "KEYWORD_ONLY",
    "POSITIONAL",
    "POSITIONAL_ONLY",
    "UNSET",
    "VAR_KEYWORD",
    "VAR_POSITIONAL",
    "Fragment",
    "Parameter",
    "compile_function",
    "handed_on",
    "nested",
]

POSITIONAL_ONLY, POSITIONAL, VAR_POSITIONAL, KEYWORD_ONLY, VAR_KEYWORD = range(5)

_PREFIX = "_memoleo_"


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


class Fragment(NamedTuple):
    """A piece of a function.

    Parameters
    ----------
    lines
        statements
    names
        the objects that they refer to, without the prefix
    """

    lines: str
    names: dict[str, Any]


def nested(lines: str, depth: int = 1) -> str:
    """Return statements so many levels deeper."""
    return indent(lines, " " * depth)


def handed_on(parameters: Iterable[Parameter]) -> str:
    """Return the source of the arguments that hand a call with these parameters on."""
    pieces = []
    for one in parameters:
        if one.kind == KEYWORD_ONLY:
            pieces.append(f"{one.name}={one.name}")
        else:
            pieces.append({VAR_POSITIONAL: "*", VAR_KEYWORD: "**"}.get(one.kind, "") + one.name)
    return ", ".join(pieces)


def compile_function(
    parameters: Iterable[Parameter], *fragments: Fragment, name: str = "call", awaits: bool = False
) -> FunctionType:
    """Compile a function with these parameters.

    Python itself binds its arguments: it fills in defaults, tells positional from keyword, and
    refuses what does not fit with a `TypeError`.

    Parameters
    ----------
    parameters
        the signature
    fragments
        what it does
    name
        its qualified name, for messages
    awaits
        whether it is a coroutine function
    """
    # Names are globals of the function's own, not free variables: then the code of one function
    # can take the place of another's.
    scope: dict[str, Any] = {"__name__": __name__}
    for fragment in fragments:
        scope.update((_PREFIX + key, value) for key, value in fragment.names.items())
    pieces = []
    # A default that is not a literal can't be written in source: it comes by reference.
    defaults: dict[str, Any] = {}
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
            defaults[f"{_PREFIX}default{place}"] = one.default
            pieces.append(f"{one.name}={_PREFIX}default{place}")
    if pieces and seen_kind == POSITIONAL_ONLY:
        pieces.append("/")
    body = nested("\n".join(fragment.lines for fragment in fragments))
    start = "async def" if awaits else "def"
    source = f"{start} {_PREFIX}call({', '.join(pieces)}):\n{body}\n"
    scope.update(defaults)
    exec(_compiled(source.replace("$", _PREFIX)), scope)
    for default in defaults:
        del scope[default]
    function: FunctionType = scope.pop(f"{_PREFIX}call")
    function.__qualname__ = name
    return function


@lru_cache(512)
def _compiled(source: str) -> CodeType:
    return compile(source, "<memoleo>", "exec")
