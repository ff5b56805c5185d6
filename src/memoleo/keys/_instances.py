"""What an instance of a class written in Python consists of: its ``__dict__`` and its slots."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any

from memoleo.keys._canonical import (
    Put,
    Unkeyable,
    Watched,
    Writer,
    builtin_writer,
    class_name,
    finder,
    frame,
    is_keyable,
    rank_of,
    write,
    write_mapping,
)
from memoleo.keys._standard import standard_writer

__all__ = ["declared_details", "instance_content", "is_bare", "is_python_class", "self_content"]

# Declared fields, and instances of ordinary classes: what is known of them is a dict.
_FIELDS, _ORDINARY = 30, 90

_HEAP_TYPE = 1 << 9
_POINTER = (object.__basicsize__) // 2


def is_python_class(cls: type, base: type = object) -> bool:
    """Return whether `cls` adds nothing to `base` but what its ``__dict__`` and slots hold.

    A class written in C may keep content where nobody can read it, so its instances can't be
    compared by their attributes.
    """
    for layer in cls.__mro__:
        if layer is base:
            break
        if layer is not object and not layer.__flags__ & _HEAP_TYPE:
            return False
    room = len(_slots(cls, base)) + _gains(cls, base, "__dictoffset__")
    room += _gains(cls, base, "__weakrefoffset__")
    return cls.__basicsize__ - base.__basicsize__ <= room * _POINTER


def _gains(cls: type, base: type, offset: str) -> bool:
    return bool(getattr(cls, offset)) and not getattr(base, offset)


def _slots(cls: type, base: type = object) -> list[tuple[str, Any]]:
    found = []
    known = base.__mro__
    for layer in cls.__mro__:
        if layer in known:
            continue
        for name, value in vars(layer).items():
            if type(value) is MemberDescriptorType and name != "__weakref__":
                found.append((name, value))
    return found


def _dict_of(cls: type) -> Callable[[Any], dict[str, Any]] | None:
    """Return what reads the ``__dict__`` of an instance past any ``__getattribute__``."""
    for layer in cls.__mro__:
        reader = vars(layer).get("__dict__")
        if type(reader) is GetSetDescriptorType:
            # The descriptor's own `__get__`: `vars` would ask the instance.
            return reader.__get__
    return None


def _computed_names(cls: type) -> frozenset[str]:
    """Return the names of cached properties: they follow from the rest, and come and go."""
    functools = sys.modules.get("functools")
    cached = getattr(functools, "cached_property", ())
    return frozenset(
        name
        for layer in cls.__mro__
        for name, value in vars(layer).items()
        if cached and isinstance(value, cached)
    )


def instance_content(cls: type, base: type = object) -> Callable[[Any], dict[str, Any]]:
    """Return what maps an instance of `cls` to its attributes by name.

    Parameters
    ----------
    cls
        the class of the instances
    base
        the builtin type whose own content is not wanted
    """
    slots = _slots(cls, base)
    computed = _computed_names(cls)
    read = _dict_of(cls)
    if read is not None and not slots and not computed:
        return read

    held = _slot_reader(slots)

    def content(value: Any) -> dict[str, Any]:
        found = held(value)
        if read is not None:
            found.update(read(value))
        for name in computed:
            found.pop(name, None)
        return found

    return content


def _slot_reader(slots: list[tuple[str, Any]]) -> Callable[[Any], dict[str, Any]]:
    # Those of the interpreter hold an offset or an address.
    slots = [(name, slot) for name, slot in slots if not name.endswith("__")]

    def read(value: Any) -> dict[str, Any]:
        found = {}
        for name, slot in reversed(slots):
            try:
                found[name] = slot.__get__(value)
            except AttributeError:
                continue
        return found

    return read


def self_content(cls: type) -> Callable[[Any], Any]:
    """Return what maps the instance that a method is called on to its content.

    Unlike an argument it may be empty, since its class is in the key as well.
    """
    rank = rank_of(cls)
    if rank == _FIELDS:
        return _declared_content(cls) or _itself
    if rank in (None, _ORDINARY) and is_python_class(cls):
        return instance_content(cls)
    return _itself


def is_bare(value: Any) -> bool:
    """Return whether `value` is an instance of an ordinary class and has no attributes."""
    cls = type(value)
    if rank_of(cls) not in (None, _ORDINARY) or not is_python_class(cls) or cls is object:
        return False
    return not instance_content(cls)(value)


def _itself(value: Any) -> Any:
    return value


def _attribute_writer(head: bytes, content: Callable[[Any], dict[str, Any]]) -> Writer:
    def writer(value: Any, put: Put, active: set[int]) -> None:
        put(head)
        write_mapping(content(value).items(), put, active, ".{}")

    return writer


def _head(kind: str, cls: type) -> bytes:
    return b"X" + frame(kind) + frame(class_name(cls))


@finder(10)
def _enum(cls: type) -> Writer | None:
    enum = sys.modules.get("enum")
    if enum is None or not issubclass(cls, enum.Enum):
        return None
    head = _head("enum", cls)
    is_flag = issubclass(cls, enum.Flag)

    def writer(value: Any, put: Put, active: set[int]) -> None:
        attributes = object.__getattribute__(value, "__dict__")
        put(head)
        if is_flag:
            # The name of a combined flag differs between Python versions.
            write(attributes["_value_"], put, active)
            return
        write(attributes["_name_"], put, active)
        # A member like `A = object()` is told from the others by its name alone.
        if is_keyable(attributes["_value_"]):
            write(attributes["_value_"], put, active)
        else:
            put(b"-")

    return writer


@finder(20)
def _pydantic(cls: type) -> Writer | None:
    pydantic = sys.modules.get("pydantic.main")
    base = getattr(pydantic, "BaseModel", None)
    if base is None or not issubclass(cls, base):
        return None
    head = _head("pydantic", cls)
    slots = _slot_reader(_slots(cls, base))

    def content(value: Any) -> dict[str, Any]:
        def read(name: str) -> Any:
            try:
                return object.__getattribute__(value, name)
            except AttributeError:
                return None

        fields = _pydantic_fields(cls)
        found = slots(value)
        found.update((name, item) for name, item in read("__dict__").items() if name in fields)
        found.update(read("__pydantic_private__") or {})
        if extra := read("__pydantic_extra__"):
            # Apart: it may have the name of a field whose value came by an alias.
            found["model_extra"] = extra
        # `model_dump(exclude_unset=True)` tells models apart that differ in nothing else.
        found["model_fields_set"] = frozenset(read("__pydantic_fields_set__") or ())
        return found

    return _attribute_writer(head, content)


def _pydantic_fields(cls: Any) -> Any:
    fields = vars(cls).get("__pydantic_fields__")
    return cls.model_fields if fields is None else fields


@finder(20)
def _msgspec(cls: type) -> Writer | None:
    if type(cls).__module__ != "msgspec._core":
        return None
    fields = getattr(cls, "__struct_fields__", None)
    if fields is None:
        return None
    read = _dict_of(cls)

    def content(value: Any) -> dict[str, Any]:
        found = {name: object.__getattribute__(value, name) for name in fields}
        if read is not None:
            found.update(read(value))
        return found

    return _attribute_writer(_head("msgspec", cls), content)


@finder(_FIELDS)
def _declared(cls: type) -> Writer | None:
    """Dataclasses and attrs classes: their fields, and whatever else was set on them."""
    content = _declared_content(cls)
    return None if content is None else _attribute_writer(_head("fields", cls), content)


def _declared_content(cls: type) -> Callable[[Any], dict[str, Any]] | None:
    names = _declared_names(cls)
    if names is None or not is_python_class(cls):
        return None
    # What makes slots of fields may add others for itself; those of a class without fields count.
    plain = [
        name
        for layer in cls.__mro__
        if not any(mark in vars(layer) for mark in _FIELD_MARKS)
        for name in vars(layer)
    ]
    declared = frozenset([*names, *(name for name, _ in _slots(cls) if name in plain)])
    everything = instance_content(cls)
    read = _dict_of(cls)

    def content(value: Any) -> dict[str, Any]:
        found = everything(value)
        beside = read(value) if read is not None else {}
        result = {name: found[name] for name in found if name in declared or name in beside}
        for name in names:
            if name in result:
                continue
            # A field with `init=False` may live on the class alone.
            for layer in cls.__mro__:
                if name in vars(layer) and type(vars(layer)[name]) is not MemberDescriptorType:
                    result[name] = vars(layer)[name]
                    break
        return result

    return content


_FIELD_MARKS = ("__dataclass_fields__", "__attrs_attrs__")


def _declared_names(cls: type) -> list[str] | None:
    dataclasses = sys.modules.get("dataclasses")
    if dataclasses is not None and dataclasses.is_dataclass(cls):
        return [field.name for field in dataclasses.fields(cls)]
    attributes = getattr(cls, "__attrs_attrs__", None)
    if isinstance(attributes, tuple):
        return [attribute.name for attribute in attributes]
    return None


def declared_details(cls: type) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield what a class with fields knows of each: a path, and what is found there."""
    own: Any = vars(cls)
    fields = dict(own.get("__pydantic_fields__") or {})
    fields.update((field.name, field) for field in own.get("__attrs_attrs__") or ())
    for name, field in fields.items():
        for detail, value in instance_content(type(field))(field).items():
            if not detail.startswith("_"):
                yield (name, detail), value
    if type(cls).__module__ == "msgspec._core":
        struct: Any = cls
        for place, value in enumerate(reversed(struct.__struct_defaults__)):
            yield (str(place), "default"), value
        yield ("encoded as",), struct.__struct_encode_fields__
        yield ("tag",), (struct.__struct_config__.tag_field, struct.__struct_config__.tag)
    if "__required_keys__" in own:
        yield ("required",), own["__required_keys__"]


@finder(80)
def _subclass(cls: type) -> Writer | None:
    """A class derived from a type that is known: the class, the base's content, attributes."""
    for base in cls.__mro__[1:]:
        inner = builtin_writer(base) or standard_writer(base)
        if inner is not None:
            break
    else:
        return None
    if not is_python_class(cls, base):
        return None
    head = _head("subclass", cls)
    content = instance_content(cls, base)

    def writer(value: Any, put: Put, active: set[int]) -> None:
        put(head)
        inner(value, put, active)
        write_mapping(content(value).items(), put, active, ".{}")

    return writer


@finder(85)
def _exception(cls: type) -> Writer | None:
    if not issubclass(cls, BaseException) or cls.__basicsize__ > BaseException.__basicsize__ + 16:
        return None
    if not all(_is_bare_exception(layer) for layer in cls.__mro__[:-1]):
        return None

    slots = _slot_reader(_slots(cls, BaseException))

    def content(value: Any) -> dict[str, Any]:
        arguments = BaseException.__dict__["args"].__get__(value)
        attributes = BaseException.__dict__["__dict__"].__get__(value)
        return {"args": arguments, **slots(value), **attributes}

    return _attribute_writer(_head("exception", cls), content)


def _is_bare_exception(layer: type) -> bool:
    return layer.__basicsize__ == BaseException.__basicsize__ or bool(layer.__flags__ & _HEAP_TYPE)


@finder(_ORDINARY)
def _plain(cls: type) -> Writer | None:
    if not is_python_class(cls) or issubclass(cls, type):
        return None
    if any("__next__" in vars(layer) for layer in cls.__mro__):
        return None
    head = _head("instance", cls)
    content = instance_content(cls)

    def writer(value: Any, put: Put, active: set[int]) -> None:
        found = content(value)
        if not found:
            raise Unkeyable(value, "it has no attributes, so nothing tells it from another one")
        if isinstance(active, Watched):
            active.ordinary = True
        put(head)
        write_mapping(found.items(), put, active, ".{}")

    return writer
