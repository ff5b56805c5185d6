"""Exact trees for the values of classes: their state is stored, and set again without any call.

No constructor, validator, property or other code of the class runs on either way.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import msgspec

from memoleo.codecs._plain import SCALARS
from memoleo.codecs._shapes import Shape, check_found, class_attribute, shape_named, shape_of
from memoleo.codecs._tree import FALLBACKS, NODES, READERS, Node, Reader, Unstorable, Write, Writer
from memoleo.errors import CodecError

__all__: list[str] = []

# Part of the stored format.
_OBJECT = 50

_get = object.__getattribute__
_set = object.__setattr__
_force = msgspec.structs.force_setattr
_Parts = list[Any]

# attrs can keep an instance's hash in it, and the hash of a text differs between processes.
_ATTRS_HASH = "_attrs_cached_hash"


def _by_name(names: list[str] | tuple[str, ...]) -> Callable[[int], str]:
    return lambda index: f".{names[index]}"


def _attributes(writer: Writer, value: Any) -> dict[str, Node]:
    attributes: dict[str, Any] = _get(value, "__dict__")
    if not writer.careful and {*map(type, attributes.values())} <= SCALARS:
        return attributes
    if _ATTRS_HASH in attributes:
        attributes = {**attributes, _ATTRS_HASH: None}
    names = list(attributes)
    nodes = writer.nodes(value, attributes.values(), _by_name(names))
    return dict(zip(names, nodes, strict=True))


def _lift_attributes(reader: Reader, attributes: dict[str, Node]) -> dict[str, Any]:
    kinds = {*map(type, attributes.values())}
    if not kinds <= SCALARS:
        if not kinds <= NODES:
            raise CodecError("something in it is not a node")
        lift = reader.lift
        for name, node in attributes.items():
            if type(node) is list:
                attributes[name] = lift(node)
    return attributes


def _write_state(writer: Writer, value: Any, shape: Shape) -> _Parts:
    parts: _Parts = [_attributes(writer, value) if shape.has_dict else {}]
    held = {}
    for name in shape.slots:
        try:
            slot = _get(value, name)
        except AttributeError:
            continue
        if slot is not None or shape.kind != "pydantic":
            held[name] = None if name == _ATTRS_HASH else slot
    names = list(held)
    parts += [names, writer.nodes(value, held.values(), _by_name(names))] if names else []
    return parts


def _read_state(reader: Reader, cls: Any, shape: Shape, parts: _Parts) -> Any:
    value = object.__new__(cls)
    if shape.has_dict:
        _set(value, "__dict__", _lift_attributes(reader, parts[0]))
    if shape.kind == "pydantic":
        for name in shape.slots:
            _set(value, name, None)
    if len(parts) > 1:
        _, names, nodes = parts
        for name, held in zip(names, reader.lifts(nodes), strict=True):
            if name not in shape.slots:
                raise CodecError(f"{shape.qualname} has no slot {name}")
            _set(value, name, held)
    return value


def _write_pydantic(writer: Writer, value: Any, shape: Shape) -> _Parts:
    parts = _write_state(writer, value, shape)
    # A set would be stored in an order that differs between processes.
    names = _get(value, "__pydantic_fields_set__")
    ordered = [name for name in shape.fields if name in names]
    return [*parts, [*ordered, *sorted(names - {*ordered})]]


def _read_pydantic(reader: Reader, cls: Any, shape: Shape, parts: _Parts) -> Any:
    names = parts.pop()
    value = _read_state(reader, cls, shape, parts)
    _set(value, "__pydantic_fields_set__", {*names})
    return value


def _write_struct(writer: Writer, value: Any, shape: Shape) -> _Parts:
    fields = [getattr(value, name) for name in shape.fields]
    parts: _Parts = [writer.nodes(value, fields, _by_name(shape.fields))]
    if shape.has_dict:
        parts.append(_attributes(writer, value))
    return parts


def _read_struct(reader: Reader, cls: Any, shape: Shape, parts: _Parts) -> Any:
    make = cls
    if class_attribute(cls, "__post_init__") is not None:
        make = reader.found.get(cls) or reader.found.setdefault(cls, _without_post_init(cls))
    fields = reader.lifts(parts[0])
    value = make(**dict(zip(shape.fields, fields, strict=True)))
    if make is not cls:
        _force(value, "__class__", cls)
    if shape.has_dict:
        value.__dict__.update(_lift_attributes(reader, parts[1]))
    return value


def _without_post_init(cls: Any) -> Any:
    """Return a class whose instances can become instances of `cls`.

    msgspec has no other way to make a Struct without running its ``__post_init__``.
    """
    body = {"__post_init__": lambda self: None}
    return type(cls)(cls.__name__, (cls,), body, frozen=cls.__struct_config__.frozen)


def _write_tuple(writer: Writer, value: Any, shape: Shape) -> _Parts:
    if len(value) != len(shape.fields):
        raise Unstorable(type(value), "it does not have as many items as fields")
    if shape.has_dict and _get(value, "__dict__"):
        raise Unstorable(type(value), "a named tuple with further attributes")
    return writer.nodes(value, list(tuple.__iter__(value)), _by_name(shape.fields))


def _read_tuple(reader: Reader, cls: Any, shape: Shape, parts: _Parts) -> Any:
    if len(parts) != len(shape.fields):
        raise CodecError(f"{shape.qualname} has other fields")
    return tuple.__new__(cls, reader.lifts(parts))


def _write_enum(writer: Writer, value: Any, shape: Shape) -> _Parts:
    cls = type(value)
    name = value._name_
    if name is not None and cls._member_map_.get(name) is value:
        return [name]
    if issubclass(cls, enum.Flag) and _stock_flag(cls):
        return [None, writer.lower(value._value_)]
    raise Unstorable(cls, "it is not one of the members")


def _read_enum(reader: Reader, cls: Any, shape: Shape, parts: _Parts) -> Any:
    if parts[0] is not None:
        return cls._member_map_[parts[0]]
    number = reader.lift(parts[1])
    if type(number) is not int or not _stock_flag(cls):
        raise CodecError(f"{shape.qualname} has no such member")
    return cls(number)


def _stock_flag(cls: Any) -> bool:
    """Whether combining flags of `cls` runs nothing but the standard library."""
    return type(cls) is enum.EnumMeta and all(
        base.__module__ == "enum"
        for base in cls.__mro__
        if "_missing_" in vars(base) or "_create_pseudo_member_" in vars(base)
    )


_WRITE = {
    "dataclass": _write_state,
    "pydantic": _write_pydantic,
    "attrs": _write_state,
    "struct": _write_struct,
    "namedtuple": _write_tuple,
    "enum": _write_enum,
}
_READ = {
    "dataclass": _read_state,
    "pydantic": _read_pydantic,
    "attrs": _read_state,
    "struct": _read_struct,
    "namedtuple": _read_tuple,
    "enum": _read_enum,
}


def _object_writer(cls: type) -> Write | None:
    return None if shape_of(cls) is None else _write_object


def _write_object(writer: Writer, value: Any) -> Node:
    cls = type(value)
    shape = shape_of(cls)
    if shape is None:
        raise Unstorable(cls, "it has changed meanwhile")
    index = writer.classes.get(shape.description)
    if index is None:
        check_found(cls, shape)
        index = writer.index(shape.description)
    return [_OBJECT, index, *_WRITE[shape.kind](writer, value, shape)]


def _read_object(reader: Reader, node: list[Node]) -> Any:
    index = node[1]
    found = reader.found.get(index)
    if found is None:
        found = reader.found[index] = shape_named(reader.classes[index])
    shape, cls = found
    return _READ[shape.kind](reader, cls, shape, node[2:])


FALLBACKS.append(_object_writer)
READERS[_OBJECT] = _read_object
