"""One stored result: the encoded value and what is needed to judge and to check it."""

from __future__ import annotations

from math import inf

import msgspec
import xxhash

from memoleo.errors import CorruptEntry

__all__ = ["Entry"]


class Entry(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A stored result.

    Entries are immutable and hold bytes only, so one instance can be handed to any number of
    callers: each decodes a copy of its own.

    Parameters
    ----------
    payload
        the encoded value
    codec
        the name of the codec that wrote the payload
    created
        when the value was computed, in seconds since the epoch
    ttl
        how long it was meant to be fresh, in seconds; infinity for ever
    keep
        how many seconds past its TTL it may still be served stale
    type
        the category
    tags
        names for clearing in groups
    cost_ms
        what computing it took, in milliseconds
    tokens
        how many tokens a model spent on it
    label
        what computed it, for people: a qualified name
    parts
        what its key was made of, as digests; see `memoleo._parts`
    """

    payload: bytes
    codec: str
    created: float
    ttl: float = inf
    keep: float = 0.0
    type: str = "default"
    tags: tuple[str, ...] = ()
    cost_ms: float = 0.0
    tokens: int = 0
    label: str = ""
    parts: bytes = b""

    @property
    def expires(self) -> float:
        """When it may be removed, in seconds since the epoch; infinity for never."""
        return self.created + self.ttl + self.keep

    @property
    def size(self) -> int:
        """The number of bytes that count against a store's limit."""
        return len(self.payload) + len(self.parts) + 128

    def to_bytes(self, key: bytes) -> bytes:
        """Return the entry as one block, with a checksum over it and the key in front."""
        body = _encode(self)
        return _digest(body, _seed(key)) + body

    @classmethod
    def from_bytes(cls, key: bytes, block: bytes) -> Entry:
        """Read what `to_bytes` wrote.

        A backend calls it wherever bytes came from outside the process.

        Raises
        ------
        CorruptEntry
            the block is not an entry, or not the one that was stored under `key`
        """
        try:
            body = block[_SEAL:] if len(block) < _COPIED else memoryview(block)[_SEAL:]
            if _digest(body, _seed(key)) == block[:_SEAL]:
                return _decode(body)
        except Exception as error:
            raise CorruptEntry(f"unreadable block under {key.hex()}: {error}") from None
        raise CorruptEntry(f"checksum mismatch under {key.hex()}")


_SEAL = 16
_COPIED = 16_384  # below it, cutting off the seal is cheaper by a copy than by a view

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode
_digest = xxhash.xxh3_128_digest
_seed = xxhash.xxh3_64_intdigest
