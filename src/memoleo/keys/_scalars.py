"""Values without parts: a tag, a length where it varies, and the value."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

__all__ = ["LEAVES", "Put", "frame", "size"]

Put = Callable[[Any], object]

# Longer text is handed on as it is instead of being copied next to its length.
_LONG = 4096

_double = struct.Struct(">d").pack
_NAN = bytes.fromhex("7ff8000000000000")

size = struct.Struct("<Q").pack


def frame(text: str | bytes) -> bytes:
    """Return `text` with its length in front, so that neighbours can't run into each other."""
    block = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return size(len(block)) + block


_NONE, _TRUE, _FALSE = b"N", b"T", b"F"


def _none(value: None, put: Put) -> None:
    put(_NONE)


def _bool(value: bool, put: Put) -> None:
    put(_TRUE if value else _FALSE)


def _int(value: int, put: Put) -> None:
    length = int.bit_length(value) // 8 + 1
    put(b"I" + size(length) + int.to_bytes(value, length, "big", signed=True))


def _float(value: float, put: Put) -> None:
    put(b"D" + (_double(value) if value == value else _NAN))


def _complex(value: complex, put: Put) -> None:
    put(b"C")
    _float(complex.__dict__["real"].__get__(value), put)
    _float(complex.__dict__["imag"].__get__(value), put)


def _str(value: str, put: Put) -> None:
    block = str.encode(value, "utf-8", "surrogatepass")
    if len(block) < _LONG:
        put(b"S" + size(len(block)) + block)
    else:
        put(b"S" + size(len(block)))
        put(block)


def _bytes(value: bytes, put: Put) -> None:
    put(b"B" + size(bytes.__len__(value)))
    put(value)


def _bytearray(value: bytearray, put: Put) -> None:
    # A copy: the caller may change it before the pieces are hashed.
    block = bytearray.__getitem__(value, slice(None))
    put(b"A" + size(len(block)))
    put(block)


def _ellipsis(value: Any, put: Put) -> None:
    put(b"P")


def _not_implemented(value: Any, put: Put) -> None:
    put(b"Q")


LEAVES: dict[type, Callable[[Any, Put], None]] = {
    type(None): _none,
    bool: _bool,
    int: _int,
    float: _float,
    complex: _complex,
    str: _str,
    bytes: _bytes,
    bytearray: _bytearray,
    type(Ellipsis): _ellipsis,
    type(NotImplemented): _not_implemented,
}
