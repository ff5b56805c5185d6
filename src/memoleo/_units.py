"""Durations and sizes as people write them."""

from __future__ import annotations

import re
from datetime import timedelta
from math import inf, isfinite, isinf, isnan

from memoleo.errors import ConfigError

__all__ = [
    "Duration",
    "duration_text",
    "parse_count",
    "parse_duration",
    "parse_size",
    "size_text",
]

Duration = float | int | timedelta | str
"""Seconds, a `timedelta`, or text such as "250ms", "90s", "15m", "24h", "30d" or "forever"."""

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\s*", re.ASCII)
_BYTES = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGT", start=1):
    _BYTES[f"{_letter}iB"] = 1024**_power
    _BYTES[f"{_letter}B"] = 1000**_power
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]i?B|B|)\s*", re.ASCII)


def parse_duration(value: Duration, what: str = "ttl") -> float:
    """Return a duration in seconds; infinity for "forever".

    Parameters
    ----------
    value
        seconds, a `timedelta`, or text with a unit
    what
        the name that an error message uses

    Raises
    ------
    ConfigError
        it is not a duration, or it is negative
    """
    seconds: float | None = None
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, str):
        match = _DURATION.fullmatch(value)
        if match:
            seconds = float(match[1]) * _SECONDS[match[2]]
        elif value.strip() == "forever":
            seconds = inf
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            seconds = float(value)
        except OverflowError:
            seconds = inf if value > 0 else None
    if seconds is None or isnan(seconds) or seconds < 0:
        raise ConfigError(
            f"{what}={value!r} is not a duration: give seconds, a timedelta, "
            'or text such as "250ms", "90s", "15m", "24h", "30d" or "forever"'
        )
    return seconds


def parse_size(value: int | str, what: str = "max_bytes") -> int:
    """Return a size in bytes, from a number or text such as "500MB" or "2GiB".

    Units are those of IEC 80000-13: "MB" is a million bytes, "MiB" is 1024² bytes.

    Raises
    ------
    ConfigError
        it is not a size, or it is negative
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        match = _SIZE.fullmatch(value)
        if match and isfinite(size := float(match[1]) * _BYTES[match[2]]):
            return int(size)
    raise ConfigError(
        f'{what}={value!r} is not a size: give bytes, or text such as "500MB" or "2GiB"'
    )


def parse_count(value: object, what: str = "max_entries") -> int:
    """Return a positive whole number.

    Raises
    ------
    ConfigError
        it is something else
    """
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise ConfigError(f"{what}={value!r} is not a positive whole number")


def duration_text(seconds: float) -> str:
    """Return a duration as people write it: "30d", "1.5h", "forever"."""
    if isinf(seconds):
        return "forever"
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= length:
            return f"{seconds / length:.6g}{unit}"
    return f"{seconds * 1000:.6g}ms" if seconds else "0s"


def size_text(size: float) -> str:
    """Return a size as people write it: "1.2 MiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
