"""How many names are told apart, so that a program that invents names can't fill a disk."""

from __future__ import annotations

from collections.abc import Sized

from memoleo._events import extras, logger

__all__ = ["MOST", "OTHER", "admits", "whole"]

MOST = 1_000
"""How many operations, types and models are told apart, each for itself."""

OTHER = "other"
"""What further ones are counted as."""

_told: set[str] = set()


def whole(name: str) -> str:
    """Return a name with halves of surrogate pairs spelled out: no file and no page holds these."""
    return name.encode("utf-8", "backslashreplace").decode()


def admits(known: Sized, what: str) -> bool:
    """Whether there is room for one more name; that there is none is said once in a process.

    Parameters
    ----------
    known
        the names that there are
    what
        what they are names of, in the plural
    """
    if len(known) < MOST:
        return True
    if what not in _told:
        _told.add(what)
        logger.warning(
            "metrics tell %s %s apart, and there are more: the rest is counted as %r. "
            "Names should be few and fixed; what varies from call to call doesn't belong in them",
            f"{MOST:,}",
            what,
            OTHER,
            extra=extras("too_many_names"),
        )
    return False
