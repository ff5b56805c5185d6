"""Entries as they are shown to people, where a cache's own codec can't read them.

Answers of a library are stored by a codec that makes the library's objects again, for the call that
asks. Who looks through a store gets plain data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memoleo.errors import CodecError

__all__ = ["Reader", "reader_of", "show_with"]


class Reader:
    """A codec that only reads.

    Parameters
    ----------
    name
        of the codec that wrote
    decode
        returns what a payload holds, as plain data
    """

    def __init__(self, name: str, decode: Callable[[bytes], Any]) -> None:
        self.name = name
        self._decode = decode

    def encode(self, value: Any) -> bytes:
        """Refuse: see `Codec.encode`."""
        raise CodecError(f"the codec {self.name!r} is only read here")

    def decode(self, payload: bytes) -> Any:
        """Return plain data: see `Codec.decode`."""
        return self._decode(payload)


_READERS: dict[str, Reader] = {}


def show_with(name: str, decode: Callable[[bytes], Any]) -> None:
    """Declare how entries of a codec are shown."""
    _READERS[name] = Reader(name, decode)


def reader_of(name: str) -> Reader | None:
    """Return what shows entries of a codec, if its module is in use."""
    return _READERS.get(name)
