"""The default codec: every value with content, exact to the type, without pickle.

A payload of plain data is MessagePack and nothing else. The byte 0xC1, which MessagePack never
uses, introduces the other kinds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from memoleo.codecs._plain import decode_plain, encode_plain, is_plain
from memoleo.errors import CodecError

__all__ = ["ESCAPE", "AutoCodec"]

ESCAPE = 0xC1
"""The first byte of every payload that is not plain MessagePack."""
_TAGGED = b"\xc1\x01"
_COMPRESSED = b"\xc1\x02"
_LARGE = 16 * 1024


class AutoCodec:
    """Stores plain data, and everything in `values` beyond it, exactly.

    What is stored and how exactly: see "What can be stored" in the documentation.
    """

    name: str = "auto"

    def encode(self, value: Any) -> bytes:
        """Return the bytes of `value`.

        Raises
        ------
        CodecError
            the value has no exact form; the message says where in it and what to do
        """
        try:
            try:
                payload = encode_plain(value) if is_plain(value) else _tagged(value)
            except (OverflowError, UnicodeEncodeError):
                # An integer beyond MessagePack's, or half of a surrogate pair.
                payload = _tagged(value)
            if len(payload) < _LARGE:
                return payload
            packed = _packing()[0](payload)
        except CodecError:
            raise
        except Exception as error:
            raise CodecError(f"{type(value).__qualname__} can't be stored: {error!r}") from error
        return payload if packed is None else _COMPRESSED + packed

    def decode(self, payload: bytes) -> Any:
        """Return a new value equal to the one that `encode` was given, of the same type.

        Raises
        ------
        CodecError
            this program can't read the payload
        """
        try:
            if payload[0] != ESCAPE:
                return decode_plain(payload)
            return _decode_framed(memoryview(payload))
        except CodecError:
            raise
        except Exception as error:
            raise CodecError(f"the payload can't be read: {error!r}") from error


def _tagged(value: Any) -> bytes:
    return _TAGGED + _exact()[0](value)


def _decode_framed(payload: memoryview) -> Any:
    if payload[1] == _COMPRESSED[1]:
        payload = memoryview(_packing()[1](payload[2:]))
        if payload[0] != ESCAPE:
            return decode_plain(payload)
    if payload[1] != _TAGGED[1]:
        raise CodecError("the payload is of a kind that this version does not know")
    return _exact()[1](payload[2:])


@cache
def _exact() -> tuple[Callable[[Any], bytes], Callable[[memoryview], Any]]:
    # It imports much of the standard library, which a program of plain data never needs.
    from memoleo.codecs._tagged import decode_tagged, encode_tagged

    return encode_tagged, decode_tagged


@cache
def _packing() -> tuple[Callable[[bytes], bytes | None], Callable[[memoryview], bytes]]:
    from memoleo.codecs._compress import compress, decompress

    return compress, decompress
