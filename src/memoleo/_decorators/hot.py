"""One decorated function, compiled into one Python function: from its arguments to its value.

A hit in memory is a microsecond of work: making the key, one lookup, decoding. Each call of a
Python function on the way would add a tenth to it, and each ``*args`` that is packed and unpacked
another, so there is none: the text of the key, the text of the lookup and the text below become
one function with the parameters of the user's own. It is compiled when the function is first
called, and stands in the place of `stub` from then on.

It decides nothing by itself. Whatever isn't a plain call under the cache that it was compiled for
goes to ``slowly``, and whatever isn't a hit goes to the flow; the user's function is run from here,
so that recursion costs one frame a level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import FunctionType
from typing import Any

from memoleo import _switch
from memoleo._cache import default
from memoleo._flow.drive import conclude
from memoleo._flow.flow import Intent
from memoleo._flow.reader import IN_A_ROW, NOTHING, no_lookup
from memoleo._flow.steps import Returned
from memoleo._flow.store import Job
from memoleo._functions.compiled import (
    KEYWORD_ONLY,
    VAR_KEYWORD,
    VAR_POSITIONAL,
    Fragment,
    Parameter,
    compile_function,
    handed_on,
    nested,
)
from memoleo._switch import Mode, mode
from memoleo.config import _settings
from memoleo.errors import KeyingError
from memoleo.keys._keyer import Recipe

__all__ = ["compile_call", "exchange", "stub"]

_AS_SPELLED = (Parameter("$args", VAR_POSITIONAL), Parameter("$kwargs", VAR_KEYWORD))

_CALL = """\
if not ($mode() is $SERVE and $switch.on and $settings.in_force is $current{default}):
 return {await_}$slowly({spelled})
try:
{key}
except $KeyingError:
 raise
except $TypeError:
 return {await_}$function({arguments})
{lookup}
{count}
$this = $job($key, $partial($function, {arguments}))
$entry = None if $missed is $NOTHING else {await_}$found($this, $missed)
$turn = {await_}$begin($this, $ANSWER, $entry)
if $turn.outcome is None:
 try:
  $value = {await_}$function({arguments})
 except $BaseException as $error:
  {await_}$perform($turn, $turn.ended(None, $error))
 else:
  {await_}$perform($turn, $turn.ended($value))
return $turn.outcome.value if $type($turn.outcome) is $Returned else $conclude($turn)"""


def stub(slowly: Callable[..., Any], name: str, *, awaits: bool) -> FunctionType:
    """Return what stands in the place of a compiled call before there is one.

    Parameters
    ----------
    slowly
        answers any call, from its positional and its keyword arguments
    name
        the qualified name of the user's function
    awaits
        whether that is a coroutine function
    """
    line = f"return {'await ' if awaits else ''}$slowly($args, $kwargs)"
    fragment = Fragment(line, {"slowly": slowly})
    return compile_function(_AS_SPELLED, fragment, name=name, awaits=awaits)


def compile_call(
    function: Callable[..., Any],
    parameters: Sequence[Parameter] | None,
    recipe: Recipe | None,
    lookup: Fragment | None,
    count: Fragment,
    *,
    keyer: Any,
    cache: Any,
    settings: Any,
    is_default: bool,
    slowly: Callable[..., Any],
    job: Callable[[bytes, partial[Any]], Job],
    found: Callable[..., Any],
    begin: Callable[..., Any],
    perform: Callable[..., Any],
    awaits: bool,
) -> FunctionType:
    """Compile the calls of one function.

    Parameters
    ----------
    function
        the user's
    parameters
        its signature; `None` if its arguments must be handed on as they were spelled
    recipe
        how its keys are made; `None` if that is not the same for long
    lookup
        how a fresh entry is found; `None` if only the flow knows
    count
        counts a miss
    keyer
        makes the keys that `recipe` doesn't
    cache, settings, is_default
        what it holds for, and whether the cache is only the default one until there is another
    slowly
        answers the calls that aren't plain, from their positional and keyword arguments
    job
        makes a call of its key and what runs the function
    found
        returns the entry of a call, if there is one, from what the lookup found out
    begin, perform
        what is done before and after the function is run; see `Driver`
    awaits
        whether it is a coroutine function
    """
    arguments = "*$args, **$kwargs" if parameters is None else handed_on(parameters)
    make = f"$key = $keyer.make({arguments})"
    lookup = no_lookup() if lookup is None else lookup
    names: dict[str, Any] = {
        "mode": mode.get,
        "SERVE": Mode.SERVE,
        "switch": _switch,
        "settings": _settings,
        "current": settings,
        "default": default,
        "cache": cache,
        "slowly": slowly,
        "function": function,
        "keyer": keyer,
        "NOTHING": NOTHING,
        "ANSWER": Intent.ANSWER,
        "job": job,
        "found": found,
        "begin": begin,
        "perform": perform,
        "conclude": conclude,
        "partial": partial,
        "KeyingError": KeyingError,
        "TypeError": TypeError,
        "BaseException": BaseException,
        "Returned": Returned,
        "type": type,
    }
    if parameters is None or recipe is None:
        key, key_names = Fragment(make, {})
    else:
        key, key_names = recipe.fragment
        if "streak" in lookup.names:
            key = f"if {IN_A_ROW}:\n{nested(recipe.anew)}\nelse:\n{nested(key)}"
        if recipe.owner is not None:
            names["owner"] = recipe.owner
            owner = parameters[0].name if recipe.of_class else f"$type({parameters[0].name})"
            key = f"if {owner} is $owner:\n{nested(key)}\nelse:\n {make}"
    text = _CALL.format(
        await_="await " if awaits else "",
        default=" and $default.current is $cache" if is_default else "",
        spelled="$args, $kwargs" if parameters is None else _spelled(parameters),
        arguments=arguments,
        key=nested(key),
        lookup=lookup.lines,
        count=count.lines,
    )
    fragment = Fragment(text, {**key_names, **lookup.names, **count.names, **names})
    return compile_function(
        _AS_SPELLED if parameters is None else parameters,
        fragment,
        awaits=awaits,
    )


def exchange(stub: FunctionType, call: FunctionType) -> None:
    """Let a stub be a compiled call from now on, for everybody who has it already.

    Only once: the names of a second one would come into the first one's way in other threads.
    """
    stub.__globals__.update(call.__globals__)
    stub.__defaults__ = call.__defaults__
    stub.__kwdefaults__ = call.__kwdefaults__
    # Last, and at once: other threads may be calling it.
    stub.__code__ = call.__code__


def _spelled(parameters: Sequence[Parameter]) -> str:
    """Return the source of the positional and the keyword arguments, as two values."""
    args, kwargs = [], []
    for one in parameters:
        if one.kind == KEYWORD_ONLY:
            kwargs.append(f"{one.name!r}: {one.name}")
        elif one.kind == VAR_KEYWORD:
            kwargs.append(f"**{one.name}")
        else:
            args.append(f"*{one.name}" if one.kind == VAR_POSITIONAL else one.name)
    return f"({''.join(f'{arg}, ' for arg in args)}), {{{', '.join(kwargs)}}}"
