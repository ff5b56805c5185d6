"""From a call to its key.

::

    key  = SHA-256( header ‖ lane ‖ body )
    header = domain, type, fingerprint of the function, class of self, names of what is keyed
    body   = the bound arguments, and what the function's closures hold

The key that belongs to a body is remembered under a mark: XXH3-128 with a secret seed of this
process, which is faster than SHA-256 by an order of magnitude. A mark never leaves the process.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import xxhash

# They declare how their types are written.
import memoleo.keys._adapters
import memoleo.keys._arrays
import memoleo.keys._callables  # noqa: F401
from memoleo._functions.compiled import (
    POSITIONAL,
    UNSET,
    VAR_KEYWORD,
    VAR_POSITIONAL,
    Fragment,
    Parameter,
    compile_function,
)
from memoleo._platform.importing import importing
from memoleo.errors import ConfigError, KeyingError
from memoleo.keys._bind import bound_names, read_parameters
from memoleo.keys._canonical import Unkeyable, canonical, class_name, frame, write
from memoleo.keys._layout import STATE_WAYS_OUT, Layout, layout_of, layout_of_method
from memoleo.keys._marks import mark_of
from memoleo.keys._plain import HUGE, encode_plain, is_plain
from memoleo.keys._portrait import Description, Portrait
from memoleo.keys._settings import content_of_version, read_settings

__all__ = ["UNSET", "Keyer", "Recipe"]

_DOMAIN = b"memoleo:call:1"
_CAPTURED = " (captured)"
_SEED = int.from_bytes(os.urandom(8), "big")

# A remembered key costs some 200 bytes. What is beyond _LONG is hashed in pieces, as it is.
_MOST = 16_384
_PASSED = 4 * _MOST
_LONG = 1 << 16
_MOST_CLASSES = 256
_FEW = 4

# Of a callable that doesn't tell its parameters, the call counts as it is spelled.
_AS_SPELLED = (Parameter("args", VAR_POSITIONAL), Parameter("kwargs", VAR_KEYWORD))

_MakeKey = Callable[..., bytes]


class Recipe(NamedTuple):
    """How the keys of a function are made, for whoever compiles it into something larger.

    Parameters
    ----------
    parameters
        the signature
    fragment
        what leaves the key in ``$key``
    anew
        the same for a call that is hardly one of those before: it looks for no earlier key. It
        needs the names of `fragment`
    owner
        for methods, the class on whose instances it holds, or the class on which it is called
    of_class
        whether it holds for calls on the class itself
    """

    parameters: tuple[Parameter, ...]
    fragment: Fragment
    anew: str
    owner: type | None
    of_class: bool


class Keyer:
    """The keys of one function's calls.

    Parameters
    ----------
    func
        the function as it was written: not a `classmethod` or `staticmethod` object
    type
        the category
    version
        any value with content; it then stands for the function's code and its closures
    ignore
        names of parameters that are left out
    normalize
        "text", a callable, or either by name of parameter. A callable gets a whole argument
    state
        for methods: attribute names, ``f(self) -> content``, or None for nothing

    Raises
    ------
    ConfigError
        `ignore` or `normalize` name no parameter, or an argument has a wrong type
    """

    __slots__ = (
        "__weakref__",
        "_class_plans",
        "_func",
        "_is_method",
        "_parameters",
        "_plans",
        "_recipes",
        "_settings",
        "_type",
        "_version",
        "_views",
        "bind",
        "latest",
        "make",
    )

    make: _MakeKey
    """What `key` does, called as the function is called: it is replaced when a plan is made."""

    latest: _Latest
    """What the latest key is made of: its bytes were at hand."""

    bind: Callable[[tuple[Any, ...], Mapping[str, Any]], dict[str, Any]]
    """Return the arguments of a call by name, defaults filled in."""

    def __init__(
        self,
        func: Callable[..., Any],
        *,
        type: str = "default",
        version: Any = None,
        ignore: Iterable[str] = (),
        normalize: Any = None,
        state: Any = UNSET,
    ) -> None:
        self._func = func
        self._type = type
        self._parameters = read_parameters(func)
        self._version = None if version is None else content_of_version(version)
        self._settings = read_settings(self._parameters, _name(func), ignore, normalize, state)
        self.is_method = False

    @property
    def is_method(self) -> bool:
        """Whether the first argument is the instance, or the class, that the call belongs to."""
        return self._is_method

    @is_method.setter
    def is_method(self, yes: bool) -> None:
        if yes and not self._parameters:
            raise ConfigError(f"{_name(self._func)} has no parameter for the instance.")
        self._is_method = yes
        self._plans: dict[Any, _MakeKey] = {}
        self._class_plans: dict[Any, _MakeKey] = {}
        self._recipes: dict[Any, Recipe] = {}
        self._views: dict[Any, _View] = {}
        self.latest = _Latest()
        self.make = self._key_by_owner if yes else self._first_key
        self.bind = self._first_bind

    def _first_bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        parameters = self._parameters
        if parameters is None:

            def bind(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
                return {"args": args, "kwargs": kwargs}
        else:
            fragment = Fragment(f"return {bound_names(parameters)}", {})
            binder = compile_function(parameters, fragment, name=_name(self._func))

            def bind(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
                bound: dict[str, Any] = binder(*args, **kwargs)
                return bound

        self.bind = bind
        return bind(args, kwargs)

    def key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """Return the key of a call, 32 bytes, from its positional and its keyword arguments.

        Raises
        ------
        KeyingError
            something can't be keyed
        TypeError
            the call doesn't fit the signature
        """
        return self.make(*args, **kwargs)

    def describe(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Description:
        """Return what the key of a call is made of.

        Raises
        ------
        KeyingError
            something can't be keyed
        TypeError
            the call doesn't fit the signature
        """
        mark: tuple[Any, bool] = (None, False)
        if self._is_method:
            if not args:
                args, kwargs = self._with_instance_first(kwargs)
            of_class = issubclass(type(args[0]), type)
            mark = (args[0] if of_class else type(args[0]), of_class)
        if mark not in self._views:
            self.key(args, kwargs)
        view = self._views[mark]
        return Description(view.portrait, view.values(*args, **kwargs))

    @property
    def parameters(self) -> tuple[Parameter, ...] | None:
        """The signature; `None` if the function doesn't tell it."""
        return self._parameters

    def recipe(self, args: tuple[Any, ...]) -> Recipe | None:
        """Return how the keys of calls like this one are made; `None` if only `make` knows.

        Parameters
        ----------
        args
            the positional arguments of a call that was keyed before
        """
        if self._parameters is None:
            return None
        if not self._is_method:
            return self._recipes.get((None, False))
        if not args or self._parameters[0].kind > POSITIONAL:
            return None
        of_class = issubclass(type(args[0]), type)
        return self._recipes.get((args[0] if of_class else type(args[0]), of_class))

    def _first_key(self, /, *args: Any, **kwargs: Any) -> bytes:
        self.make = self._plan(None)
        return self.make(*args, **kwargs)

    def _key_by_owner(self, /, *args: Any, **kwargs: Any) -> bytes:
        plan = self._plans.get(type(args[0])) if args else None
        if plan is not None:
            return plan(*args, **kwargs)
        if not args:
            # `Class.method(self=…)`: rare, and it must not have a key of its own.
            args, kwargs = self._with_instance_first(kwargs)
        instance = args[0]
        # A class method is called on the class itself. (`isinstance` would ask the instance.)
        of_class = issubclass(type(instance), type)
        owner = instance if of_class else type(instance)
        plans = self._class_plans if of_class else self._plans
        plan = plans.get(owner)
        if plan is None:
            if len(plans) >= _MOST_CLASSES:
                plans.clear()
                self._recipes.clear()
                self._views.clear()
            plan = plans[owner] = self._plan(owner, of_class)
        return plan(*args, **kwargs)

    def _with_instance_first(
        self, kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        assert self._parameters
        name = self._parameters[0].name
        if name not in kwargs:
            raise TypeError(f"{_name(self._func)}() missing its argument {name!r}")
        rest = dict(kwargs)
        return (rest.pop(name),), rest

    def _plan(self, owner: Any, of_class: bool = False) -> _MakeKey:
        """Return what makes keys.

        Parameters
        ----------
        owner
            the class of the instance that a method is called on, or else None
        of_class
            whether it is called on the class itself
        """
        # It reads source files: a program that only decorates needs none of that.
        with importing:
            from memoleo.keys._source import Logic, examine
            from memoleo.keys._wrapped import label_of

        if self._version is not None:
            logic = Logic.of_version(self._func, self._version, owner)
        else:
            logic = examine(self._func, owner)
        parameters = _AS_SPELLED if self._parameters is None else self._parameters
        if owner is None:
            layout = layout_of(parameters, self._settings)
        else:
            layout = layout_of_method(parameters, self._settings, owner, of_class)
        names = [*layout.labels, of_class, self._is_method, self._parameters is None]
        header = [_DOMAIN, frame(self._type), logic.digest]
        header.append(frame("" if owner is None else class_name(owner)))
        header.append(canonical([names, self._settings.content()]))
        for place, (cell, name) in enumerate(logic.live):
            source = f"live{place}"
            layout.add(f"{name}{_CAPTURED}", f"${source}.cell_contents", **{source: cell})
        facts = {**logic.facts, "type": _digest(self._type), "settings": _digest(header[-1])}
        if owner is not None:
            facts["class"] = _digest(class_name(owner))
        portrait = Portrait(label_of(self._func), tuple(layout.labels), facts)
        self._views[owner, of_class] = _View(
            portrait,
            partial(
                compile_function,
                parameters,
                Fragment(f"return ({_tuple_of(layout)})", layout.names),
                name=_name(self._func),
            ),
        )
        fragment = _key_fragment(layout, b"".join(header), portrait, self.latest)
        ending = Fragment("return $key", {})
        make: _MakeKey = compile_function(parameters, fragment, ending, name=_name(self._func))
        if not logic.pins and not logic.live:
            anew = _ANEW.format(values=_tuple_of(layout))
            self._recipes[owner, of_class] = Recipe(parameters, fragment, anew, owner, of_class)
            return make
        is_current = logic.is_current
        captured = tuple(f"{name}{_CAPTURED}" for _, name in logic.live)

        def make_checked(*args: Any, **kwargs: Any) -> bytes:
            if is_current():
                try:
                    return make(*args, **kwargs)
                except KeyingError as error:
                    if not error.path.startswith(captured):
                        raise
            # A closure holds another function since, or something that counts by identity now.
            self.is_method = self._is_method
            return self.make(*args, **kwargs)

        return make_checked


class _View:
    """What the calls of one plan are made of; nothing is compiled before somebody asks.

    Parameters
    ----------
    portrait
        what they have in common
    compiled
        returns what maps the arguments of a call to the values that are keyed
    """

    __slots__ = ("_compiled", "_values", "portrait")

    def __init__(self, portrait: Portrait, compiled: Callable[[], Callable[..., Any]]) -> None:
        self.portrait = portrait
        self._compiled = compiled
        self._values: Callable[..., tuple[Any, ...]] | None = None

    @property
    def values(self) -> Callable[..., tuple[Any, ...]]:
        if self._values is None:
            self._values = self._compiled()
        return self._values


class _Latest:
    """The key that was made last, and what it is made of, for whoever comes with that very key."""

    __slots__ = ("made",)

    def __init__(self) -> None:
        self.made: tuple[bytes, Description | None] = (b"", None)


def _digest(content: str | bytes) -> bytes:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).digest()


_KEY = """\
$values = ({values})
{mark}
$key = $known($mark) or $remember($values, $mark)"""

_ANEW = "$key = $make(({values}))"

_MARK = "$mark = $mark_of($values)"

# Most keyed values are short texts, and a look at one costs less than handing it on.
_MARK_OF_TEXTS = """\
try:
 $mark = $digest($encode($values), $seed) if {checks} else $mark_of($values)
except $UnicodeEncodeError:
 $mark = $mark_of($values)"""


def _key_fragment(layout: Layout, header: bytes, portrait: Portrait, latest: _Latest) -> Fragment:
    """Return what leaves the key of a call in ``$key``."""
    known: dict[bytes | None, bytes] = {}
    labels = layout.labels
    # The values are written one by one, for those who want each by itself: an array in the end.
    array = encode_plain([None] * len(labels))[: -len(labels) or None]
    plain_start = hashlib.sha256(header + b"\x01" + array)
    tagged_start = hashlib.sha256(header + b"\x02")

    passed = 0

    def remember(values: tuple[Any, ...], mark: bytes | None) -> bytes:
        nonlocal passed
        key = make(values)
        if mark is not None:
            if len(known) >= _MOST:
                # Remembering costs more than it brings where there are ever more calls.
                passed += 1
                if passed < _PASSED:
                    return key
                passed = 0
                known.clear()
            known[mark] = key
        return key

    def make(values: tuple[Any, ...]) -> bytes:
        if is_plain(values):
            try:
                blocks = [*map(encode_plain, values)]
                body = b"".join(blocks)
                whole = plain_start.copy()
                whole.update(body)
                key: bytes = whole.digest()
                if len(body) < _LONG:
                    latest.made = (key, Description(portrait, (), blocks))
                return key
            except (UnicodeEncodeError, OverflowError):
                pass
        whole = tagged_start.copy()
        for piece in tagged(values):
            whole.update(piece)
        return whole.digest()

    def tagged(values: tuple[Any, ...]) -> list[Any]:
        pieces: list[Any] = []
        place = 0
        try:
            for place in range(len(labels)):
                write(values[place], pieces.append, set())
        except Unkeyable as error:
            raise _keying_error(labels[place], error) from None
        except RecursionError:
            reason = "it is nested too deeply for the stack that is left"
            deep = Unkeyable(values[place], reason)
            raise _keying_error(labels[place], deep) from None
        # Many small pieces are hashed faster in one.
        return pieces if sum(map(len, pieces)) > _LONG else [b"".join(pieces)]

    mark = _MARK
    if 0 < len(layout.values) <= _FEW and all(map(str.isidentifier, layout.values)):
        checks = [f"$type({one}) is $str and $len({one}) < $huge" for one in layout.values]
        mark = _MARK_OF_TEXTS.format(checks=" and ".join(checks))
    names = {
        "mark_of": mark_of,
        "known": known.get,
        "remember": remember,
        "make": make,
        "type": type,
        "str": str,
        "len": len,
        "huge": HUGE,
        "UnicodeEncodeError": UnicodeEncodeError,
        "digest": xxhash.xxh3_128_digest,
        "encode": encode_plain,
        "seed": _SEED,
    }
    return Fragment(_KEY.format(values=_tuple_of(layout), mark=mark), {**layout.names, **names})


def _tuple_of(layout: Layout) -> str:
    return "".join(f"{value}, " for value in layout.values)


def _keying_error(name: str, error: Unkeyable) -> KeyingError:
    if name != "self":
        return KeyingError(error.type_name, error.reason, path=name + error.path)
    # Attributes travel as a dict; the user knows them with a dot.
    path = name + re.sub(r"^\['(\w+)'\]", r".\1", error.path)
    return KeyingError(error.type_name, error.reason, path=path, ways_out=STATE_WAYS_OUT)


def _name(func: Any) -> str:
    return getattr(func, "__qualname__", None) or type(func).__qualname__
