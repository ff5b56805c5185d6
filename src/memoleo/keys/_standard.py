"""Types of the standard library, known by where they are found, so that none is imported."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from memoleo.keys._canonical import (
    Put,
    Unkeyable,
    Writer,
    class_name,
    content_writer,
    finder,
    frame,
    is_keyable,
    write,
    write_mapping,
)

__all__ = ["is_constant_type", "is_record", "standard_writer"]


def _zone(zone: Any, moment: Any) -> Any:
    if zone is None:
        return None
    name = class_name(type(zone))
    if name == "datetime.timezone":
        return ("offset", *zone.__getinitargs__())
    if name in ("zoneinfo.ZoneInfo", "zoneinfo._zoneinfo.ZoneInfo"):
        if zone.key is None:
            raise Unkeyable(zone, "a ZoneInfo made from a file has no name")
        return ("zone", zone.key)
    if is_keyable(zone):
        return ("tzinfo", zone)
    return ("tzinfo", name, zone.utcoffset(moment), zone.dst(moment), zone.tzname(moment))


def _date(value: Any) -> Any:
    return (value.year, value.month, value.day)


def _time(value: Any) -> Any:
    clock = (value.hour, value.minute, value.second, value.microsecond, value.fold)
    return (*clock, _zone(value.tzinfo, None))


def _datetime(value: Any) -> Any:
    clock = (value.hour, value.minute, value.second, value.microsecond, value.fold)
    return (*_date(value), *clock, _zone(value.tzinfo, value))


def _timedelta(value: Any) -> Any:
    return (value.days, value.seconds, value.microseconds)


def _decimal(value: Any) -> Any:
    return tuple(sys.modules["decimal"].Decimal.as_tuple(value))


def _fraction(value: Any) -> Any:
    return (value.numerator, value.denominator)


def _uuid(value: Any) -> Any:
    return value.int


def _posix(value: Any) -> Any:
    return value.as_posix()


def _pattern(value: Any) -> Any:
    return (value.pattern, int(value.flags))


def _span(value: Any) -> Any:
    return (value.start, value.stop, value.step)


def _text(value: Any) -> Any:
    return str(value)


def _array(value: Any) -> Any:
    return (value.typecode, value.tolist())


def _memory(value: Any) -> Any:
    if not value.c_contiguous:
        raise Unkeyable(value, "it is a memoryview with gaps")
    return (value.format, value.shape, value.tobytes())


def _logger(value: Any) -> Any:
    return value.name


def _nothing(value: Any) -> Any:
    return None


def _ordered(value: Any, put: Put, active: set[int]) -> None:
    pairs = list(sys.modules["collections"].OrderedDict.items(value))
    put(b"X" + frame("OrderedDict") + len(pairs).to_bytes(8, "little"))
    for name, item in pairs:
        write(name, put, active)
        try:
            write(item, put, active)
        except Unkeyable as error:
            raise error.inside(f"[{name!r}]" if type(name) in (str, int) else "[…]") from None


def _defaultdict(value: Any, put: Put, active: set[int]) -> None:
    put(b"X" + frame("defaultdict"))
    try:
        write(value.default_factory, put, active)
    except Unkeyable as error:
        raise error.inside(".default_factory") from None
    write_mapping(dict.items(value), put, active)


def _deque(value: Any, put: Put, active: set[int]) -> None:
    kind = sys.modules["collections"].deque
    items = list(kind.__iter__(value))
    put(b"X" + frame("deque"))
    write(value.maxlen, put, active)
    write(items, put, active)


def _namespace(value: Any, put: Put, active: set[int]) -> None:
    put(b"X" + frame("SimpleNamespace"))
    write_mapping(object.__getattribute__(value, "__dict__").items(), put, active, ".{}")


def _proxy(value: Any, put: Put, active: set[int]) -> None:
    put(b"X" + frame("mappingproxy"))
    write_mapping(value.items(), put, active)


_CONTENT: dict[tuple[str, str], tuple[str, Callable[[Any], Any]]] = {
    ("datetime", "date"): ("date", _date),
    ("datetime", "time"): ("time", _time),
    ("datetime", "datetime"): ("datetime", _datetime),
    ("datetime", "timedelta"): ("timedelta", _timedelta),
    ("datetime", "timezone"): ("timezone", lambda value: _zone(value, None)),
    ("zoneinfo", "ZoneInfo"): ("timezone", lambda value: _zone(value, None)),
    ("decimal", "Decimal"): ("Decimal", _decimal),
    ("fractions", "Fraction"): ("Fraction", _fraction),
    ("uuid", "UUID"): ("UUID", _uuid),
    ("pathlib", "PosixPath"): ("Path", _posix),
    ("pathlib", "WindowsPath"): ("Path", _posix),
    ("pathlib", "Path"): ("Path", _posix),
    ("pathlib", "PurePosixPath"): ("PurePosixPath", _posix),
    ("pathlib", "PureWindowsPath"): ("PureWindowsPath", _posix),
    ("pathlib", "PurePath"): ("PurePath", _posix),
    ("re", "Pattern"): ("Pattern", _pattern),
    ("builtins", "range"): ("range", _span),
    ("builtins", "slice"): ("slice", _span),
    ("builtins", "memoryview"): ("memoryview", _memory),
    ("array", "array"): ("array", _array),
    ("ipaddress", "IPv4Address"): ("IPv4Address", _text),
    ("ipaddress", "IPv6Address"): ("IPv6Address", _text),
    ("ipaddress", "IPv4Network"): ("IPv4Network", _text),
    ("ipaddress", "IPv6Network"): ("IPv6Network", _text),
    ("ipaddress", "IPv4Interface"): ("IPv4Interface", _text),
    ("ipaddress", "IPv6Interface"): ("IPv6Interface", _text),
    # A logger changes no result, and its name is all there is to it for the program.
    ("logging", "Logger"): ("Logger", _logger),
    ("logging", "RootLogger"): ("Logger", _logger),
    ("msgspec._core", "UnsetType"): ("UNSET", _nothing),
    ("pydantic_core._pydantic_core", "Url"): ("Url", _text),
    ("pydantic_core._pydantic_core", "MultiHostUrl"): ("MultiHostUrl", _text),
}

_WRITERS: dict[tuple[str, str], Writer] = {
    ("collections", "OrderedDict"): _ordered,
    ("collections", "defaultdict"): _defaultdict,
    ("collections", "deque"): _deque,
    ("types", "MappingProxyType"): _proxy,
    ("types", "SimpleNamespace"): _namespace,
    **{place: content_writer(*row) for place, row in _CONTENT.items()},
}


@finder(40)
def standard_writer(cls: type) -> Writer | None:
    """Return the writer of exactly this class of the standard library, or None."""
    for (module, name), writer in _WRITERS.items():
        if getattr(sys.modules.get(module), name, None) is cls:
            return writer
    return None


_SCALARS = (type(None), bool, int, float, complex, str, bytes)
_CONTAINERS = (list, tuple, dict, set, frozenset)
_FIXED = frozenset(
    [
        "date",
        "time",
        "datetime",
        "timedelta",
        "timezone",
        "Decimal",
        "Fraction",
        "UUID",
        "Path",
        "PurePosixPath",
        "PureWindowsPath",
        "Pattern",
        "range",
    ]
)


def is_record(value: Any) -> bool:
    """Return whether a module's variable holds settings rather than something that works.

    Such are the arguments of a command line, and instances of classes that declare their fields.
    """
    kind = type(value)
    named = (("argparse", "Namespace"), ("types", "SimpleNamespace"))
    if any(getattr(sys.modules.get(module), name, None) is kind for module, name in named):
        return True
    marks = ("__dataclass_fields__", "__pydantic_fields__", "__struct_fields__", "__attrs_attrs__")
    return any(hasattr(kind, mark) for mark in marks)


def is_constant_type(value: Any) -> bool:
    """Return whether a module's variable of this type is read as a constant.

    Instances of other classes are objects that a program works with, such as clients.
    """
    kind = type(value)
    if isinstance(value, (*_SCALARS, *_CONTAINERS)):
        return True
    enum = sys.modules.get("enum")
    if enum is not None and isinstance(value, enum.Enum):
        return True
    parameters = getattr(kind, "__dataclass_params__", None)
    if getattr(parameters, "frozen", False):
        return True
    return any(
        row[0] in _FIXED and getattr(sys.modules.get(module), name, None) is kind
        for (module, name), row in _CONTENT.items()
    )
