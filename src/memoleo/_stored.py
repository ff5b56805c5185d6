"""What people see of an entry."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from memoleo._entry import Entry
from memoleo.codecs._protocol import Codec
from memoleo.keys._address import Key

__all__ = ["StoredEntry"]


class StoredEntry(msgspec.Struct, frozen=True):
    """An entry as `Cache.entries` and `peek` show it.

    Parameters
    ----------
    key
        the key as text
    type, tags, label
        what it was stored under, and the qualified name of what computed it
    created
        when, in seconds since the epoch
    ttl
        how many seconds it was meant to be fresh; infinity for ever
    age
        how many seconds old it is
    size
        bytes that it takes
    cost_ms
        milliseconds that computing it took
    tokens
        tokens that a model spent on it
    """

    key: Key
    type: str
    tags: tuple[str, ...]
    label: str
    created: float
    ttl: float
    age: float
    size: int
    cost_ms: float
    tokens: int
    decode: Callable[[], Any]

    @classmethod
    def of(cls, key: bytes, entry: Entry, now: float, codec: Codec) -> StoredEntry:
        """Return how an entry looks at `now`, in seconds since the epoch."""
        return cls(
            Key.of(key),
            entry.type,
            entry.tags,
            entry.label,
            entry.created,
            entry.ttl,
            now - entry.created,
            entry.size,
            entry.cost_ms,
            entry.tokens,
            partial(codec.decode, entry.payload),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, without the value."""
        fields = msgspec.structs.asdict(self)
        del fields["decode"]
        return {**fields, "key": str(self.key), "tags": list(self.tags), "fresh": self.fresh}

    @property
    def value(self) -> Any:
        """The stored value, decoded anew at each access.

        Raises
        ------
        CodecError
            this program can't read it
        """
        return self.decode()

    def __repr__(self) -> str:
        # Values may be private, and large: they don't belong in a log.
        return (
            f"<StoredEntry {self.key} type={self.type!r} label={self.label!r} age={self.age:.0f}>"
        )

    @property
    def fresh(self) -> bool:
        """Whether it is within its TTL."""
        return 0.0 <= self.age < self.ttl
