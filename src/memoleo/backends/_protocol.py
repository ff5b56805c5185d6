"""What a store must do to keep memoleo's entries.

The contract is small and speaks in immutable `Entry` records under keys of bytes. A backend
knows nothing about functions, freshness or codecs. `memoleo.testing.BackendContract` proves that
a backend of your own keeps it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import msgspec

from memoleo._entry import Entry

__all__ = ["Backend", "BackendStats", "Lease", "Notebook", "place_of"]


class BackendStats(msgspec.Struct, frozen=True):
    """What a store holds right now.

    Parameters
    ----------
    entries
        number of entries, expired ones that were not swept yet included
    bytes
        their size in bytes, as it counts against the store's limit
    by_type
        entries per type
    evicted
        entries that this process removed for lack of room
    details
        what else the store wants to say, for people (``{"path": …}``)
    """

    entries: int = 0
    bytes: int = 0
    by_type: dict[str, int] = {}
    evicted: int = 0
    details: dict[str, str | int | float | None] = {}


@runtime_checkable
class Lease(Protocol):
    """The right to compute one key, held until it is released or its owner dies."""

    def release(self) -> None:
        """Give the key free. Releasing twice is harmless."""
        ...


@runtime_checkable
class Backend(Protocol):
    """A place where entries live.

    Every method may be called from any thread, and from a child after `fork`. A method that
    fails raises; it never answers wrongly. No method waits longer than a fraction of a second.
    """

    @property
    def remote(self) -> bool:
        """Whether a call may wait for a network: then async code calls it in a thread."""
        ...

    def get(self, key: bytes) -> Entry | None:
        """Return the entry under `key`, expired or not (freshness is judged by the reader).

        `None` means absent; it can't be mistaken for a value, since values live inside entries.

        Raises
        ------
        CorruptEntry
            something is stored there, but it doesn't verify
        """
        ...

    def set(self, key: bytes, entry: Entry) -> None:
        """Store `entry`, whole or not at all, replacing what was there.

        An entry that is too large for the store is dropped in silence, together with an older
        one under the same key: an outdated answer must not survive.
        """
        ...

    def delete(self, key: bytes) -> bool:
        """Remove the entry under `key`; whether there was one."""
        ...

    def clear(
        self,
        *,
        type: str | None = None,
        tag: str | None = None,
        label: str | None = None,
        before: float | None = None,
    ) -> int:
        """Remove the entries that match every given condition; how many there were.

        `before` is a time of creation in seconds since the epoch. Without a condition, all go.
        """
        ...

    def clear_expired(self, now: float) -> int:
        """Remove entries whose `Entry.expires` is not after `now`; how many there were."""
        ...

    def entries(
        self, *, type: str | None = None, tag: str | None = None, label: str | None = None
    ) -> Iterator[tuple[bytes, Entry]]:
        """Iterate over what is stored, most recently created first, skipping what is corrupt.

        What changes during the iteration may or may not be seen; nothing is locked meanwhile.
        """
        ...

    def stats(self) -> BackendStats:
        """Say what is stored."""
        ...

    def lease(self, key: bytes) -> Lease | None:
        """Try to become the one who computes `key`, without waiting; `None` if another is.

        A lease dies with its process, however that ends. A store that is private to one process
        always grants it: callers of one process already wait for one another.
        """
        ...

    def close(self) -> None:
        """Release connections and files. Closing twice is harmless; a later use reopens."""
        ...


@runtime_checkable
class Notebook(Protocol):
    """What a backend may do besides: keep notes, and remember what it had to give up.

    Notes are small blocks about entries and calls, such as what a function consisted of when its
    entries were stored. They are no entries: nothing counts, lists or clears them, and of each
    room only the last few hundred are kept.
    """

    def note(self, room: str, name: bytes, block: bytes) -> None:
        """Keep a block under a name, in place of an older one."""
        ...

    def notes(self, room: str) -> list[tuple[bytes, bytes]]:
        """Return the notes of a room, most recent first: their names and blocks."""
        ...

    def gone(self, key: bytes) -> tuple[float, str] | None:
        """Say when an entry was given up (seconds since the epoch), and why.

        The reason is "evicted" (for lack of room) or "expired". `None` means that it is not known:
        it may never have been stored, have been removed on request, or be forgotten by now.
        """
        ...


def place_of(backend: Backend) -> str | None:
    """Return what names the file or the server that a store shares with others, if it has one.

    Parameters
    ----------
    backend
        a store with a `place`, or a `path` of a file; of tiers, the farthest counts
    """
    try:
        tiers = getattr(backend, "tiers", None)
        farthest = tiers[-1] if tiers else backend
        path = getattr(farthest, "path", None)
        place = getattr(farthest, "place", None) if path is None else os.path.abspath(path)
        return None if place is None else str(place)
    except Exception:
        # A backend of somebody's own may have such an attribute for another purpose, or break.
        return None
