"""The tagged lane: any value with content as bytes that are exact to the type.

Each value is written as a tag, the length of what follows, and that; so no two sequences of
values have the same bytes. What is compared is content: identity, the order of dict items and
of sets, and `PYTHONHASHSEED` leave no trace. No method of a user's class is called but those
that exist for this purpose, so a broken ``__eq__``, ``__hash__`` or ``__repr__`` does no harm.

A *writer* knows the types of one kind. This module has those of the builtin types; other
modules of this package add theirs with `writes` (an exact type) and `finder` (a search by
class, made once per type).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from memoleo.keys._scalars import LEAVES, Put, frame, size

__all__ = [
    "DEEPEST",
    "Put",
    "Unkeyable",
    "Watched",
    "Writer",
    "builtin_writer",
    "canonical",
    "class_name",
    "content_writer",
    "finder",
    "forget",
    "frame",
    "is_keyable",
    "is_settled",
    "module_name",
    "rank_of",
    "write",
    "write_mapping",
    "writes",
]

Writer = Callable[[Any, Put, set[int]], None]
Finder = Callable[[type], "Writer | None"]

DEEPEST = 200


class Unkeyable(Exception):
    """A value without exact content; the Keyer turns it into a `KeyingError` with the path.

    Parameters
    ----------
    value
        what can't be keyed
    reason
        why not, as the end of the sentence "… can't be keyed: "
    """

    def __init__(self, value: Any, reason: str) -> None:
        super().__init__(reason)
        self.type_name = class_name(type(value))
        self.reason = reason
        self.steps: list[str] = []

    def inside(self, step: str) -> Unkeyable:
        """Add the outer step of the path, and return the error."""
        self.steps.append(step)
        return self

    @property
    def path(self) -> str:
        """The path from the outermost value to the one that can't be keyed."""
        return "".join(reversed(self.steps))


def module_name(name: Any, namespace: dict[str, Any] | None = None) -> str:
    """Return the name that a module has in keys.

    A program that runs as ``python -m package.module`` shares its keys with whoever imports
    that module, and a child started by `multiprocessing` with its parent.
    """
    if name not in ("__main__", "__mp_main__"):
        return name if isinstance(name, str) else ""
    import sys

    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is None or not spec.name:
        return "__main__"
    found: str = spec.name
    return found.removesuffix(".__main__")


def class_name(cls: type) -> str:
    """Return ``module.qualname`` of a class without calling its metaclass."""
    qualname = type.__dict__["__qualname__"].__get__(cls)
    try:
        module = type.__dict__["__module__"].__get__(cls)
    except AttributeError:
        module = ""
    return qualname if module == "builtins" else f"{module_name(module)}.{qualname}"


def write(value: Any, put: Put, active: set[int]) -> None:
    """Write the canonical bytes of `value` in pieces.

    Parameters
    ----------
    value
        what is keyed
    put
        receives each piece: bytes, or a buffer of bytes
    active
        the identities of the values that hold this one; as many as the nesting is deep

    Raises
    ------
    Unkeyable
        the value, or one inside it, has no exact content
    """
    kind = type(value)
    leaf = LEAVES.get(kind)
    if leaf is not None:
        leaf(value, put)
        return
    mark = id(value)
    if mark in active:
        raise Unkeyable(value, "it contains itself")
    if len(active) >= DEEPEST:
        raise Unkeyable(value, f"it is nested deeper than {DEEPEST} levels")
    writer = _WRITERS.get(kind)
    if writer is None:
        writer = _find(kind)
    active.add(mark)
    writer(value, put, active)
    active.discard(mark)


def canonical(value: Any) -> bytes:
    """Return the canonical bytes of `value` in one piece.

    Raises
    ------
    Unkeyable
        the value, or one inside it, has no exact content
    """
    pieces: list[Any] = []
    try:
        write(value, pieces.append, set())
    except RecursionError:
        raise Unkeyable(value, "it is nested too deeply for the stack that is left") from None
    return b"".join(pieces)


def is_keyable(value: Any) -> bool:
    """Return whether `value` has exact content."""
    try:
        canonical(value)
    except Unkeyable:
        return False
    return True


class Watched(set["int"]):
    """The identities that `write` keeps, and whether an ordinary instance was met."""

    ordinary = False


def is_settled(value: Any) -> bool:
    """Return whether `value` has exact content that is all there is to it.

    An ordinary instance has attributes to be compared by, but it may also count and connect: its
    attributes change while it does its work.
    """
    watched = Watched()
    try:
        write(value, _forget, watched)
    except (Unkeyable, RecursionError):
        return False
    return not watched.ordinary


def _forget(piece: Any) -> None:
    pass


def _in_order(tag: bytes, base: Any) -> Writer:
    """Return the writer of a sequence type; `base` is the builtin type that holds the items."""

    def writer(value: Any, put: Put, active: set[int]) -> None:
        put(tag + size(base.__len__(value)))
        index = 0
        try:
            for item in base.__iter__(value):
                write(item, put, active)
                index += 1
        except Unkeyable as error:
            raise error.inside(f"[{index}]") from None

    return writer


def _any_order(tag: bytes, base: Any) -> Writer:
    """Return the writer of a set type: items in the order of their bytes."""

    def writer(value: Any, put: Put, active: set[int]) -> None:
        try:
            items = sorted(_joined(item, active) for item in base.__iter__(value))
        except Unkeyable as error:
            raise error.inside("{…}") from None
        put(tag + size(len(items)))
        for item in items:
            put(item)

    return writer


def _joined(value: Any, active: set[int]) -> bytes:
    pieces: list[Any] = []
    write(value, pieces.append, active)
    return b"".join(pieces)


def write_mapping(
    pairs: Iterable[tuple[Any, Any]], put: Put, active: set[int], step: str = "[{!r}]"
) -> None:
    """Write keys and values in the order of the keys' bytes.

    Parameters
    ----------
    pairs
        the items
    put, active
        as for `write`
    step
        how a path shows a key
    """
    rows = []
    for name, value in pairs:
        try:
            rows.append((_joined(name, active), name, value))
        except Unkeyable as error:
            raise error.inside(".keys()") from None
    rows.sort(key=_by_name)
    put(b"M" + size(len(rows)))
    if len({head for head, _, _ in rows}) < len(rows):
        _write_twins(rows, put, active)
        return
    for head, name, value in rows:
        put(head)
        try:
            write(value, put, active)
        except Unkeyable as error:
            shown = name if type(name) in (str, int, bool) else ...
            raise error.inside(step.format(shown)) from None


def _by_name(row: tuple[bytes, Any, Any]) -> bytes:
    return row[0]


def _write_twins(rows: list[tuple[bytes, Any, Any]], put: Put, active: set[int]) -> None:
    """Write a mapping in which different keys have the same content (two nans, say)."""
    for item in sorted(head + _joined(value, active) for head, _, value in rows):
        put(item)


def _dict(value: Any, put: Put, active: set[int]) -> None:
    write_mapping(dict.items(value), put, active)


_BUILTIN: dict[type, Writer] = {
    list: _in_order(b"L", list),
    tuple: _in_order(b"U", tuple),
    set: _any_order(b"E", set),
    frozenset: _any_order(b"Z", frozenset),
    dict: _dict,
}
_WRITERS: dict[type, Writer] = dict(_BUILTIN)
_FINDERS: list[tuple[int, Finder]] = []

# Classes that a program makes at run time would pile up; forgetting them costs a search.
_MOST = 4096


def writes(*kinds: type) -> Callable[[Writer], Writer]:
    """Declare the decorated function the writer of `kinds` and, below their name, subclasses."""

    def declare(writer: Writer) -> Writer:
        for kind in kinds:
            _BUILTIN[kind] = writer
            _WRITERS[kind] = writer
        return writer

    return declare


def finder(rank: int) -> Callable[[Finder], Finder]:
    """Declare a search for the writer of a class; the lowest rank is asked first."""

    def declare(find: Finder) -> Finder:
        _FINDERS.append((rank, find))
        _FINDERS.sort(key=lambda row: row[0])
        return find

    return declare


def rank_of(kind: type) -> int | None:
    """Return the rank of the search that knows `kind`: 0 for a builtin, None for none."""
    if kind in _BUILTIN or kind in LEAVES:
        return 0
    for rank, find in _FINDERS:
        if find(kind) is not None:
            return rank
    return None


def forget() -> None:
    """Forget which writer belongs to which type, since an adapter came or went."""
    _WRITERS.clear()
    _WRITERS.update(_BUILTIN)


def content_writer(kind: str, content: Callable[[Any], Any]) -> Writer:
    """Return a writer that writes `content(value)` under the name `kind`."""
    head = b"X" + frame(kind)

    def writer(value: Any, put: Put, active: set[int]) -> None:
        put(head)
        write(content(value), put, active)

    return writer


def builtin_writer(kind: type) -> Writer | None:
    """Return the writer that serves exactly `kind`, or None."""
    return _BUILTIN.get(kind) or _leaf_writer(kind)


def _leaf_writer(kind: type) -> Writer | None:
    leaf = LEAVES.get(kind)
    if leaf is None:
        return None

    def writer(value: Any, put: Put, active: set[int]) -> None:
        leaf(value, put)

    return writer


def _find(kind: type) -> Writer:
    if len(_WRITERS) > _MOST:
        forget()
    for _, find in _FINDERS:
        writer = find(kind)
        if writer is not None:
            break
    else:
        writer = _refuse
    _WRITERS[kind] = writer
    return writer


def _refuse(value: Any, put: Put, active: set[int]) -> None:
    raise Unkeyable(value, "it has no content that could be compared")
