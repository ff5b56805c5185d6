"""Notes on exceptions, on Python 3.10 too."""

from __future__ import annotations

__all__ = ["add_note"]

_PREFIX = "memoleo: "


def add_note(error: BaseException, note: str) -> None:
    """Do what `add_note` of Python 3.11 does, and once for an error that is raised repeatedly."""
    try:
        notes = [each for each in getattr(error, "__notes__", ()) if not each.startswith(_PREFIX)]
        vars(error)["__notes__"] = [*notes, _PREFIX + note]
    except Exception:
        # An exception class that refuses attributes goes without.
        return
