"""A mode of writing in which functions and classes stand for themselves by name.

The examination of a function meets tables of functions. Writing such a function out would
examine it in turn, without end where the table holds the function that reads it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["labelled", "note"]

_MODE = threading.local()


@contextmanager
def labelled(name_of: Callable[[Any], str]) -> Iterator[list[Any]]:
    """Collect the functions and classes that are written in this thread meanwhile.

    Parameters
    ----------
    name_of
        what each of them is called
    """
    before = getattr(_MODE, "now", None)
    found: list[Any] = []
    _MODE.now = (name_of, found)
    try:
        yield found
    finally:
        _MODE.now = before


def note(value: Any) -> str | None:
    """Take note of `value` and return its name if the mode is on; `None` if it is off."""
    now: tuple[Callable[[Any], str], list[Any]] | None = getattr(_MODE, "now", None)
    if now is None:
        return None
    name_of, found = now
    found.append(value)
    return name_of(value)
