"""The exact lane: every value that is not plain data, as a tree in MessagePack.

It is loaded when the first such value is met, since it imports much of the standard library.
"""

from __future__ import annotations

from typing import Any

import msgspec

# These register what they know about their types.
from memoleo.codecs import _arrays, _containers, _objects, _register, _scalars  # noqa: F401
from memoleo.codecs._tree import BUFFER, Reader, Unstorable, Writer
from memoleo.errors import CodecError

__all__ = ["decode_tagged", "encode_tagged"]

WAYS_OUT = (
    'register the type with memoleo.codecs.register(), use codec="pickle", '
    "or leave such results out with cache_if"
)


def _extension(code: int, data: memoryview) -> memoryview:
    if code != BUFFER:
        raise CodecError(f"unknown extension {code}")
    return data


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ext_hook=_extension).decode


def encode_tagged(value: Any, careful: bool = False) -> bytes:
    """Return the tree of `value` as bytes.

    Parameters
    ----------
    careful
        whether an integer or a text in it is known not to fit MessagePack

    Raises
    ------
    CodecError
        something in the value has no exact form
    """
    writer = Writer(careful)
    try:
        tree = writer.lower(value)
        return _encode([tree, list(writer.classes)])
    except (OverflowError, UnicodeEncodeError):
        if careful:
            raise
        return encode_tagged(value, careful=True)
    except Unstorable as error:
        place = "".join(reversed(error.path))
        name = f"{error.kind.__module__}.{error.kind.__qualname__}".removeprefix("builtins.")
        raise CodecError(
            f"{place + ': ' if place else ''}{name} can't be stored: {error.reason}. "
            f"Ways out: {WAYS_OUT}."
        ) from None
    except RecursionError:
        raise CodecError("the value is nested too deeply to be stored") from None


def decode_tagged(body: memoryview) -> Any:
    """Return the value whose tree `encode_tagged` wrote."""
    tree, classes = _decode(body)
    return Reader(classes).lift(tree)
