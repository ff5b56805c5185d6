"""Exact trees: how values that are not plain become plain data, and come back.

A *node* is what stands for a value: a scalar for itself, and for everything else a list whose
first item is a tag. `Writer.lower` turns values into nodes, `Reader.lift` turns them back. What
they know about types is registered by the modules next to this one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from memoleo.codecs._plain import SCALARS
from memoleo.errors import CodecError

__all__ = [
    "BUFFER",
    "FALLBACKS",
    "NODES",
    "READERS",
    "WRITERS",
    "Reader",
    "Unstorable",
    "Write",
    "Writer",
    "define",
]

Node = Any
NODES = SCALARS | {list}
"""The exact types of nodes."""

BUFFER = 1
"""The MessagePack extension code of raw memory, which is read without a copy."""


class Unstorable(Exception):
    """A value that has no exact form; `path` grows from the inside out."""

    def __init__(self, kind: type, reason: str) -> None:
        super().__init__(kind, reason)
        self.kind = kind
        self.reason = reason
        self.path: list[str] = []


class Writer:
    """Turns one value into a tree.

    Parameters
    ----------
    careful
        look at every integer and every text, since one of them does not fit MessagePack
    """

    __slots__ = ("_open", "careful", "classes")

    def __init__(self, careful: bool) -> None:
        self.careful = careful
        self.classes: dict[bytes, int] = {}
        self._open: set[int] = set()

    def lower(self, value: Any) -> Node:
        """Return the node that stands for `value`."""
        kind = type(value)
        if kind in SCALARS and not self.careful:
            return value
        write = WRITERS.get(kind)
        if write is not None:
            return write(self, value)
        if kind in SCALARS:
            return value
        for fallback in FALLBACKS:
            found = fallback(kind)
            if found is not None:
                return found(self, value)
        raise Unstorable(kind, "it is not a type that memoleo knows")

    def nodes(
        self, owner: object, values: Collection[Any], step: Callable[[int], str]
    ) -> list[Node]:
        """Return the nodes of `values`, in order.

        Parameters
        ----------
        owner
            the container that they are in, to notice one that contains itself
        step
            gives the piece of the path that leads to the value at an index
        """
        if not self.careful and {*map(type, values)} <= SCALARS:
            return list(values)
        mark = id(owner)
        if mark in self._open:
            raise Unstorable(type(owner), "it contains itself")
        self._open.add(mark)
        careful = self.careful
        done: list[Node] = list(values)
        index = 0
        try:
            for index, value in enumerate(done):
                if careful or type(value) not in SCALARS:
                    done[index] = self.lower(value)
        except Unstorable as error:
            error.path.append(step(index))
            raise
        self._open.discard(mark)
        return done

    def index(self, description: bytes) -> int:
        """Return the place of a class in the payload's table of classes."""
        return self.classes.setdefault(description, len(self.classes))


class Reader:
    """Turns a tree into the value it stands for.

    Parameters
    ----------
    classes
        the payload's table of classes
    """

    __slots__ = ("classes", "found")

    def __init__(self, classes: list[bytes]) -> None:
        self.classes = classes
        self.found: dict[Any, Any] = {}

    def lift(self, node: Node) -> Any:
        """Return the value that `node` stands for."""
        kind = type(node)
        if kind is list:
            return READERS[node[0]](self, node)
        if kind in SCALARS:
            return node
        raise CodecError(f"{kind.__name__} is not a node")

    def lifts(self, nodes: list[Node]) -> list[Any]:
        """Replace `nodes` by the values that they stand for, and return them."""
        kinds = {*map(type, nodes)}
        if not kinds <= SCALARS:
            if not kinds <= NODES:
                raise CodecError("something in it is not a node")
            lift = self.lift
            for index, node in enumerate(nodes):
                if type(node) is list:
                    nodes[index] = lift(node)
        return nodes


Write = Callable[[Writer, Any], Node]
Read = Callable[[Reader, list[Node]], Any]

WRITERS: dict[type, Write] = {}
"""How to lower the values of exactly one type, which is then kept alive.

Types that users registered are in it before any other: `dict.setdefault` adds the rest.
"""

READERS: dict[int, Read] = {}
"""How to lift the nodes under one tag. Tags are part of the stored format: never reuse one."""

FALLBACKS: list[Callable[[type], Write | None]] = []
"""Asked in order for a type that `WRITERS` does not have."""


def define(
    tag: int, kind: type, split: Callable[[Any], Collection[Any]], join: Callable[..., Any]
) -> None:
    """Register a type whose values are rebuilt from a few parts.

    Parameters
    ----------
    tag
        what marks its nodes
    kind
        the exact type
    split
        returns the parts, each storable
    join
        is called with the parts, and returns an equal value
    """

    def write(writer: Writer, value: Any) -> Node:
        return [tag, *map(writer.lower, split(value))]

    def read(reader: Reader, node: list[Node]) -> Any:
        return join(*reader.lifts(node[1:]))

    WRITERS.setdefault(kind, write)
    READERS[tag] = read
