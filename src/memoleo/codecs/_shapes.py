"""What kind of class a class is, and where its values keep their state.

All of it is read past the class's own ``__getattr__``, properties and other descriptors, so that
looking at a class runs none of its code.
"""

from __future__ import annotations

import enum
import sys
import weakref
from types import MemberDescriptorType
from typing import Any

import msgspec
import xxhash

from memoleo.codecs._classes import check_name, class_named, is_in_place
from memoleo.codecs._tree import Unstorable
from memoleo.errors import CodecError

__all__ = ["Shape", "check_found", "class_attribute", "shape_named", "shape_of"]

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(tuple[str, str, str, int]).decode
_known: dict[bytes, Shape] = {}
_shapes: dict[int, Shape] = {}
STATEFUL = frozenset({"dataclass", "pydantic", "attrs"})
_PYDANTIC_SLOTS = {
    "__pydantic_extra__",
    "__pydantic_fields_set__",
    "__pydantic_private__",
}
_ABSENT: Any = object()
_struct_fields = vars(type(msgspec.Struct))["__struct_fields__"].__get__


class Shape:
    """How the values of one class are taken apart and rebuilt.

    It refers to the class only weakly: a class that a function declares can go.

    Parameters
    ----------
    kind
        ``"dataclass"``, ``"pydantic"``, ``"attrs"``, ``"struct"``, ``"namedtuple"`` or ``"enum"``
    fields
        the declared fields, in order
    slots
        the names of slots that hold state
    has_dict
        whether instances have a ``__dict__``
    """

    __slots__ = ("description", "fields", "has_dict", "kind", "module", "qualname", "ref", "slots")

    def __init__(self, cls: type, kind: str, fields: tuple[str, ...]) -> None:
        self.kind = kind
        self.fields = fields
        self.slots = _slots(cls) if kind in STATEFUL else ()
        self.has_dict = bool(cls.__dictoffset__)
        self.module = cls.__module__
        self.qualname = cls.__qualname__
        fingerprint = xxhash.xxh3_64_intdigest(_pack((fields, sorted(self.slots))))
        self.description = _pack((kind, self.module, self.qualname, fingerprint))
        mark = id(cls)
        self.ref = weakref.ref(cls, lambda _: _shapes.pop(mark, None))


def class_attribute(cls: type, name: str) -> Any:
    """Return an attribute as it stands in the ``__dict__`` of a class or a base, or `None`.

    Neither a metaclass nor a descriptor has a say in it.
    """
    for base in cls.__mro__:
        found = type.__getattribute__(base, "__dict__").get(name, _ABSENT)
        if found is not _ABSENT:
            return found
    return None


def _slots(cls: type) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for base in reversed(cls.__mro__):
        for name, found in type.__getattribute__(base, "__dict__").items():
            if type(found) is MemberDescriptorType:
                names[name] = None
    for name in _PYDANTIC_SLOTS & {*names}:
        # What a RootModel never has is hidden by attributes of the class.
        if name == "__pydantic_fields_set__" or class_attribute(cls, name) is None:
            del names[name]
    for name in names:
        if type(class_attribute(cls, name)) is not MemberDescriptorType:
            raise Unstorable(cls, f"something else hides its slot {name}")
    return tuple(names)


def shape_of(cls: type) -> Shape | None:
    """Return the shape of a class; `None` if its values have no content of a known kind.

    Raises
    ------
    Unstorable
        the class is of a known kind, but its values can't be rebuilt without running its code
    """
    shape = _shapes.get(id(cls))
    if shape is not None and shape.ref() is cls:
        return shape
    found = _kind(cls)
    if found is None:
        return None
    kind, fields = found
    if class_attribute(cls, "__del__") is not None:
        raise Unstorable(cls, "it has a __del__ method, which copies would run")
    if kind == "struct":
        _check_struct(cls)
    if kind in STATEFUL:
        try:
            object.__new__(cls)
        except TypeError:
            raise Unstorable(cls, "it derives from a builtin type") from None
    shape = _shapes[id(cls)] = Shape(cls, kind, fields)
    return shape


def _check_struct(cls: type) -> None:
    if type(cls) is not type(msgspec.Struct):
        raise Unstorable(cls, "its metaclass is not that of msgspec")
    hooks = [class_attribute(cls, name) for name in ("__post_init__", "__init_subclass__")]
    if hooks[0] is not None and hooks[1] is not vars(object)["__init_subclass__"]:
        raise Unstorable(cls, "it has both a __post_init__ and an __init_subclass__")


def _kind(cls: type) -> tuple[str, tuple[str, ...]] | None:
    mro = cls.__mro__
    if issubclass(type(cls), enum.EnumMeta):
        return "enum", ()
    if tuple in mro:
        names = class_attribute(cls, "_fields")
        if type(names) is tuple and {*map(type, names)} <= {str} and class_attribute(cls, "_make"):
            return "namedtuple", names
        return None
    if issubclass(type(cls), type(msgspec.Struct)):
        return "struct", _struct_fields(cls)
    pydantic = sys.modules.get("pydantic.main")
    if pydantic is not None and vars(pydantic).get("BaseModel", _ABSENT) in mro:
        fields = class_attribute(cls, "__pydantic_fields__")
        if fields is None:
            fields = class_attribute(cls, "model_fields")
        return ("pydantic", tuple(fields)) if isinstance(fields, dict) else None
    fields = class_attribute(cls, "__dataclass_fields__")
    if fields is not None:
        return "dataclass", tuple(fields)
    fields = class_attribute(cls, "__attrs_attrs__")
    if fields is not None and "attr" in sys.modules:
        return "attrs", tuple([field.name for field in fields])
    return None


def shape_named(description: bytes) -> tuple[Shape, type]:
    """Return the class that a payload describes, and its shape.

    Raises
    ------
    CodecError
        the program has no class of that name, or it is not of that kind, or has other fields
    """
    shape = _known.get(description)
    if shape is not None:
        cls = shape.ref()
        if cls is not None and is_in_place(cls, shape.module, shape.qualname):
            return shape, cls
    _, module, qualname, _ = _unpack(description)
    cls = class_named(module, qualname)
    try:
        shape = shape_of(cls)
    except Unstorable as error:
        raise CodecError(f"{module}.{qualname}: {error.reason}") from None
    if shape is None or shape.description != description:
        raise CodecError(f"{module}.{qualname} is not the class that was stored, or has changed")
    if len(_known) > 4096:
        _known.clear()
    _known[description] = shape
    return shape, cls


def check_found(cls: type, shape: Shape) -> None:
    """Make sure that values of `cls` can be read again.

    Raises
    ------
    Unstorable
        its name is not its own
    """
    if is_in_place(cls, shape.module, shape.qualname):
        return
    trouble = check_name(cls, shape.module, shape.qualname)
    if trouble is not None:
        raise Unstorable(cls, trouble)
