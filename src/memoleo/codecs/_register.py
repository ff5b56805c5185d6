"""Codecs for types of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from memoleo.codecs._tree import READERS, WRITERS, Node, Reader, Writer
from memoleo.errors import CodecError, ConfigError

__all__ = ["register"]

T = TypeVar("T")

# Part of the stored format.
_REGISTERED = 51

_PLAIN = (str, int, float, bool, type(None), bytes, list, dict)


_by_name: dict[tuple[str, str], tuple[type, Callable[[Any], Any]]] = {}


def register(cls: type[T], *, encode: Callable[[T], Any], decode: Callable[[Any], T]) -> None:
    """Say how the values of a class are stored.

    Registering a class again, or one of the same name, replaces what was there. A value that was
    stored can be read only by a program that registers the class too.

    Parameters
    ----------
    cls
        the class; its subclasses are not included
    encode
        returns content that can be stored: plain data, or anything else that memoleo can store
    decode
        is called with an equal copy of that content, and returns the value

    Raises
    ------
    ConfigError
        `cls` is not a class or is one of plain data, or `encode` or `decode` can't be called
    """
    if not issubclass(type(cls), type) or cls in _PLAIN:
        raise ConfigError(f"register() takes a class that is not plain data, not {cls!r}")
    if not all(map(callable, (encode, decode))):
        raise ConfigError(f"register({cls.__qualname__}): encode and decode must be callable")
    module, qualname = cls.__module__, cls.__qualname__

    def write(writer: Writer, value: T) -> Node:
        content = writer.nodes(value, [encode(value)], lambda _: "→encode")
        return [_REGISTERED, module, qualname, *content]

    replaced = _by_name.get((module, qualname))
    if replaced is not None:
        WRITERS.pop(replaced[0], None)
    WRITERS[cls] = write
    _by_name[module, qualname] = (cls, decode)


def _read(reader: Reader, node: list[Node]) -> Any:
    _, module, qualname, content = node
    if (module, qualname) not in _by_name:
        raise CodecError(f"{module}.{qualname} is not registered with memoleo.codecs.register()")
    _, decode = _by_name[module, qualname]
    return decode(reader.lift(content))


READERS[_REGISTERED] = _read
