"""Minutes, hours and days, UTC: which stretch of time something belongs to, and for how long.

They are counted from the epoch, which has no leap seconds and no summer time, so that every hour
has 60 minutes and every day 24 hours wherever the program runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

__all__ = [
    "DAY",
    "HOUR",
    "IN_FILE",
    "IN_MEMORY",
    "MINUTE",
    "Place",
    "minute_of",
    "outdated",
    "widened",
]

MINUTE, HOUR, DAY = 60, 3600, 86_400

IN_FILE = {MINUTE: 6 * HOUR, HOUR: 62 * DAY}
"""How long minutes and hours are told apart in a file. Days are kept for good."""

IN_MEMORY = {MINUTE: HOUR, HOUR: 2 * DAY}
"""The same for what only this process holds."""

_WIDER = {MINUTE: HOUR, HOUR: DAY}
_FIRST, _LAST = -(10**11), 10**11


class Place(NamedTuple):
    """A stretch of time: when it starts, in seconds since the epoch, and how many it lasts."""

    start: int
    span: int


def minute_of(now: float) -> Place:
    """Return the minute that a time is in."""
    second = int(min(max(now, _FIRST), _LAST))
    return Place(second - second % MINUTE, MINUTE)


def widened(place: Place) -> Place:
    """Return the hour that a minute is in, or the day that an hour is in."""
    span = _WIDER[place.span]
    return Place(place.start - place.start % span, span)


def outdated(now: float, kept: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    """Yield each span that gets wider with age, and the time before which it does.

    The bounds fall on the wider spans' own, so that none of these is begun before it is over.
    """
    second = minute_of(now).start
    for span, seconds in kept.items():
        before = second - seconds
        yield span, before - before % _WIDER[span]
