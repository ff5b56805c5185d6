"""How entries lie in Redis, and the commands for it; who carries them there is another matter.

::

    <prefix>:e:<key in hexadecimal>   a hash: "m" what entries are searched by, and the block
    <prefix>:l:<key in hexadecimal>   the token of whoever computes the key
    <prefix>:n:<room>                 a hash of notes
    <prefix>:epoch                    a number that grows with every removal

An entry expires by itself, at the end of its stale windows and a minute later: the clocks of
machines differ. There is no index beside the entries that could say something else than they do;
who looks for a type, a tag or an age goes through all of them, in steps.
"""

from __future__ import annotations

import base64
import json
from math import isfinite
from typing import Any, NamedTuple

from memoleo._entry import Entry

__all__ = ["Command", "Found", "Names", "block_of", "found_in", "store_commands"]

Command = tuple[Any, ...]
"""A command of Redis and its arguments: text, bytes or numbers."""

SLACK = 60.0
"""Seconds that an entry stays after it is of no use: clocks differ."""

_LONGEST = 10 * 365 * 86400.0
"""Seconds beyond which an entry is kept until it is removed."""


class Names:
    """The names of one cache's keys in a server that others may use as well.

    Parameters
    ----------
    prefix
        what all of them begin with
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.epoch = f"{prefix}:epoch"
        escaped = "".join(f"\\{letter}" if letter in "*?[]^-\\" else letter for letter in prefix)
        self.pattern = f"{escaped}:e:*"
        self._start = len(f"{prefix}:e:")

    def entry(self, key: bytes) -> str:
        """Return where an entry lies."""
        return f"{self.prefix}:e:{key.hex()}"

    def lease(self, key: bytes) -> str:
        """Return where a lease lies."""
        return f"{self.prefix}:l:{key.hex()}"

    def room(self, room: str) -> str:
        """Return where notes lie."""
        return f"{self.prefix}:n:{room}"

    def key(self, name: bytes) -> bytes:
        """Return the key of an entry from where it lies."""
        return bytes.fromhex(name.decode()[self._start :])


class Found(NamedTuple):
    """What an entry is searched by.

    Parameters
    ----------
    name
        where it lies
    type, tags, label, created, expires, size
        as in `Entry`
    """

    name: bytes
    type: str
    tags: tuple[str, ...]
    label: str
    created: float
    expires: float
    size: int

    def matches(
        self,
        type: str | None = None,
        tag: str | None = None,
        label: str | None = None,
        before: float | None = None,
        expired: float | None = None,
    ) -> bool:
        """Whether it meets every given condition; see `Backend.clear`."""
        return (
            (type is None or self.type == type)
            and (tag is None or tag in self.tags)
            and (label is None or self.label == label)
            and (before is None or self.created < before)
            and (expired is None or self.expires <= expired)
        )


def found_in(name: bytes, row: bytes | None) -> Found | None:
    """Read what stands beside an entry; `None` if it has gone, or can't be read."""
    if row is None:
        return None
    try:
        type, tags, label, created, expires, size = json.loads(row)
        until = float("inf") if expires is None else float(expires)
        return Found(name, type, tuple(tags), label, float(created), until, int(size))
    except (TypeError, ValueError):
        return None


def store_commands(name: str, key: bytes, entry: Entry, now: float, *, text: bool) -> list[Command]:
    """Return what stores an entry, to be carried out as one.

    Parameters
    ----------
    name
        where
    key, entry
        what
    now
        seconds since the epoch
    text
        whether the way to the server carries text only
    """
    expires = entry.expires
    row = json.dumps(
        [entry.type, entry.tags, entry.label, entry.created,
         expires if isfinite(expires) else None, entry.size]
    )  # fmt: skip
    block: Any = entry.to_bytes(key)
    fields = ("t", base64.b64encode(block).decode()) if text else ("b", block)
    seconds = max(0.0, expires - now) + SLACK
    life: Command = ("PERSIST", name)
    if seconds < _LONGEST:
        life = ("PEXPIRE", name, int(seconds * 1000))
    return [
        ("HMGET", name, "m"),
        ("HDEL", name, "b" if text else "t"),
        ("HSET", name, "m", row, *fields),
        life,
    ]


def block_of(row: list[bytes | None]) -> bytes | None:
    """Return the block of an entry from its two fields, of which one is there; `None` if none is.

    Raises
    ------
    ValueError
        it is no text that stands for bytes
    """
    block, text = row
    if block is not None or text is None:
        return block
    return base64.b64decode(text, validate=True)
