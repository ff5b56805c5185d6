"""Exact trees for the small immutable types of the standard library."""

from __future__ import annotations

import datetime as dt
import ipaddress
import pathlib
import re
import sys
import uuid
import zoneinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any

from memoleo.codecs._tree import (
    FALLBACKS,
    READERS,
    WRITERS,
    Node,
    Reader,
    Unstorable,
    Write,
    Writer,
    define,
)
from memoleo.errors import CodecError

__all__: list[str] = []

# The tags are part of the stored format.
_TEXT, _INT, _ELLIPSIS, _NOT_IMPLEMENTED = 20, 21, 22, 23
_BYTEARRAY, _COMPLEX, _DECIMAL, _FRACTION, _RANGE, _SLICE, _PATTERN = range(24, 31)
_DATE, _TIME, _DATETIME, _TIMEDELTA, _TIMEZONE, _ZONE, _PYDANTIC_ZONE = range(31, 38)
_UUID, _PATH, _ADDRESS, _PYDANTIC_URL = 38, 39, 40, 41

_FITS = range(-(2**63), 2**64)


def _write_text(writer: Writer, value: str) -> Node:
    try:
        value.encode()
    except UnicodeEncodeError:
        return [_TEXT, value.encode("utf-8", "surrogatepass")]
    return value


def _write_int(writer: Writer, value: int) -> Node:
    if value in _FITS:
        return value
    return [_INT, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)]


WRITERS[str] = _write_text
WRITERS[int] = _write_int
WRITERS.setdefault(type(...), lambda writer, value: [_ELLIPSIS])
WRITERS.setdefault(type(NotImplemented), lambda writer, value: [_NOT_IMPLEMENTED])
READERS[_TEXT] = lambda reader, node: bytes.decode(node[1], "utf-8", "surrogatepass")
READERS[_INT] = lambda reader, node: int.from_bytes(node[1], "little", signed=True)
READERS[_ELLIPSIS] = lambda reader, node: ...
READERS[_NOT_IMPLEMENTED] = lambda reader, node: NotImplemented

define(_BYTEARRAY, bytearray, lambda v: (bytes(v),), lambda data: bytearray(memoryview(data)))
define(_COMPLEX, complex, lambda v: (v.real, v.imag), complex)
define(_DECIMAL, Decimal, lambda v: (str(v),), Decimal)
define(_FRACTION, Fraction, lambda v: (v.numerator, v.denominator), Fraction)
define(_RANGE, range, lambda v: (v.start, v.stop, v.step), range)
define(_SLICE, slice, lambda v: (v.start, v.stop, v.step), slice)


def _split_pattern(value: re.Pattern[Any]) -> tuple[Any, int]:
    if value.flags & re.DEBUG:
        raise Unstorable(re.Pattern, "a pattern with re.DEBUG prints when it is compiled")
    return value.pattern, value.flags


def _join_pattern(pattern: str | bytes, flags: int) -> re.Pattern[Any]:
    if flags & re.DEBUG:
        raise CodecError("a pattern with re.DEBUG")
    return re.compile(pattern, flags)


define(_PATTERN, re.Pattern, _split_pattern, _join_pattern)


def _join_time(
    hour: int, minute: int, second: int, microsecond: int, fold: int, zone: dt.tzinfo | None
) -> dt.time:
    return dt.time(hour, minute, second, microsecond, zone, fold=fold)


def _join_datetime(fold: int, zone: dt.tzinfo | None, *numbers: int) -> dt.datetime:
    return dt.datetime(*numbers, tzinfo=zone, fold=fold)  # type: ignore[arg-type,misc]


define(_DATE, dt.date, lambda v: (v.year, v.month, v.day), dt.date)
define(
    _TIME,
    dt.time,
    lambda v: (v.hour, v.minute, v.second, v.microsecond, v.fold, v.tzinfo),
    _join_time,
)
define(
    _DATETIME,
    dt.datetime,
    lambda v: (
        v.fold, v.tzinfo,
        v.year, v.month, v.day, v.hour, v.minute, v.second, v.microsecond,
    ),
    _join_datetime,
)  # fmt: skip
define(_TIMEDELTA, dt.timedelta, lambda v: (v.days, v.seconds, v.microseconds), dt.timedelta)
# `__getinitargs__` is the only way to tell timezone(d) from timezone(d, "name").
define(_TIMEZONE, dt.timezone, lambda v: v.__getinitargs__(), dt.timezone)


def _split_zone(value: zoneinfo.ZoneInfo) -> tuple[str]:
    if not value.key:
        raise Unstorable(zoneinfo.ZoneInfo, "it was read from a file and has no key")
    return (value.key,)


define(_ZONE, zoneinfo.ZoneInfo, _split_zone, zoneinfo.ZoneInfo)


def _pydantic_zone(kind: type) -> Write | None:
    """Return how to write the time zones that pydantic gives to datetimes it has parsed."""
    core = sys.modules.get("pydantic_core")
    return _write_pydantic_zone if core and vars(core).get("TzInfo") is kind else None


def _write_pydantic_zone(writer: Writer, value: Any) -> Node:
    return [_PYDANTIC_ZONE, int(value.utcoffset(None).total_seconds())]


def _read_pydantic_zone(reader: Reader, node: list[Node]) -> dt.tzinfo:
    zone: dt.tzinfo = sys.modules["pydantic_core"].TzInfo(node[1])
    return zone


FALLBACKS.append(_pydantic_zone)
READERS[_PYDANTIC_ZONE] = _read_pydantic_zone


_URLS = ("Url", "MultiHostUrl")


def _pydantic_class(name: str) -> Any:
    """Return pydantic's class of that name, if it is one for URLs; `None` if there is none."""
    if name in _URLS:
        return getattr(sys.modules.get("pydantic_core"), name, None)
    kind = vars(sys.modules.get("pydantic.networks", sys)).get(name)
    layers = [layer.__name__ for layer in getattr(kind, "__mro__", ())]
    return kind if {"_BaseUrl", "_BaseMultiHostUrl"}.intersection(layers[1:]) else None


def _pydantic_url(kind: type) -> Write | None:
    return _write_pydantic_url if _pydantic_class(kind.__name__) is kind else None


def _write_pydantic_url(writer: Writer, value: Any) -> Node:
    inner = getattr(value, "_url", value)
    if type(inner)(str(inner)) != inner:
        raise Unstorable(type(value), "it is not what its text says")
    return [_PYDANTIC_URL, type(value).__name__, type(inner).__name__, str(inner)]


def _read_pydantic_url(reader: Reader, node: list[Node]) -> Any:
    _, name, inner, text = node
    kind, inner_kind = _pydantic_class(name), _pydantic_class(inner)
    if kind is None or inner_kind is None or inner not in _URLS:
        raise CodecError(f"this program has no URL called {name}")
    if kind is inner_kind:
        return kind(text)
    # Its own `__init__` would validate once more.
    value = object.__new__(kind)
    value._url = inner_kind(text)
    return value


FALLBACKS.append(_pydantic_url)
READERS[_PYDANTIC_URL] = _read_pydantic_url


def _join_uuid(data: bytes, safe: int | None) -> uuid.UUID:
    return uuid.UUID(bytes=data, is_safe=uuid.SafeUUID(safe))


define(_UUID, uuid.UUID, lambda v: (v.bytes, v.is_safe.value), _join_uuid)


def _named(tag: int, kinds: tuple[type, ...]) -> None:
    """Register types whose values are rebuilt from their text."""
    by_name = {kind.__name__: kind for kind in kinds}
    for kind in kinds:
        define(
            tag,
            kind,
            lambda value: (type(value).__name__, str(value)),
            lambda name, text: by_name[name](text),
        )


_named(
    _PATH,
    (
        pathlib.PurePosixPath, pathlib.PureWindowsPath,
        pathlib.PosixPath, pathlib.WindowsPath,
    ),
)  # fmt: skip
_named(
    _ADDRESS,
    (
        ipaddress.IPv4Address, ipaddress.IPv4Interface, ipaddress.IPv4Network,
        ipaddress.IPv6Address, ipaddress.IPv6Interface, ipaddress.IPv6Network,
    ),
)  # fmt: skip
