"""Times as people say them: "1h" ago, "today", a date, a moment."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from memoleo._units import parse_duration
from memoleo.errors import ConfigError
from memoleo.metrics._spans import DAY, HOUR, MINUTE

__all__ = ["Step", "When", "parse_step", "parse_when"]

When = float | int | datetime | timedelta | str
"""Seconds since the epoch, a `datetime`, how long ago ("1h", a `timedelta`), a date such as
"2026-11-23", or "today", "yesterday", "week" (Monday) and "month"; all of them UTC."""

Step = int | str
"""Seconds, or "minute", "hour" and "day"."""

_STEPS = {"minute": MINUTE, "hour": HOUR, "day": DAY}
_THURSDAY = 3
"""The weekday of the epoch, with Monday as 0."""


def parse_when(value: When, now: float, what: str) -> float:
    """Return a time in seconds since the epoch.

    Parameters
    ----------
    value
        the time
    now
        the present one
    what
        the name that an error message uses

    Raises
    ------
    ConfigError
        it is no time
    """
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, timedelta):
        return now - value.total_seconds()
    if isinstance(value, str):
        found = _named(value.strip().lower(), now)
        if found is None:
            found = _written(value.strip())
        if found is None:
            try:
                found = now - parse_duration(value)
            except ConfigError:
                raise _refusal(value, what) from None
        return found
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value:
        return float(value)
    raise _refusal(value, what)


def parse_step(value: Step) -> int:
    """Return a step in seconds.

    Raises
    ------
    ConfigError
        it is no whole number of minutes
    """
    seconds = _STEPS.get(value) if isinstance(value, str) else value
    if isinstance(value, str) and seconds is None:
        try:
            seconds = round(parse_duration(value))
        except (ConfigError, OverflowError):
            seconds = None
    if seconds is None or isinstance(seconds, bool) or seconds < MINUTE or seconds % MINUTE:
        raise ConfigError(
            f'step={value!r}: give "minute", "hour", "day" or a whole number of minutes, in '
            'seconds or as text such as "15m"'
        )
    return int(seconds)


def _named(word: str, now: float) -> float | None:
    today = now - now % DAY
    if word == "today":
        return today
    if word == "yesterday":
        return today - DAY
    if word == "week":
        return today - (today // DAY + _THURSDAY) % 7 * DAY
    if word == "month":
        day = datetime.fromtimestamp(now, timezone.utc)
        return datetime(day.year, day.month, 1, tzinfo=timezone.utc).timestamp()
    if word == "ever":
        return float("-inf")
    return None


def _written(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text.removesuffix("Z"))
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return moment.timestamp()


def _refusal(value: object, what: str) -> ConfigError:
    return ConfigError(
        f"{what}={value!r} is no time: give seconds since the epoch, a datetime, how long ago "
        'such as "1h", a date such as "2026-11-23", or "today", "yesterday", "week", "month"'
    )
