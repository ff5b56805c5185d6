"""How a value that was computed again differs from the one that is stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

__all__ = ["Change", "change_between"]

_DEEPEST = 50


class Change(msgspec.Struct, frozen=True):
    """The first place in which two values differ.

    Parameters
    ----------
    kind
        "type", "length" (or other names), or "value"
    path
        where inside the value, such as ``['joy']``; empty for the value itself
    by
        of numbers the difference, as a part of the larger one: 0.02 is 2 %
    """

    kind: str
    path: str = ""
    by: float | None = None

    def __str__(self) -> str:
        place = f" at {self.path}" if self.path else ""
        return _KINDS[self.kind] + place + (f", by {self.by:.3%}" if self.by is not None else "")


_KINDS = {"type": "another type", "length": "other items", "value": "another value"}


def change_between(then: Any, now: Any) -> Change | None:
    """Return how `now` differs from `then`; `None` if they are the same, types included."""
    return _between(then, now, "", 0)


def _between(then: Any, now: Any, path: str, depth: int) -> Change | None:
    if type(then) is not type(now):
        return Change("type", path)
    if depth < _DEEPEST:
        if isinstance(then, Mapping):
            if then.keys() != now.keys():
                return Change("length", path)
            return _first(((then[name], now[name], f"{path}[{name!r}]") for name in then), depth)
        if isinstance(then, (list, tuple)):
            if len(then) != len(now):
                return Change("length", path)
            items = enumerate(zip(then, now, strict=True))
            return _first(((a, b, f"{path}[{place}]") for place, (a, b) in items), depth)
        fields = _fields(then)
        if fields is not None:
            others = _fields(now) or {}
            if fields.keys() != others.keys():
                return Change("length", path)
            rows = ((fields[name], others[name], f"{path}.{name}") for name in fields)
            return _first(rows, depth)
    if type(then) is float or type(then) is int:
        if then == now or (then != then and now != now):
            return None
        largest = max(abs(then), abs(now))
        try:
            by = abs(then - now) / largest
        except (OverflowError, ZeroDivisionError):
            by = None
        return Change("value", path, by if by == by else None)
    return None if _equal(then, now) else Change("value", path)


def _first(rows: Iterable[tuple[Any, Any, str]], depth: int) -> Change | None:
    for then, now, path in rows:
        change = _between(then, now, path, depth + 1)
        if change is not None:
            return change
    return None


_RECORDS = ("__dataclass_fields__", "model_fields", "__attrs_attrs__")


def _fields(value: Any) -> dict[str, Any] | None:
    """Return the fields of a record: a dataclass, a model of pydantic or attrs, a `Struct`."""
    kind = type(value)
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    if any(
        hasattr(kind, mark) for mark in ("__dataclass_fields__", "model_fields", "__attrs_attrs__")
    ):
        found = getattr(value, "__dict__", None)
        return found if type(found) is dict else None
    return None


def _equal(then: Any, now: Any) -> bool:
    equal = then == now
    # Arrays answer item by item.
    every = getattr(equal, "all", None)
    return bool(every() if callable(every) else equal)
