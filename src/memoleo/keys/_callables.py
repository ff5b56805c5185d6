"""Callables, classes, modules and type hints as values: keyed by what they are."""

from __future__ import annotations

import sys
import weakref
from operator import attrgetter, itemgetter, methodcaller
from types import (
    BuiltinFunctionType,
    FunctionType,
    GenericAlias,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import TYPE_CHECKING, Any

from memoleo._functions.callable import BoundCallable, WrappedCallable
from memoleo.keys._canonical import (
    Put,
    Unkeyable,
    Writer,
    class_name,
    finder,
    frame,
    module_name,
    write,
    write_mapping,
    writes,
)
from memoleo.keys._instances import instance_content, is_bare, is_python_class
from memoleo.keys._labels import note

if TYPE_CHECKING:
    from memoleo.keys._source import Logic

__all__ = ["logic_of"]

_LOGIC: weakref.WeakKeyDictionary[Any, tuple[Any, Logic]] = weakref.WeakKeyDictionary()


def logic_of(func: Any) -> Logic:
    """Return the logic of a function or class, remembered until something in it changes."""
    code = getattr(func, "__code__", None)
    known = _LOGIC.get(func)
    if known is not None and known[0] is code and known[1].is_current():
        return known[1]
    # It reads source files: a program that only decorates needs none of that.
    from memoleo.keys._source import examine

    logic = examine(func)
    _LOGIC[func] = (code, logic)
    return logic


@writes(FunctionType)
def _function(value: Any, put: Put, active: set[int]) -> None:
    put(b"X" + frame("function"))
    if (name := note(value)) is not None:
        put(frame(name))
        return
    logic = logic_of(value)
    put(frame(logic.digest))
    put(frame(_description(value)))
    defaults = [value.__defaults__, value.__kwdefaults__]
    try:
        write(defaults, put, active)
    except Unkeyable as error:
        raise error.inside(".__defaults__") from None
    _captured(logic, put, active)


_DESCRIPTIONS: weakref.WeakKeyDictionary[Any, tuple[Any, bytes]] = weakref.WeakKeyDictionary()


def _description(func: FunctionType) -> bytes:
    """Return what others may tell of a function: language models are told of tools by it."""
    code = func.__code__
    known = _DESCRIPTIONS.get(func)
    if known is None or known[0] is not code:
        from memoleo.keys._tree import described_bytes, function_node

        try:
            node = function_node(code, func.__globals__)
            known = (code, b"" if node is None else described_bytes(node))
        except RecursionError:
            known = (code, b"")
        _DESCRIPTIONS[func] = known
    return known[1] + _words(func.__doc__)


def _words(doc: Any) -> bytes:
    # Python 3.13 takes the indentation out of docstrings.
    return " ".join(doc.split()).encode("utf-8", "surrogatepass") if isinstance(doc, str) else b""


def _captured(logic: Logic, put: Put, active: set[int]) -> None:
    for cell, name in logic.live:
        put(frame(name))
        try:
            write(cell.cell_contents, put, active)
        except Unkeyable as error:
            raise error.inside(f".{name} (captured)") from None


@finder(50)
def _class(cls: type) -> Writer | None:
    return _write_class if issubclass(cls, type) else None


def _write_class(value: Any, put: Put, active: set[int]) -> None:
    put(b"X" + frame("class") + frame(class_name(value)))
    if not value.__flags__ & (1 << 9) or value.__module__ in sys.stdlib_module_names:
        put(frame(b""))
    elif (name := note(value)) is not None:
        put(frame(name))
    else:
        logic = logic_of(value)
        put(frame(logic.digest))
        put(frame(_words(type.__dict__["__dict__"].__get__(value).get("__doc__"))))
        _captured(logic, put, active)


@writes(MethodType)
def _method(value: Any, put: Put, active: set[int]) -> None:
    put(b"X" + frame("method"))
    write(value.__func__, put, active)
    if is_bare(value.__self__):
        put(b"-" + frame(class_name(type(value.__self__))))
        return
    try:
        write(value.__self__, put, active)
    except Unkeyable as error:
        raise error.inside(".__self__") from None


@writes(BuiltinFunctionType, MethodWrapperType)
def _builtin(value: Any, put: Put, active: set[int]) -> None:
    owner = value.__self__
    put(b"X" + frame("builtin") + frame(value.__qualname__))
    if owner is None or isinstance(owner, ModuleType):
        put(frame(str(value.__module__)))
        return
    write(owner, put, active)


@writes(itemgetter, attrgetter, methodcaller)
def _getter(value: Any, put: Put, active: set[int]) -> None:
    put(b"X" + frame("operator") + frame(type(value).__name__))
    write(value.__reduce__(), put, active)


@writes(ModuleType)
def _module(value: Any, put: Put, active: set[int]) -> None:
    put(b"X" + frame("module") + frame(module_name(value.__name__)))


@writes(MethodDescriptorType, WrapperDescriptorType, GetSetDescriptorType, MemberDescriptorType)
def _descriptor(value: Any, put: Put, active: set[int]) -> None:
    put(b"X" + frame("descriptor") + frame(class_name(value.__objclass__)))
    put(frame(value.__name__))


@finder(30)
def _partial(cls: type) -> Writer | None:
    base = getattr(sys.modules.get("functools"), "partial", None)
    if base is None or not issubclass(cls, base) or not is_python_class(cls, base):
        return None
    # What a subclass adds. The rest of it differs between the versions of Python.
    content = None if cls is base else instance_content(cls, base)

    def writer(value: Any, put: Put, active: set[int]) -> None:
        if content is None:
            put(b"X" + frame("partial"))
        else:
            put(b"X" + frame("partial subclass") + frame(class_name(cls)))
            write_mapping(content(value).items(), put, active, ".{}")
        for name in ("func", "args", "keywords"):
            try:
                write(getattr(value, name), put, active)
            except Unkeyable as error:
                raise error.inside(f".{name}") from None

    return writer


@writes(GenericAlias)
def _generic(value: Any, put: Put, active: set[int]) -> None:
    put(b"X" + frame("generic"))
    write(value.__origin__, put, active)
    write(value.__args__, put, active)


@finder(45)
def _hint(cls: type) -> Writer | None:
    """What `typing` makes: unions, aliases, variables, special forms."""
    if issubclass(cls, type):
        # Classes are no hints, whose metaclass may be one of `typing`: a TypedDict, a Protocol.
        return None
    name = class_name(cls)
    if name in ("types.UnionType", "typing.Union", "typing._UnionGenericAlias"):
        return _write_union
    if cls.__module__ == "typing":
        return _write_hint
    return None


def _write_union(value: Any, put: Put, active: set[int]) -> None:
    put(b"X" + frame("union"))
    write(value.__args__, put, active)


def _write_hint(value: Any, put: Put, active: set[int]) -> None:
    put(b"X" + frame("typing"))
    for name in ("_name", "__name__", "__forward_arg__", "__origin__", "__args__", "__supertype__"):
        found = getattr(value, name, None)
        put(frame(name))
        write(found if found is not value else None, put, active)
    write(getattr(value, "__metadata__", None), put, active)
    write(getattr(value, "__bound__", None), put, active)
    write(getattr(value, "__constraints__", None), put, active)


@finder(35)
def _layered(cls: type) -> Writer | None:
    """Callables that a decorator made, such as `functools.lru_cache`: by what they wrap."""
    if issubclass(cls, BoundCallable):
        return _method
    if not issubclass(cls, WrappedCallable) and class_name(cls) != "functools._lru_cache_wrapper":
        return None

    def writer(value: Any, put: Put, active: set[int]) -> None:
        put(b"X" + frame("wrapped"))
        write(getattr(value, "__memoleo_wrapped__", None) or value.__wrapped__, put, active)

    return writer
