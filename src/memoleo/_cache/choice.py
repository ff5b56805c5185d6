"""Which entries are meant: what of a store is looked at, exported or loaded."""

from __future__ import annotations

import msgspec

from memoleo._entry import Entry
from memoleo._units import Duration, parse_duration, parse_size
from memoleo.errors import ConfigError
from memoleo.keys._address import Key

__all__ = ["Choice", "Loaded", "Loading", "choose"]


class Choice(msgspec.Struct, frozen=True):
    """Conditions on entries, all of which must hold; `None` for no condition.

    Parameters
    ----------
    type, tag, label
        what they were stored under
    older, newer
        seconds that they are older than, or at most old
    larger
        bytes that they take at least
    key
        what the text of their key begins with
    fresh
        whether they are within their TTL
    """

    type: str | None = None
    tag: str | None = None
    label: str | None = None
    older: float | None = None
    newer: float | None = None
    larger: int | None = None
    key: str | None = None
    fresh: bool | None = None

    def takes(self, key: bytes, entry: Entry, now: float) -> bool:
        """Whether an entry is meant whose type, tag and label are known to be."""
        age = now - entry.created
        return (
            (self.older is None or age > self.older)
            and (self.newer is None or age <= self.newer)
            and (self.larger is None or entry.size >= self.larger)
            and (self.fresh is None or (0.0 <= age < entry.ttl) == self.fresh)
            and (self.key is None or Key.of(key).startswith(self.key))
        )

    def matches(self, key: bytes, entry: Entry, now: float) -> bool:
        """Whether an entry is meant."""
        return (
            (self.type is None or entry.type == self.type)
            and (self.tag is None or self.tag in entry.tags)
            and (self.label is None or entry.label == self.label)
            and self.takes(key, entry, now)
        )


def choose(
    type: str | None = None,
    tag: str | None = None,
    label: str | None = None,
    older_than: Duration | None = None,
    newer_than: Duration | None = None,
    larger_than: int | str | None = None,
    key: str | None = None,
    fresh: bool | None = None,
) -> Choice:
    """Return the choice that users' arguments describe.

    Raises
    ------
    ConfigError
        one of them is wrong
    """
    for name, value in (("type", type), ("tag", tag), ("label", label), ("key", key)):
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"{name}={value!r} is not text")
    return Choice(
        type,
        tag,
        label,
        None if older_than is None else parse_duration(older_than, "older_than"),
        None if newer_than is None else parse_duration(newer_than, "newer_than"),
        None if larger_than is None else parse_size(larger_than, "larger_than"),
        key if key is None or key.startswith("m1-") else f"m1-{key}",
        fresh,
    )


class Loaded(int):
    """How many entries `Cache.load` stored, and what became of the others.

    Attributes
    ----------
    kept
        entries of the file that gave way to what was there
    expired
        entries of the file that are of no use any more
    damaged
        parts of the file that could not be read
    """

    kept = 0
    expired = 0
    damaged = 0


class Loading(msgspec.Struct):
    """A `Loaded` in the making."""

    stored: int = 0
    kept: int = 0
    expired: int = 0
    damaged: int = 0

    def done(self) -> Loaded:
        """Return the sums."""
        loaded = Loaded(self.stored)
        loaded.kept, loaded.expired, loaded.damaged = self.kept, self.expired, self.damaged
        return loaded
