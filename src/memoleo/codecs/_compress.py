"""Compression of payloads, where it pays.

A hit pays for it with time: even the fastest decompression costs more than decoding what is
smaller than a few pages. So small payloads stay as they are, and so do those of which a sample
shrinks too little: noise, images (in base64 they shrink by a quarter, for 20 ms per MB), and
lists of floats, which take longer to decompress than to decode.
"""

from __future__ import annotations

import struct
import zlib

from memoleo.errors import CodecError

__all__ = ["MIN_SIZE", "compress", "decompress"]

MIN_SIZE = 16 * 1024
"""Payloads smaller than this many bytes are never compressed."""

_KEEP = 0.7
_LEVEL = 1
_PIECES, _PIECE = 4, 1024
_LIMIT = 1 << 30
_FLOAT = b"\xcb"
_SIZE = struct.Struct("<Q")


def compress(payload: bytes) -> bytes | None:
    """Return what `decompress` reads, or `None` if that would not pay."""
    size = len(payload)
    if not MIN_SIZE <= size <= _LIMIT:
        return None
    stride = (size - _PIECE) // (_PIECES - 1)
    sample = b"".join([payload[at : at + _PIECE] for at in range(0, size, stride)])
    if sample.count(_FLOAT) * 9 > len(sample) // 2:
        return None
    if len(zlib.compress(sample, _LEVEL)) > len(sample) * _KEEP:
        return None
    packed = zlib.compress(payload, _LEVEL)
    return _SIZE.pack(size) + packed if len(packed) < size * _KEEP else None


def decompress(packed: memoryview) -> bytes:
    """Return the payload that `compress` was given.

    Raises
    ------
    CodecError
        it has another size than it says, or says one that it can't have
    """
    (size,) = _SIZE.unpack_from(packed)
    if size > _LIMIT:
        raise CodecError("a compressed payload that claims an absurd size")
    stream = zlib.decompressobj()
    payload = stream.decompress(packed[_SIZE.size :], size + 1)
    if len(payload) != size or not stream.eof:
        raise CodecError("a compressed payload of another size")
    return payload
