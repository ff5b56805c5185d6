"""One stored result: the encoded value and what is needed to judge and to check it."""

from __future__ import annotations

import struct
from math import inf

import msgspec
import xxhash

from memoleo.errors import CorruptEntry

__all__ = ["Entry"]

_NUMBERS = struct.Struct("<dddd")


class Entry(msgspec.Struct, frozen=True, gc=False):
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
    checksum
        XXH3-128 over the key, the payload and every field that decides how it is used
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
    checksum: bytes = b""

    def sealed(self, key: bytes) -> Entry:
        """Return this entry with the checksum that belongs to it under `key`."""
        return msgspec.structs.replace(self, checksum=self._digest(key))

    def verify(self, key: bytes) -> Entry:
        """Return this entry if its checksum holds under `key`.

        A backend calls it wherever bytes came from outside the process.

        Raises
        ------
        CorruptEntry
            the bytes, or the key that they are stored under, are not those that were written
        """
        if self._digest(key) != self.checksum:
            raise CorruptEntry(f"checksum mismatch under {key.hex()}")
        return self

    @property
    def expires(self) -> float:
        """When it may be removed, in seconds since the epoch; infinity for never."""
        return self.created + self.ttl + self.keep

    @property
    def size(self) -> int:
        """The number of bytes that count against a store's limit."""
        return len(self.payload) + 128

    def to_bytes(self) -> bytes:
        """Return the whole entry as one block, for stores that keep only bytes."""
        return _encode(self)

    @classmethod
    def from_bytes(cls, key: bytes, block: bytes) -> Entry:
        """Read what `to_bytes` wrote, and verify it.

        Raises
        ------
        CorruptEntry
            the block is not an entry, or not the one that was stored under `key`
        """
        try:
            entry = _decode(block)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise CorruptEntry(f"unreadable block under {key.hex()}: {error}") from None
        return entry.verify(key)

    def _digest(self, key: bytes) -> bytes:
        numbers = _NUMBERS.pack(self.created, self.ttl, self.keep, self.cost_ms)
        names = f"{self.codec}\0{self.type}\0{self.tokens}".encode("utf-8", "surrogatepass")
        seed = xxhash.xxh3_64_intdigest(b"".join((key, numbers, names)))
        return xxhash.xxh3_128_digest(self.payload, seed)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode
