"""Exact trees for numpy's arrays and scalars: their memory, without a detour through lists.

numpy is not imported here: a program that holds an array has it, and one that does not has no
use for what was stored.
"""

from __future__ import annotations

import sys
from math import prod
from typing import Any

from msgspec.msgpack import Ext

from memoleo.codecs._tree import (
    BUFFER,
    FALLBACKS,
    READERS,
    WRITERS,
    Node,
    Reader,
    Unstorable,
    Write,
    Writer,
)
from memoleo.errors import CodecError

__all__: list[str] = []

# The tags are part of the stored format.
_ARRAY, _OBJECTS, _SCALAR, _DTYPE = 60, 61, 62, 63


def _numpy() -> Any:
    numpy = sys.modules.get("numpy")
    if numpy is None:
        raise CodecError("the value is made with numpy, which this program does not use")
    return numpy


def _describe(writer: Writer, dtype: Any) -> Node:
    """Return content from which `_dtype` makes an equal dtype."""
    if dtype.names is None and dtype.subdtype is None:
        described: Any = dtype.str
        node = described
    else:
        described = _numpy().lib.format.dtype_to_descr(dtype)
        node = writer.lower(described)
    try:
        same = not dtype.hasobject and _restore(described) == dtype
    except (TypeError, ValueError):
        same = False
    if not same:
        raise Unstorable(type(dtype), f"the dtype {dtype} has no portable description")
    return node


def _restore(described: Any) -> Any:
    numpy = _numpy()
    if type(described) is str:
        return numpy.dtype(described)
    return numpy.lib.format.descr_to_dtype(described)


def _dtype(reader: Reader, node: Node) -> Any:
    dtype = _restore(reader.lift(node))
    if dtype.hasobject:
        raise CodecError("raw memory can't hold objects")
    return dtype


def _write_array(writer: Writer, value: Any) -> Node:
    order = "F" if value.flags.fnc else "C"
    shape = list(value.shape)
    if value.dtype.kind == "O":
        flat = value.ravel(order).tolist()
        return [_OBJECTS, shape, order, *writer.nodes(value, flat, lambda i: f".flat[{i}]")]
    description = _describe(writer, value.dtype)
    data: Any = b""
    if value.nbytes:
        # A flat view of bytes: memory is contiguous now, and every dtype can be seen that way.
        data = value.ravel(order).view(_numpy().uint8).data
    return [_ARRAY, description, shape, order, Ext(BUFFER, data)]


def _shape(numbers: Any) -> tuple[int, ...]:
    if type(numbers) is not list or {*map(type, numbers)} - {int} or any(n < 0 for n in numbers):
        raise CodecError("not the shape of an array")
    return tuple(numbers)


def _read_array(reader: Reader, node: list[Node]) -> Any:
    _, description, numbers, order, data = node
    numpy, dtype, shape = _numpy(), _dtype(reader, description), _shape(numbers)
    if type(data) is not memoryview or prod(shape) * dtype.itemsize != data.nbytes:
        raise CodecError("an array of another size")
    if not data.nbytes:
        return numpy.empty(shape, dtype, order)
    # The view keeps no copy; the result owns its memory, aligned and writable.
    return numpy.ndarray(shape, dtype, data, order=order).copy("K")


def _read_objects(reader: Reader, node: list[Node]) -> Any:
    _, numbers, order, *nodes = node
    numpy, shape = _numpy(), _shape(numbers)
    if prod(shape) != len(nodes):
        raise CodecError("an array of another size")
    flat = numpy.empty(len(nodes), object)
    for index, item in enumerate(reader.lifts(nodes)):
        flat[index] = item
    return flat.reshape(shape, order=order)


def _write_scalar(writer: Writer, value: Any) -> Node:
    dtype = value.dtype
    # Texts lose their trailing zeros in an array, and in numpy's own conversions too.
    if dtype.kind == "U":
        return [_SCALAR, "U", writer.lower(str.__str__(value))]
    if dtype.kind == "S":
        return [_SCALAR, "S", bytes.__getitem__(value, slice(None))]
    return [_SCALAR, _describe(writer, dtype), value.tobytes()]


def _read_scalar(reader: Reader, node: list[Node]) -> Any:
    _, description, data = node
    numpy = _numpy()
    if description == "U":
        return numpy.str_(reader.lift(data))
    if description == "S":
        return numpy.bytes_(data)
    dtype = _dtype(reader, description)
    if type(data) is not bytes or len(data) != dtype.itemsize:
        raise CodecError("a scalar of another size")
    return numpy.frombuffer(data, dtype).copy()[0] if data else dtype.type()


def _write_dtype(writer: Writer, value: Any) -> Node:
    return [_DTYPE, _describe(writer, value)]


def _numpy_writer(kind: type) -> Write | None:
    numpy = sys.modules.get("numpy")
    if numpy is None or kind.__module__.partition(".")[0] != "numpy":
        return None
    if kind is numpy.ndarray:
        WRITERS.setdefault(kind, _write_array)
        return _write_array
    # Only numpy's own scalar types: a subclass would come back as its base.
    if issubclass(kind, numpy.generic) and kind is not numpy.generic:
        return _write_scalar
    if issubclass(kind, numpy.dtype):
        return _write_dtype
    return None


FALLBACKS.append(_numpy_writer)
READERS[_ARRAY] = _read_array
READERS[_OBJECTS] = _read_objects
READERS[_SCALAR] = _read_scalar
READERS[_DTYPE] = lambda reader, node: _dtype(reader, node[1])
