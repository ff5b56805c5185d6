"""What turns values into bytes and back."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

__all__ = ["Codec"]


@runtime_checkable
class Codec(Protocol):
    """Turns a value into bytes, and the bytes into an equal value of the same type.

    Every `decode` builds a new value that shares nothing with any other.
    """

    @property
    def name(self) -> str:
        """The name that entries carry; another codec never reads them."""
        ...

    def encode(self, value: Any) -> bytes:
        """Return the bytes of `value`.

        Raises
        ------
        CodecError
            the value has no exact form
        """
        ...

    def decode(self, payload: bytes) -> Any:
        """Return the value that `encode` was given.

        Raises
        ------
        CodecError
            the payload can't be read by this program
        """
        ...
