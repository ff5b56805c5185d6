"""A mode of writing in which functions and classes stand for themselves by name.

The examination of a function meets tables of functions. Writing such a function out would
examine it in turn, without end where the table holds the function that reads it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["labelled", "note"]

_MODE = threading.local()


@contextmanager
def labelled() -> Iterator[list[Any]]:
    """Collect the functions and classes that are written in this thread meanwhile."""
    before = getattr(_MODE, "found", None)
    found: list[Any] = []
    _MODE.found = found
    try:
        yield found
    finally:
        _MODE.found = before


def note(value: Any) -> bool:
    """Return whether the mode is on, and take note of `value` if it is."""
    found: list[Any] | None = getattr(_MODE, "found", None)
    if found is None:
        return False
    found.append(value)
    return True
