"""Notes and removals that a process remembers: the `Notebook` of a store without a file."""

from __future__ import annotations

import time
from typing import Any

__all__ = ["Notes"]

_MOST_NOTES = 512
_MOST_GONE = 4096


class Notes:
    """A bounded `Notebook`. It takes no lock: whoever loses a race loses a note."""

    def __init__(self) -> None:
        self._rooms: dict[str, dict[bytes, bytes]] = {}
        self._gone: dict[bytes, tuple[float, str]] = {}

    def note(self, room: str, name: bytes, block: bytes) -> None:
        """See `Notebook.note`."""
        notes = self._rooms.setdefault(room, {})
        notes.pop(name, None)
        notes[name] = block
        _shorten(notes, _MOST_NOTES)

    def notes(self, room: str) -> list[tuple[bytes, bytes]]:
        """See `Notebook.notes`."""
        return list(reversed(list(self._rooms.get(room, {}).items())))

    def gone(self, key: bytes) -> tuple[float, str] | None:
        """See `Notebook.gone`."""
        return self._gone.get(key)

    def gave_up(self, key: bytes, why: str = "evicted") -> None:
        """Remember that an entry was given up just now."""
        gone = self._gone
        gone[key] = (time.time(), why)
        _shorten(gone, _MOST_GONE)


def _shorten(found: dict[bytes, Any], most: int) -> None:
    while len(found) > most:
        try:
            del found[next(iter(found))]
        except (KeyError, RuntimeError, StopIteration):
            return
