"""One stored result: the encoded value and what is needed to judge and to check it."""

from __future__ import annotations

from math import inf

import msgspec
import xxhash

from memoleo.errors import CorruptEntry

__all__ = ["COPIED", "SEAL", "Entry", "checksum", "decode_body", "encode_body"]


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
        what its key was made of, as digests; see `memoleo._flow.parts`
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
        body = encode_body(self)
        return checksum(body, _seed(key)) + body

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
            body = block[SEAL:] if len(block) < COPIED else memoryview(block)[SEAL:]
            if checksum(body, _seed(key)) == block[:SEAL]:
                return decode_body(body)
        except (msgspec.MsgspecError, TypeError, ValueError) as error:
            # No more than these: a time limit by a signal may raise here as well.
            raise CorruptEntry(f"unreadable block under {key.hex()}: {error}") from None
        raise CorruptEntry(f"checksum mismatch under {key.hex()}")


SEAL = 16
"""Bytes of the checksum in front of a block: that of the rest, seeded with the key's own hash."""

COPIED = 16_384
"""Bytes of a block below which its seal is cut off more quickly by a copy than by a view."""

encode_body = msgspec.msgpack.Encoder().encode
decode_body = msgspec.msgpack.Decoder(Entry).decode
checksum = xxhash.xxh3_128_digest
_seed = xxhash.xxh3_64_intdigest
